"""The names of the precisions that a model can be opened in."""

from t2i_tools.errors import InputError

DTYPES = ("float32", "float16", "bfloat16")
SHORT_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def dtype_name(text: object) -> str:
    """torch's name of a dtype that may be given in short, "bf16" for "bfloat16". Raises InputError."""
    name = SHORT_DTYPES.get(str(text), str(text))
    if name not in DTYPES:
        raise InputError(f"unknown dtype {text!r}: choose {', '.join((*SHORT_DTYPES, *DTYPES))}")
    return name

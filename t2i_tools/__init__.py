"""Plugins for diffusers pipelines: any size, exact counts, long prompts, padding probes. With a small bundled model."""

from t2i_tools import _checkout
from t2i_tools._version import __version__ as __version__

_checkout.install()

TYPE_CHECKING = False  # typing would double the time that this import takes
if TYPE_CHECKING:  # what editors and type checkers see of the names below
    from t2i_tools.bundled import (
        load_bundled as load_bundled,
        load_bundled_clip as load_bundled_clip,
        load_bundled_counter as load_bundled_counter,
        load_bundled_judge as load_bundled_judge,
        load_bundled_long_clip as load_bundled_long_clip,
    )
    from t2i_tools.counting import (
        ClipTerm as ClipTerm,
        CountOptions as CountOptions,
        CountToken as CountToken,
        best_of as best_of,
        count_token as count_token,
        optimize_count as optimize_count,
    )
    from t2i_tools.entropy import (
        attention_entropy as attention_entropy,
        entropy_processors as entropy_processors,
        entropy_scaling as entropy_scaling,
    )
    from t2i_tools.errors import (
        InputError as InputError,
        ModelError as ModelError,
        OutOfMemoryError as OutOfMemoryError,
        T2IError as T2IError,
        UnsupportedModelError as UnsupportedModelError,
    )
    from t2i_tools.handle import Handle as Handle
    from t2i_tools.images.generate import Request as Request
    from t2i_tools.images.img2img import two_pass as two_pass
    from t2i_tools.longclip import (
        load_long_clip as load_long_clip,
        long_prompts as long_prompts,
        stretch_clip as stretch_clip,
        token_ruler as token_ruler,
    )
    from t2i_tools.metrics import ClipScorer as ClipScorer
    from t2i_tools.models.prompts import token_spans as token_spans
    from t2i_tools.padding import (
        compare_conditions as compare_conditions,
        compare_policies as compare_policies,
        diffusion_intervention as diffusion_intervention,
        encoder_intervention as encoder_intervention,
        pad_attention as pad_attention,
        pad_policy as pad_policy,
        probe_padding as probe_padding,
    )
    from t2i_tools.shrink import deep_shrink as deep_shrink
    from t2i_tools.workflows.model_check import check_model as check_model

# Public name -> the module that holds it, imported when the name is first used: torch takes seconds.
_PUBLIC = {
    "ClipScorer": "t2i_tools.metrics",
    "ClipTerm": "t2i_tools.counting",
    "CountOptions": "t2i_tools.counting",
    "CountToken": "t2i_tools.counting",
    "Handle": "t2i_tools.handle",
    "InputError": "t2i_tools.errors",
    "ModelError": "t2i_tools.errors",
    "OutOfMemoryError": "t2i_tools.errors",
    "Request": "t2i_tools.images.generate",
    "T2IError": "t2i_tools.errors",
    "UnsupportedModelError": "t2i_tools.errors",
    "attention_entropy": "t2i_tools.entropy",
    "best_of": "t2i_tools.counting",
    "check_model": "t2i_tools.workflows.model_check",
    "count_token": "t2i_tools.counting",
    "deep_shrink": "t2i_tools.shrink",
    "diffusion_intervention": "t2i_tools.padding",
    "encoder_intervention": "t2i_tools.padding",
    "entropy_processors": "t2i_tools.entropy",
    "entropy_scaling": "t2i_tools.entropy",
    "compare_conditions": "t2i_tools.padding",
    "compare_policies": "t2i_tools.padding",
    "load_bundled": "t2i_tools.bundled",
    "load_bundled_clip": "t2i_tools.bundled",
    "load_bundled_counter": "t2i_tools.bundled",
    "load_bundled_judge": "t2i_tools.bundled",
    "load_bundled_long_clip": "t2i_tools.bundled",
    "load_long_clip": "t2i_tools.longclip",
    "long_prompts": "t2i_tools.longclip",
    "pad_policy": "t2i_tools.padding",
    "optimize_count": "t2i_tools.counting",
    "pad_attention": "t2i_tools.padding",
    "probe_padding": "t2i_tools.padding",
    "stretch_clip": "t2i_tools.longclip",
    "token_ruler": "t2i_tools.longclip",
    "token_spans": "t2i_tools.models.prompts",
    "two_pass": "t2i_tools.images.img2img",
}
__all__ = sorted([*_PUBLIC, "__version__"])


if not TYPE_CHECKING:  # or a misspelled name would be known, as Any

    def __getattr__(name: str) -> object:
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})

"""Plugins for diffusers pipelines: any size, exact counts, long prompts, padding probes. With a small bundled model."""

import os
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that holds it, imported when the name is first used: torch takes seconds.
_PUBLIC = {
    "ClipTerm": "t2i_tools.counting",
    "CountToken": "t2i_tools.counting",
    "Handle": "t2i_tools.handle",
    "InputError": "t2i_tools.errors",
    "ModelError": "t2i_tools.errors",
    "OutOfMemoryError": "t2i_tools.errors",
    "Request": "t2i_tools.generation",
    "T2IError": "t2i_tools.errors",
    "UnsupportedModelError": "t2i_tools.errors",
    "attention_entropy": "t2i_tools.entropy",
    "best_of": "t2i_tools.counting",
    "count_token": "t2i_tools.counting",
    "diffusion_intervention": "t2i_tools.padding",
    "encoder_intervention": "t2i_tools.padding",
    "entropy_scaling": "t2i_tools.entropy",
    "intervene": "t2i_tools.padding",
    "load_default": "t2i_tools.default",
    "load_default_clip": "t2i_tools.default",
    "load_default_counter": "t2i_tools.default",
    "load_default_judge": "t2i_tools.default",
    "load_default_long_clip": "t2i_tools.default",
    "load_long_clip": "t2i_tools.longclip",
    "long_prompts": "t2i_tools.longclip",
    "mask_policy": "t2i_tools.padding",
    "optimize_count": "t2i_tools.counting",
    "pad_attention": "t2i_tools.padding",
    "probe_padding": "t2i_tools.padding",
    "stretch_clip": "t2i_tools.longclip",
    "token_ruler": "t2i_tools.longclip",
    "token_spans": "t2i_tools.prompts",
    "two_pass": "t2i_tools.twopass",
}
__all__ = sorted([*_PUBLIC, "__version__"])

# In a checkout `t2i_tools.ui` and `t2i_tools.pipelines` are the folders beside this one.
_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if os.path.isfile(os.path.join(_root, "pyproject.toml")) and os.path.isdir(os.path.join(_root, "ui")):
    __path__.append(_root)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})

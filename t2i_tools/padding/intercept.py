"""Intercepts a pipeline's call to learn its prompts, which no component receives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.handle import Handle, active_handle
from t2i_tools.images.signature import call_default
from t2i_tools.models.anatomy import controlnets, denoiser
from t2i_tools.models.compiled import unwrapped
from t2i_tools.models.families import pipeline_family
from t2i_tools.padding.encoding import TEXTS

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

INTERVENTION, POLICY = "padding intervention", "padding policy"
# Arguments of the call that change how encode_prompt reads a prompt.
READING: tuple[str, ...] = ("max_sequence_length", "clip_skip", "system_prompt", "clean_caption")
READING += ("text_encoder_out_layers", "return_index")
# Those of which `scale` is the strength of LoRAs, those in the text encoders included.
LORA_SCALE = ("cross_attention_kwargs", "joint_attention_kwargs", "attention_kwargs")
# Those that change which tokens it has, which is not followed.
OTHER_TOKENS = ("tokenizer_max_length", "skip_text_cleaning")


def intercept(
    pipe: DiffusionPipeline, handle: Handle, around: Callable[[dict[str, Any], Callable[..., Any]], Any]
) -> None:
    """Until the handle's end, a call of this very pipeline becomes `around(its arguments by name, the call as it was)`.

    Python looks `__call__` up in the class, so the pipeline is given one derived from its own, which hands on whatever
    does not concern it: calls of copies, and those after the end.
    """
    kind = type(pipe)

    @wraps(kind.__call__)  # with its signature, which tools read
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is not pipe or not handle.active:
            return kind.__call__(self, *args, **kwargs)
        return around(_named(kind, pipe, args, kwargs), partial(kind.__call__, pipe))

    def end() -> None:
        if type(pipe) is derived and not handle.active:  # it is, where a copy of the denoiser ends its own
            pipe.__class__ = kind

    pipe.__class__ = derived = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})
    handle.on_remove(end)


def check_alone(pipe: DiffusionPipeline, other: str) -> None:
    """Raise InputError where the other of the two plugins is on: each wants the call, and the rows, as they come.

    Raise UnsupportedModelError where the image learns of the prompt on a way that none of them guards.
    """
    if controlnets(pipe):
        raise UnsupportedModelError(
            f"the ControlNet of this {type(pipe).__name__} reads the prompt too, and passes it on to the image: "
            "use a pipeline without one, or an encoder_intervention, which both of them see"
        )
    if active_handle(unwrapped(denoiser(pipe)), other):
        raise InputError(
            f"a {INTERVENTION} and a {POLICY} do not go together, since both decide which rows of text the image sees: "
            f"remove the {other} first"
        )


def prompts_of(pipe: DiffusionPipeline, call: Mapping[str, Any]) -> list[str]:
    """The prompts of a call. Raises InputError."""
    family = pipeline_family(pipe)
    if family is not None and family.rewritten_by is not None:
        argument, writer = family.rewritten_by
        if getattr(pipe, writer, None) is not None and call.get(argument, call_default(pipe, argument)):
            raise InputError(f"a language model would rewrite the prompt before it is read: pass {argument}=False")
    if given := [name for name in OTHER_TOKENS if call.get(name)]:
        raise InputError(f"{given[0]} changes which tokens a prompt has: leave it out, rows are looked up without it")
    prompt = call.get("prompt")
    prompts = [prompt] if isinstance(prompt, str) else list(prompt or ())
    if not prompts or not all(isinstance(one, str) for one in prompts):
        raise InputError("pass the prompt as text: embeddings do not show which rows are words and which are padding")
    if any(call.get(name) not in (None, prompt) for name in TEXTS):
        raise InputError(
            "prompt_2 and so on must be the same text as prompt, whose rows are looked up in every encoder: leave "
            "them out"
        )
    return prompts


def negatives_of(call: Mapping[str, Any]) -> list[str]:
    """The negative prompts of a call, "" where it has none. Raises InputError."""
    negative = call.get("negative_prompt") or ""
    if any(name.startswith("negative_prompt_embeds") and value is not None for name, value in call.items()):
        raise InputError("pass the negative prompt as text: embeddings do not show which rows are padding")
    if any(call.get(f"negative_{name}") not in (None, "", negative) for name in TEXTS):
        raise InputError(
            "negative_prompt_2 and so on must be the same text as negative_prompt, whose padding rows are looked up in "
            "every encoder: leave them out"
        )
    return [negative] if isinstance(negative, str) else list(negative)


def reading_of(call: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that encode_prompt takes as well, some of them by another name."""
    scales = [given["scale"] for name in LORA_SCALE if (given := call.get(name)) and given.get("scale") is not None]
    reading = {name: call[name] for name in READING if call.get(name) is not None}
    return reading | ({"lora_scale": scales[0]} if scales else {})


def _named(kind: type, pipe: DiffusionPipeline, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments by name."""
    given = inspect.signature(kind.__call__).bind(pipe, *args, **kwargs).arguments
    return {name: value for name, value in given.items() if name not in ("self", "kwargs")} | given.get("kwargs", {})

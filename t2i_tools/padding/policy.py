"""Whether a denoiser sees the padding at all: by a mask where it reads one, else by leaving the rows out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from t2i_tools.compiled import unwrapped
from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.handle import Handle
from t2i_tools.models import denoiser
from t2i_tools.padding.calls import (
    INTERVENTION,
    POLICY,
    KnownText,
    check_alone,
    intercept,
    known_texts,
    prompts_of,
    reading_of,
    recognise,
)
from t2i_tools.padding.keeps import Rows
from t2i_tools.padding.sites import parameters

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Policy = Literal["none", "all", "keep-one"]
# The argument by which a denoiser is told which rows of text count.
MASKS = {
    "UNet2DConditionModel": "encoder_attention_mask",
    "PixArtTransformer2DModel": "encoder_attention_mask",
    "Lumina2Transformer2DModel": "encoder_attention_mask",
    "QwenImageTransformer2DModel": "encoder_hidden_states_mask",
    "ChromaTransformer2DModel": "attention_mask",
}
# These read none (CogView4 adds its mask of ones and zeros to the logits, which hides nothing). Their attention is a
# softmax over all rows, so that a row left out is a row masked.
DROPS = (
    "SD3Transformer2DModel",
    "FluxTransformer2DModel",
    "AuraFlowTransformer2DModel",
    "CogView4Transformer2DModel",
)
BATCHED = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance")
BATCHED += ("original_size", "target_size", "crop_coords")  # CogView4's


def mask_policy(pipe: DiffusionPipeline, policy: Policy) -> Handle:
    """Which padding the denoiser sees until the handle's `remove()`: "none" masks none, "all" all, "keep-one" all but
    the first, as Chroma was trained.

    Where a denoiser reads a mask (UNet, PixArt, Lumina2, Qwen-Image, Chroma), it gets that one; where it does not (SD3,
    Flux, AuraFlow, CogView4), the rows are left out, and prompts of different lengths in a batch, guidance's included,
    are denoised one after the other. Prompts and negative prompts have to be given as text; what guidance compares with
    is masked by its own length, and left alone where it is no prompt (SDXL's zeros, Lumina2's without its template).
    Not beside a `diffusion_intervention` or a ControlNet.
    Raises InputError or UnsupportedModelError.
    """
    if policy not in get_args(Policy):
        raise InputError(f"unknown policy {policy!r}: choose {', '.join(get_args(Policy))}")
    model = unwrapped(denoiser(pipe))
    names = [base.__name__ for base in type(model).__mro__]
    masking = Masking(policy, next((MASKS[name] for name in names if name in MASKS), None))
    if masking.argument is None and not any(name in DROPS for name in names):
        raise UnsupportedModelError(
            f"{names[0]}: it is not known how to mask its text; supported are {', '.join([*MASKS, *DROPS])}"
        )
    check_alone(pipe, INTERVENTION)
    handle = Handle(model, POLICY)
    if masking.argument is None:
        masking.replace_forward(model, handle)
    else:
        handle.on_remove(model.register_forward_pre_hook(masking.set_mask, with_kwargs=True).remove)

    def around(call: dict[str, Any], run: Callable[..., Any]) -> Any:
        negative = call.get("negative_prompt") or ""
        texts = [*prompts_of(call), *([negative] if isinstance(negative, str) else negative)]
        masking.known = known_texts(pipe, texts, reading_of(call))
        return run(**call)

    intercept(pipe, handle, around)
    return handle


def seen_rows(policy: Policy, rows: Rows) -> np.ndarray:
    """(L,) bool: the rows that a denoiser sees."""
    if policy == "none":
        return rows.prompt | rows.pads
    seen = rows.prompt.copy()
    if policy == "keep-one":
        seen[np.flatnonzero(rows.pads)[:1]] = True
    return seen


class Masking:
    """Masks the text of a denoiser's calls. known: the prompts of the pipeline's call."""

    def __init__(self, policy: Policy, argument: str | None) -> None:
        self.policy, self.argument = policy, argument
        self.known: list[KnownText] = []

    def seen(self, text: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
        """(B, L) bool: what is seen of a batch of texts; of one that is not known, what the pipeline says."""
        seen = torch.ones(text.shape[:2], dtype=torch.bool) if given is None else given[:, : text.shape[1]].bool().cpu()
        seen = seen.clone()
        for index, one in enumerate(text):
            if (found := recognise(one, self.known)) is not None:
                seen[index] = torch.from_numpy(seen_rows(self.policy, found.rows.to_length(text.shape[1])))
        return seen.to(text.device)

    def set_mask(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Root pre-hook: another mask in the place of the pipeline's."""
        arguments = _named(model, args, kwargs)
        given = arguments.get(self.argument)
        seen = self.seen(arguments["encoder_hidden_states"], given)
        if self.argument == "attention_mask" and isinstance(given, torch.Tensor):
            # Chroma's goes on over the image; its pipeline gives ones and zeros as floats, which are added, not masked.
            seen = torch.cat([seen, given[:, seen.shape[1] :].bool()], dim=1)
        elif isinstance(given, torch.Tensor):
            seen = seen.to(given.dtype)
        return (), {**arguments, self.argument: seen}

    def replace_forward(self, model: nn.Module, handle: Handle) -> None:
        """Let the denoiser leave rows out. Other wrappers of its forward stay, inside or outside of ours."""
        before = vars(model).get("forward")
        model.forward = ours = partial(self.forward, model, model.forward, handle)
        handle.on_remove(partial(_put_back, model, ours, before))

    def forward(self, model: nn.Module, inner: Callable[..., Any], handle: Handle, *args: Any, **kwargs: Any) -> Any:
        """What replaces the denoiser's forward."""
        arguments = _named(model, args, kwargs)
        if not handle.active or (seen := self.seen(arguments["encoder_hidden_states"])).all():
            return inner(*args, **kwargs)
        return _in_groups(inner, arguments, seen)


def _put_back(model: nn.Module, ours: Callable[..., Any], before: Callable[..., Any] | None) -> None:
    """Take our forward off, unless another one has wrapped it since, and goes on to call it."""
    if vars(model).get("forward") is not ours:
        return
    del model.forward
    if before is not None:
        model.forward = before


def _in_groups(forward: Any, arguments: Mapping[str, Any], seen: torch.Tensor) -> Any:
    """Call a denoiser for the items that see the same rows, without the others."""
    output = None
    for mask in torch.unique(seen, dim=0):
        items = (seen == mask).all(1).nonzero()[:, 0]
        part = {name: v[items] if name in BATCHED and v is not None else v for name, v in arguments.items()}
        part["encoder_hidden_states"] = part["encoder_hidden_states"][:, mask]
        if part.get("txt_ids") is not None:
            part["txt_ids"] = part["txt_ids"][mask]
        result = forward(**{**part, "return_dict": False})[0]
        output = result.new_zeros(len(seen), *result.shape[1:]) if output is None else output
        output[items] = result
    if arguments.get("return_dict", True):
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        return Transformer2DModelOutput(sample=output)
    return (output,)


def _named(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict(zip(parameters(type(model)), args, strict=False)), **kwargs}

"""How much attention the image pays to the padding, layer by layer."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from t2i_tools.compiled import is_compiled, unwrapped
from t2i_tools.errors import UnsupportedModelError
from t2i_tools.handle import Handle, Report
from t2i_tools.models import denoiser
from t2i_tools.padding.calls import known_texts, reading_of, recognise
from t2i_tools.padding.sites import Call, Site, find_sites, is_cross_attention, parameters, read_call

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def pad_attention(pipe: DiffusionPipeline, prompt: str, *, rows: int = 64, **call: Any) -> Report:
    """The share of the image's attention that goes to padding, prompt and image, in one call of a pipeline.

    Returns a row a block: layer, pads, prompt and image, each a mean over heads, steps and up to `rows` evenly spread
    image queries, and `per row`: one pad's mean share over one prompt row's. An intervention shows what a row does;
    this, only where the image looks. What guidance compares with is left out. call: arguments of the pipeline's call.
    Raises UnsupportedModelError for compiled models and attention backends that do not show their softmax.
    """
    model = unwrapped(denoiser(pipe))
    if is_compiled(denoiser(pipe)):
        raise UnsupportedModelError("pad_attention cannot see into compiled code: measure before torch.compile")
    meter = Meter(model, known_texts(pipe, [prompt], reading_of(call)), rows)
    with Handle(model, "attention to padding") as handle:
        for name, block, site in find_sites(model):
            for path, module in block.named_modules():
                if re.search(r"attn2$" if is_cross_attention(model) else r"(^|\.)(attn1?|attention)$", path):
                    handle.on_remove(module.register_forward_pre_hook(partial(meter.enter, name, site)).remove)
                    handle.on_remove(module.register_forward_hook(meter.leave, always_call=True).remove)
        handle.on_remove(model.register_forward_pre_hook(meter.before_call, with_kwargs=True).remove)
        with meter:
            pipe(prompt=prompt, **call)
    return meter.report()


class Meter(TorchFunctionMode):
    """Looks on at every call of torch's attention, and sums up where the image looks."""

    def __init__(self, model: nn.Module, known: list[Any], rows: int) -> None:
        super().__init__()
        self.model, self.known, self.rows = model, known, rows
        self.cross = is_cross_attention(model)
        self.sums: dict[str, list[torch.Tensor]] = defaultdict(list)
        self._place: tuple[str, Site] | None = None
        self._call: Call | None = None
        self._items: list[int] = []
        self._image = 0

    def before_call(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Root pre-hook: which items of the batch follow the prompt, and how many tokens their image has."""
        self._call = read_call(model, args, kwargs)
        self._items = [i for i, text in enumerate(self._call.text) if recognise(text, self.known) is not None]
        self._image = self._call.image or _image_tokens(model, args, kwargs)

    def enter(self, name: str, site: Site, module: nn.Module, args: tuple) -> None:
        """Pre-hook of an attention."""
        self._place = (name, site)

    def leave(self, module: nn.Module, args: tuple, output: Any) -> None:
        """Hook of an attention."""
        self._place = None

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is F.scaled_dot_product_attention and self._place is not None and self._items:
            self._read(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def report(self) -> Report:
        """The means over steps. Raises UnsupportedModelError when nothing was seen."""
        if not self.sums:
            raise UnsupportedModelError(
                f"the attention of this {type(self.model).__name__} was not seen: measure with the native backend, by "
                'set_attention_backend("native") or set_attn_processor(AttnProcessor2_0())'
            )
        rows = self.known[0].rows
        report = Report()
        for name, values in self.sums.items():
            pads, prompt, image = torch.stack(values).mean(0).tolist()
            per_row = pads / max(int(rows.pads.sum()), 1) / (prompt / max(int(rows.prompt.sum()), 1))
            report.append({"layer": name, "pads": pads, "prompt": prompt, "image": image, "per row": per_row})
        return report

    def _read(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **options: Any) -> None:
        name, site = self._place
        text = self._call.real if site.real else self._call.length
        keys, extra = key.shape[-2], 0 if self.cross or not site.joint and not site.extra else site.extra
        if keys != (text if self.cross else text + extra + self._image):
            return  # text by itself, or image by itself
        image = query.shape[-2] if self.cross else self._image
        first = 0 if self.cross or site.text_last else keys - image
        chosen = first + torch.linspace(0, image - 1, min(self.rows, image)).round().long()
        weights = _softmax(query[self._items][..., chosen, :], key[self._items], rest, options, self._items)
        start = image if site.text_last else extra
        mass = weights.mean(dim=(0, 1, 2))  # (keys,)
        shares = [mass[start : start + text][self._mask(kind, text)].sum() for kind in ("pads", "prompt")]
        self.sums[name].append(torch.stack([*shares, (1 - sum(shares)).clamp(min=0)]).cpu())

    def _mask(self, kind: str, length: int) -> torch.Tensor:
        rows = self.known[0].rows
        rows = rows.to_length(length) if length > len(rows) else rows
        return torch.from_numpy(getattr(rows, kind)[:length])


def _softmax(query: torch.Tensor, key: torch.Tensor, rest: tuple, options: Mapping[str, Any], items: list[int]):
    """(B, heads, r, N): the weights of torch's attention for chosen queries."""
    mask = options.get("attn_mask", rest[0] if rest else None)
    scale = options.get("scale") or query.shape[-1] ** -0.5
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)  # grouped queries
    logits = query.float() @ key.float().mT * scale
    if mask is not None:
        mask = mask.expand(mask.shape[0], query.shape[1], mask.shape[2], key.shape[2])
        mask = (mask[items] if len(mask) > 1 else mask)[:, :, :1]  # the same for every image query
        logits = logits.masked_fill(~mask, -math.inf) if mask.dtype is torch.bool else logits + mask
    return logits.softmax(-1)


def _image_tokens(model: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> int:
    """Tokens of the image, of a denoiser whose patches are made inside or outside."""
    arguments = {**dict(zip(parameters(type(model)), args, strict=False)), **kwargs}
    image = arguments.get("hidden_states", arguments.get("sample"))
    if image.ndim == 3:
        return image.shape[1]
    return math.prod(image.shape[-2:]) // (getattr(model.config, "patch_size", None) or 1) ** 2

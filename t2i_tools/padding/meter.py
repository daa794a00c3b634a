"""How much attention the image pays to the padding, layer by layer."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.handle import Handle, Report
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.calls import Attention, AttentionWatcher, DenoiserCall, spread
from t2i_tools.models.compiled import is_compiled, unwrapped
from t2i_tools.models.families import TextSite, find_family
from t2i_tools.padding.conditions import Rows, rows_in_blocks
from t2i_tools.padding.encoding import KnownText, known_texts, recognise
from t2i_tools.padding.hooks import find_blocks
from t2i_tools.padding.intercept import reading_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def pad_attention(pipe: DiffusionPipeline, prompt: str, *, queries: int = 64, **call: object) -> Report:
    """Measure the share of the image's attention that goes to padding, prompt and image, in one call of a pipeline.

    An intervention shows what a row does; this, only where the image looks. What guidance compares with is left out.

    Args:
        pipe: A text-to-image pipeline on the native attention backend, not compiled.
        prompt: One text.
        queries: How many image queries to sample, evenly spread; 64 by default.
        call: Further arguments of the pipeline's call.

    Returns:
        One row per block: layer, pads, prompt and image, each a mean over heads, steps and queries, and `per row`: one
        pad's mean share over one prompt row's.

    Raises:
        UnsupportedModelError: The model is compiled, or runs on an attention backend that does not show its softmax.

    Example:
        >>> print(t2i.pad_attention(pipe, "two cats"))  # doctest: +ELLIPSIS
        layer...
    """
    model = unwrapped(denoiser(pipe))
    if is_compiled(denoiser(pipe)):
        raise UnsupportedModelError("pad_attention cannot see into compiled code: measure before torch.compile")
    reading = reading_of(call)
    (known,) = known_texts(pipe, [prompt], reading)
    inside = rows_in_blocks(pipe, len(known.rows), reading.get("max_sequence_length"))
    rows = Rows(*(kind[inside] for kind in (known.rows.prompt, known.rows.eos, known.rows.pads)))
    meter = PadMeter(model, [replace(known, rows=rows)], queries)
    pattern = r"attn2$" if meter.cross else r"(^|\.)(attn1?|attention)$"
    places = [
        (module, f"{name}.{path}", (name, site))
        for name, block, site in find_blocks(model)
        for path, module in block.named_modules()
        if re.search(site.crossing or pattern, path)
    ]
    with Handle(model, "attention to padding") as handle:
        AttentionWatcher(model, meter.read).attach(handle, places)
        pipe(prompt=prompt, **call)
    return meter.report()


class PadMeter:
    """Sums up where the image looks."""

    def __init__(self, model: nn.Module, known: list[KnownText], queries: int) -> None:
        self.known, self.queries = known, queries
        self.cross = find_family(model).cross_attention
        self.sums: dict[str, list[torch.Tensor]] = defaultdict(list)
        self._read: tuple[DenoiserCall, list[int]] | None = None

    def read(self, place: tuple[str, TextSite], call: DenoiserCall, attention: Attention) -> None:
        """Measure one call of torch's attention."""
        (name, site), items = place, self._items(call)
        text = call.padded(call.seen_text) if site.masked_out else call.text_length
        cross = self.cross or site.crossing is not None
        keys, extra = attention.key.shape[-2], 0 if cross or not site.joint and not site.extra else site.extra
        if not items or keys != (text if cross else text + extra + call.image_tokens):
            return  # text by itself, or image by itself
        image = attention.query.shape[-2] if cross else call.image_tokens
        first = 0 if cross or site.text_last else attention.query.shape[-2] - image
        weights = attention.weights(spread(image, self.queries, first), items)
        start = image if site.text_last else extra
        mass = weights.mean(dim=(0, 1, 2))  # (keys,)
        shares = [mass[start : start + text][self._mask(kind, text)].sum() for kind in ("pads", "prompt")]
        self.sums[name].append(torch.stack([*shares, (1 - (shares[0] + shares[1])).clamp(min=0)]).cpu())

    def report(self) -> Report:
        """The means over steps. Raises UnsupportedModelError when nothing was seen."""
        if not self.sums:
            raise UnsupportedModelError(
                "no attention from the image to this prompt was recorded: this kind of attention is not supported, or "
                'the backend is not the native one: set_attention_backend("native") or '
                "set_attn_processor(AttnProcessor2_0()) sets that"
            )
        rows = self.known[0].rows
        report = Report()
        for name, values in self.sums.items():
            pads, prompt, image = torch.stack(values).mean(0).tolist()
            per_row = pads / max(int(rows.pads.sum()), 1) / (prompt / max(int(rows.prompt.sum()), 1))
            report.append({"layer": name, "pads": pads, "prompt": prompt, "image": image, "per row": per_row})
        return report

    def _items(self, call: DenoiserCall) -> list[int]:
        """The items of the batch that follow the prompt; what guidance compares with does not."""
        if self._read is None or self._read[0] is not call:
            self._read = call, [i for i, text in enumerate(call.texts) if recognise(text, self.known) is not None]
        return self._read[1]

    def _mask(self, kind: str, length: int) -> torch.Tensor:
        rows = self.known[0].rows
        rows = rows.to_length(length) if length > len(rows) else rows
        return torch.from_numpy(getattr(rows, kind)[:length])

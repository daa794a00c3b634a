"""Interventions in the diffusion process (Toker et al. 2025, section 3.2): before every attention block, in every step,

    h' = rows of h_full where a condition keeps them, of h_clean elsewhere,

with h_full and h_clean the text in that block and step of two whole runs of their own, from the same noise and with the
same arguments: one of the prompt, one of a prompt that says nothing. The image sees h' and nothing else of the text.
So "pads" also shows what the denoiser itself wrote into the pads; the encoder's intervention, what came in them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from t2i_tools.compiled import forget_compiled, unwrapped
from t2i_tools.handle import Handle
from t2i_tools.models import denoiser, family
from t2i_tools.padding.calls import INTERVENTION, POLICY, TEXTS, check_alone, intercept, prompts_of, reading_of
from t2i_tools.padding.encoder import (
    Clean,
    Pooled,
    check_options,
    check_windows,
    encode,
    encode_clean,
    fitted,
    joined,
    repeated,
)
from t2i_tools.padding.exchange import Exchange, Plan, Run
from t2i_tools.padding.keeps import Keep, Rows, own_rows, swapped_rows, text_rows

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def diffusion_intervention(
    pipe: DiffusionPipeline,
    keep: Keep,
    *,
    steps: Container[int] | None = None,
    layers: str | None = None,
    clean: Clean = "empty",
    pooled: Pooled = "full",
    other: str | None = None,
) -> Handle:
    """Calls of the pipeline with rows of their text exchanged before every attention block (Toker et al. 2025, eq. 2).

    `with diffusion_intervention(pipe, "pads"): pipe(prompt)`. Each call runs the pipeline three times: with the prompt
    and with the clean one, whose text of every block and step is held in memory, then with their rows put together.
    Guidance, batches and several images a prompt go on working; what guidance compares with is left alone. `intervene`
    shares the first two runs. The handle's report tells for each block in how many calls how many rows were exchanged.

    keep, clean, pooled, other: as in `encoder_intervention`. steps: those to act in, counted from 0, for instance
    range(10). layers: regular expression on the names of the blocks to act in. On cross-attention denoisers (UNet,
    PixArt) it does what the intervention in the encoder does. Not beside a `mask_policy` or a ControlNet.
    Raises InputError or UnsupportedModelError; in the call for a prompt that is not given as text.
    """
    intervention = Intervention(pipe, [keep], steps, layers, clean, pooled, other)
    handle = intervention.attach()
    intercept(pipe, handle, lambda call, run: intervention.generate(call, run)[0])
    return handle


def intervene(
    pipe: DiffusionPipeline,
    prompt: str | Sequence[str],
    keeps: Sequence[Keep],
    *,
    steps: Container[int] | None = None,
    layers: str | None = None,
    clean: Clean = "empty",
    pooled: Pooled = "full",
    other: str | None = None,
    **call: Any,
) -> list[Any]:
    """What the pipeline returns for a prompt under each condition: c + 2 runs, not 3 c, and c + 1 if one is "full".

    All start from the same noise. call: arguments of the pipeline's call. Otherwise as `diffusion_intervention`.
    """
    intervention = Intervention(pipe, list(keeps), steps, layers, clean, pooled, other)
    with intervention.attach():
        return intervention.generate({"prompt": prompt, **call}, pipe)


class Intervention:
    """Runs of a pipeline that exchange rows of text."""

    def __init__(
        self,
        pipe: DiffusionPipeline,
        keeps: list[Keep],
        steps: Container[int] | None,
        layers: str | None,
        clean: Clean,
        pooled: Pooled,
        other: str | None,
    ) -> None:
        for keep in keeps:
            check_options(keep, clean, pooled, other)
        self.pipe = pipe
        self.keeps, self.clean, self.pooled, self.other = keeps, clean, pooled, other
        self.exchange = Exchange(unwrapped(denoiser(pipe)), layers, steps)

    def attach(self) -> Handle:
        """Set the hooks."""
        check_alone(self.pipe, POLICY)
        forget_compiled(denoiser(self.pipe))
        handle = Handle(self.exchange.model, INTERVENTION, self.exchange.report)
        self.exchange.attach(handle)
        return handle

    def generate(self, call: Mapping[str, Any], run: Callable[..., Any]) -> list[Any]:
        """What the pipeline returns under each condition. call: the arguments by name. run: the pipeline's call."""
        prompts, reading = prompts_of(call), reading_of(call)
        check_windows(self.pipe, prompts)
        rows = [self._rows(prompt, reading) for prompt in prompts]
        noise, images = Noise(call, run), call.get("num_images_per_prompt") or 1
        clean = [encode_clean(self.pipe, prompt, self.clean, **reading) for prompt in prompts]
        for one, embeds in zip(rows, clean, strict=True):
            fitted(one, len(embeds["prompt_embeds"][0]))
        target = self._target(call, prompts, reading)
        plain, full = self.exchange.record(noise.same(target if "full" in self.keeps else _silent(target)))
        runs = {"full": full, "clean": self._record(noise, call, clean)}
        if "swapped" in self.keeps:
            runs["lender"] = self._record(noise, call, [encode(self.pipe, self.other, **reading)] * len(prompts))
        return [
            plain
            if keep == "full"
            else self.exchange.follow(self._plan(keep, rows, images, runs, reading), noise.same(target))
            for keep in self.keeps
        ]

    def _record(self, noise: Noise, call: Mapping[str, Any], embeds: list[dict[str, Any]]) -> Run:
        return self.exchange.record(noise.same(_silent(self._with_embeds(call, joined(embeds)))))[1]

    def _target(self, call: Mapping[str, Any], prompts: list[str], reading: Mapping[str, Any]) -> dict[str, Any]:
        """The call as it came, unless the pooled vector is to be the clean prompt's."""
        if self.pooled == "full":
            return dict(call)
        full = joined([encode(self.pipe, prompt, **reading) for prompt in prompts])
        base = joined([encode_clean(self.pipe, prompt, self.clean, **reading) for prompt in prompts])
        pooled = {name: value for name, value in base.items() if name == "pooled_prompt_embeds"}
        return self._with_embeds(call, full | pooled)

    def _with_embeds(self, call: Mapping[str, Any], embeds: Mapping[str, Any]) -> dict[str, Any]:
        """The call with embeddings in the place of its prompt, one for each image."""
        kept = {name: value for name, value in call.items() if name not in TEXTS} | dict(embeds)
        if family(self.pipe) == "z_image" and "negative_prompt_embeds" not in kept:  # its call wants both or none
            negative = kept.pop("negative_prompt", None) or ""
            texts = [negative] * len(embeds["prompt_embeds"]) if isinstance(negative, str) else negative
            kept["negative_prompt_embeds"] = joined([encode(self.pipe, text) for text in texts])["prompt_embeds"]
        images = kept.pop("num_images_per_prompt", None) or 1  # SD3, Flux and Chroma do not repeat what they are given
        return {name: repeated(value, images) if "prompt" in name else value for name, value in kept.items()}

    def _rows(self, prompt: str, reading: Mapping[str, Any]) -> Rows:
        rows = text_rows(self.pipe, prompt, max_sequence_length=reading.get("max_sequence_length"))
        if family(self.pipe) == "lumina2":  # leaves out what its mask hides: there are no rows to exchange
            return Rows(rows.prompt, rows.eos, np.zeros_like(rows.pads))
        return rows

    def _plan(
        self, keep: Keep, rows: list[Rows], images: int, runs: Mapping[str, Run], reading: Mapping[str, Any]
    ) -> Plan:
        length = max(map(len, rows))
        rows = [one.to_length(length) for one in rows]

        def each(function: Callable[[Rows], np.ndarray]) -> np.ndarray:
            return np.repeat([function(one) for one in rows], images, axis=0)

        own, leave = each(lambda one: own_rows(keep, one)), each(lambda one: ~(one.prompt | one.pads))
        both = {"full": runs["full"], "clean": runs["clean"], "own": own, "leave": leave}
        if keep == "swapped":
            other = self._rows(self.other, reading)
            return Plan(**both, lender=runs["lender"], lent=each(lambda one: swapped_rows(one, other)))
        return Plan(**both, noise=each(lambda one: one.pads) if keep == "noise" else None)


def _silent(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call of which nobody sees anything."""
    return {name: value for name, value in call.items() if not name.startswith("callback")} | {"output_type": "latent"}


class Noise:
    """Starts every run of a call from the same random numbers."""

    def __init__(self, call: Mapping[str, Any], run: Callable[..., Any]) -> None:
        self.run = run
        given = call.get("generator")
        if given is None:
            given = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        self.given = given
        self._generators = list(given) if isinstance(given, (list, tuple)) else [given]
        self._states = [generator.get_state() for generator in self._generators]

    def same(self, call: Mapping[str, Any]) -> Callable[[], Any]:
        """A run with other arguments, to be made from the state in which the generators came."""

        def rewound() -> Any:
            for generator, state in zip(self._generators, self._states, strict=True):
                generator.set_state(state)
            fresh = {name: list(value) if isinstance(value, list) else value for name, value in call.items()}
            return self.run(**{**fresh, "generator": self.given})  # Z-Image writes into the list of prompts

        return rewound

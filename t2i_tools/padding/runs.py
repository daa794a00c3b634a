"""Runs of a pipeline from one noise, of which one takes over rows of text from the others."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from t2i_tools.errors import InputError
from t2i_tools.handle import Handle
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.compiled import forget_compiled, unwrapped
from t2i_tools.padding.conditions import (
    Condition,
    Rows,
    check_condition,
    kept_rows,
    rows_in_blocks,
    swapped_rows,
    text_rows,
)
from t2i_tools.padding.encoding import (
    Clean,
    Pooled,
    check_supported,
    check_windows,
    encode,
    encode_clean,
    encode_negative,
    fitted,
    joined,
    known_family,
    number_of_items,
    repeated,
    text_parts,
)
from t2i_tools.padding.hooks import Plan, RowExchange, Run
from t2i_tools.padding.intercept import INTERVENTION, POLICY, TEXTS, check_alone, prompts_of, reading_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def check_options(condition: Condition, clean: str, pooled: str, other: str | None) -> None:
    """Raise InputError for what is no condition, or lacks the other prompt."""
    check_condition(condition)
    if clean not in ("empty", "pad", "zeros"):
        raise InputError(f'clean is "empty", "pad" or "zeros", not {clean!r}')
    if pooled not in ("full", "clean"):
        raise InputError(f'pooled is "full" or "clean", not {pooled!r}')
    if condition == "swapped" and other is None:
        raise InputError('the condition "swapped" needs the padding of another prompt: pass other="..."')


class Intervention:
    """Runs of a pipeline that exchange rows of text."""

    def __init__(
        self,
        pipe: DiffusionPipeline,
        conditions: list[Condition],
        steps: Container[int] | None,
        layers: str | None,
        clean: Clean,
        pooled: Pooled,
        other: str | None,
    ) -> None:
        for condition in conditions:
            check_options(condition, clean, pooled, other)
        self.pipe, self.family = pipe, known_family(pipe)
        check_supported(self.family, pipe)
        self.conditions, self.clean, self.pooled, self.other = conditions, clean, pooled, other
        self.exchange = RowExchange(unwrapped(denoiser(pipe)), layers, steps)

    def attach(self) -> Handle:
        """Set the hooks."""
        check_alone(self.pipe, POLICY)
        forget_compiled(denoiser(self.pipe))
        handle = Handle(self.exchange.model, INTERVENTION, self.exchange.report)
        self.exchange.attach(handle)
        return handle

    def generate(self, call: Mapping[str, Any], run: Callable[..., Any]) -> list[Any]:
        """What the pipeline returns under each condition. call: the arguments by name. run: the pipeline's call."""
        prompts, reading = prompts_of(self.pipe, call), reading_of(call)
        check_windows(self.pipe, prompts)
        rows = [self._rows(prompt, reading) for prompt in prompts]
        noise, images = Noise(call, run), call.get("num_images_per_prompt") or 1
        clean = [encode_clean(self.pipe, prompt, self.clean, **reading) for prompt in prompts]
        for one, embeds in zip(rows, clean, strict=True):
            fitted(one, sum(map(len, text_parts(self.family, embeds))))
        target = _with_reading_callback(self._target(call, prompts, reading))
        plain, full = self.exchange.record(noise.same(target if "full" in self.conditions else _silent(target)))
        runs = {"full": full, "clean": self._record(noise, call, clean)}
        if "swapped" in self.conditions:
            runs["lender"] = self._record(noise, call, [encode(self.pipe, self.other or "", **reading)] * len(prompts))
        return [
            plain
            if condition == "full"
            else self.exchange.replay(self._plan(condition, rows, images, runs, reading), noise.same(target))
            for condition in self.conditions
        ]

    def _record(self, noise: Noise, call: Mapping[str, Any], embeds: list[dict[str, Any]]) -> Run:
        return self.exchange.record(noise.same(_silent(self._with_embeds(call, joined(embeds, self.family.layered)))))[
            1
        ]

    def _target(self, call: Mapping[str, Any], prompts: list[str], reading: Mapping[str, Any]) -> dict[str, Any]:
        """The call as it came, unless the pooled vector is to be the clean prompt's."""
        if self.pooled == "full":
            return dict(call)
        layered = self.family.layered
        full = joined([encode(self.pipe, prompt, **reading) for prompt in prompts], layered)
        base = joined([encode_clean(self.pipe, prompt, self.clean, **reading) for prompt in prompts], layered)
        pooled = {name: value for name, value in base.items() if name == self.family.pooled}
        return self._with_embeds(call, full | pooled)

    def _with_embeds(self, call: Mapping[str, Any], embeds: Mapping[str, Any]) -> dict[str, Any]:
        """The call with embeddings in the place of its prompt, one for each image."""
        kept = {name: value for name, value in call.items() if name not in TEXTS} | dict(embeds)
        if self.family.both_embeds and f"negative_{self.family.texts[0]}" not in kept:  # its call wants both or none
            text = kept.pop("negative_prompt", None) or ""
            texts = [text] * number_of_items(self.family, embeds) if isinstance(text, str) else text
            reading = reading_of(call)
            kept |= joined([encode_negative(self.pipe, text, **reading) for text in texts], self.family.layered)
        images = kept.pop("num_images_per_prompt", None) or 1  # SD3, Flux and Chroma do not repeat what they are given
        layered = self.family.layered
        return {n: repeated(n, value, images, layered) if "prompt" in n else value for n, value in kept.items()}

    def _rows(self, prompt: str, reading: Mapping[str, Any]) -> Rows:
        rows = text_rows(self.pipe, prompt, max_sequence_length=reading.get("max_sequence_length"))
        if self.family.drops_masked:
            return Rows(rows.prompt, rows.eos, np.zeros_like(rows.pads))
        return rows

    def _plan(
        self, condition: Condition, rows: list[Rows], images: int, runs: Mapping[str, Run], reading: Mapping[str, Any]
    ) -> Plan:
        length = max(map(len, rows))
        rows = [one.to_length(length) for one in rows]

        places = rows_in_blocks(self.pipe, length, reading.get("max_sequence_length"))

        def each(function: Callable[[Rows], np.ndarray]) -> np.ndarray:
            return np.repeat([function(one)[places] for one in rows], images, axis=0)

        own, leave = each(lambda one: kept_rows(condition, one)), each(lambda one: ~(one.prompt | one.pads))
        both: dict[str, Any] = {"full": runs["full"], "clean": runs["clean"], "own": own, "leave": leave}
        if condition == "swapped":
            other = self._rows(self.other or "", reading)
            return Plan(**both, lender=runs["lender"], lent=each(lambda one: swapped_rows(one, other)))
        return Plan(**both, noise=each(lambda one: one.pads) if condition == "noise" else None)


def _silent(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call of which nobody sees anything."""
    return {name: value for name, value in call.items() if not name.startswith("callback")} | {"output_type": "latent"}


def _with_reading_callback(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call whose callback raises InputError where it does more than read: not every run calls it."""
    callback = call.get("callback_on_step_end")
    if callback is None:
        return dict(call)

    def look(pipe: Any, step: int, time: Any, tensors: dict[str, Any]) -> Any:
        numbers, before = _numbers(pipe), {name: _copied(value) for name, value in tensors.items()}
        made = callback(pipe, step, time, tensors)
        after = {**tensors, **(made or {})}
        if numbers != _numbers(pipe) or not all(_is_equal(value, after[name]) for name, value in before.items()):
            raise InputError(
                f"callback_on_step_end changes tensors or settings in step {step}; a padding intervention runs the "
                "pipeline several times, but calls the callback in the last run only: pass a callback that only reads"
            )
        return made

    inputs = getattr(callback, "tensor_inputs", None)  # diffusers' own callbacks say which they take
    return {**call, "callback_on_step_end": look} | ({"callback_on_step_end_tensor_inputs": inputs} if inputs else {})


def _numbers(pipe: DiffusionPipeline) -> dict[str, float | None]:
    """What a callback may set in a pipeline, such as the guidance scale; to interrupt it does no harm."""
    return {n: v for n, v in vars(pipe).items() if n != "_interrupt" and (v is None or isinstance(v, (int, float)))}


def _copied(value: Any) -> Any:
    if value is None:  # an argument that this call leaves out, such as a negative prompt
        return None
    return [one.clone() for one in value] if isinstance(value, list) else value.clone()


def _is_equal(value: Any, other: Any) -> bool:
    if value is None or other is None:
        return value is other
    if isinstance(value, list):
        return len(value) == len(other) and all(map(_is_equal, value, other))
    return value.shape == other.shape and torch.allclose(value, other, rtol=0, atol=0, equal_nan=True)


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

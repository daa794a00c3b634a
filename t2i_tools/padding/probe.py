"""The probe: images under each condition, their scores with intervals, and what they say of the padding."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from t2i_tools.errors import InputError, ModelError
from t2i_tools.handle import Report
from t2i_tools.images.eight_bits import to_images
from t2i_tools.metrics import ClipScorer, cluster_bootstrap, derangement, kid
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.compiled import unwrapped
from t2i_tools.models.families import find_family
from t2i_tools.padding.api import compare_conditions, intervened
from t2i_tools.padding.conditions import Condition, check_condition, condition_name, kept_rows, text_rows
from t2i_tools.padding.encoding import (
    Clean,
    Pooled,
    check_supported,
    check_windows,
    joined,
    known_family,
    pad_kinds,
)
from t2i_tools.padding.formula import THRESHOLDS, Verdict, decide
from t2i_tools.padding.intercept import reading_of
from t2i_tools.padding.paper import paper_table

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

    from t2i_tools.detectors import Counter
    from t2i_tools.metrics import Interval

CONDITIONS = ("full", "prompt", "pads", "clean", "swapped")
NEEDED = ("full", "prompt", "pads", "clean")
CLIP = "openai/clip-vit-base-patch32"
FEATURES = "CLIP image embeddings"
FEWEST_FOR_KID = 8


@dataclass
class ConditionScores:
    """One route ("encoder", "diffusion") and condition: what each image scored, in the order of prompts x seeds."""

    route: str
    condition: str
    clip: list[float] = field(default_factory=list)
    similarity: list[float] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)
    embeddings: list[np.ndarray] = field(default_factory=list)
    pictures: list[Image.Image] = field(default_factory=list)


@dataclass(frozen=True)
class Probe:
    """What `probe_padding` found.

    Attributes:
        prompts: of each image; seeds: likewise.
        cells: one per route and condition.
        verdict: what the padding does.
        note: what was not run.
        kinds: what the padding consists of, by text encoder.
    """

    prompts: list[str]
    seeds: list[int]
    cells: list[ConditionScores]
    verdict: Verdict
    note: str = ""
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind_line(self) -> str:
        """What the padding consists of, in words; end tokens of a causal encoder cannot but carry the prompt."""
        kinds = ", ".join(f"{kind} ({encoder})" for encoder, kind in self.kinds.items())
        hint = "; end tokens have read the whole prompt, so that they carry it without need"
        return f"padding: {kinds}" + (hint if "end token" in self.kinds.values() else "")

    def table(self) -> Report:
        """route, condition, n images, and with 95 % intervals CLIP score, similarity to full, objects found; KID."""
        return Report(self._row(cell) for cell in self.cells)

    def as_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        verdict = self.verdict
        shares = {"use": verdict.use, "need": verdict.need}
        return {
            "verdict": verdict.word,
            "carries": {"answer": verdict.carries.word, "why": verdict.carries.why},
            "needed": {"answer": verdict.needed.word, "why": verdict.needed.why},
            **{
                name: {m: {route: _bounds(i) for route, i in by.items()} for m, by in metrics.items()}
                for name, metrics in shares.items()
            },
            "refused": dict(verdict.refused),
            "thresholds": THRESHOLDS,
            "padding": dict(self.kinds),
            "paper": list(paper_table()),
            "note": self.note,
            "prompts": self.prompts,
            "seeds": self.seeds,
            "cells": [
                {"route": c.route, "condition": c.condition, "clip": c.clip, "similarity": c.similarity}
                | ({"recall": c.recall} if c.recall else {})
                | {"summary": self._row(c)}
                for c in self.cells
            ],
        }

    def _row(self, cell: ConditionScores) -> dict[str, Any]:
        full = next(c for c in self.cells if c.condition == "full")
        row = {"route": cell.route, "condition": cell.condition, "n": len(cell.clip)}
        row["CLIP score"] = score_interval(cell.clip, self.prompts)
        row["similarity"] = score_interval(cell.similarity, self.prompts)
        if len(cell.clip) >= FEWEST_FOR_KID:
            row["KID"] = "-" if cell is full else _kid(full, cell)
        if cell.recall:
            row["objects found"] = score_interval(cell.recall, self.prompts)
        return row


def probe_padding(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    seeds: Sequence[int] = (0,),
    *,
    conditions: Sequence[Condition] = CONDITIONS,
    clip: ClipScorer | None = None,
    counter: Counter | None = None,
    objects: Mapping[str, Mapping[str, int]] | None = None,
    clean: Clean = "empty",
    pooled: Pooled = "full",
    pictures: int = 8,
    batch: int = 1,
    on_image: Callable[[int, int], None] | None = None,
    **call: object,
) -> Probe:
    """Find out what the padding of prompts does in a pipeline: images under each condition, scores, and a verdict.

    Each prompt and seed is drawn plain, then with rows exchanged in the encoder's output and, unless the denoiser is a
    cross-attention one, where that is the same, before every attention block. The verdict (see `formula.decide`)
    says whether the padding carries the prompt and whether it is needed, by the similarity to the plain image and, with
    a counter, by the objects found. It resamples prompts: give 8 or more, better 16, that the model draws right.

    Args:
        pipe: A text-to-image pipeline.
        prompts: One or several.
        seeds: Of the images per prompt; (0,) by default.
        conditions: As `condition` of `encoder_intervention`; "full", "prompt", "pads" and "clean" are always run.
            "swapped", by default beside them, takes the pads of another of the prompts.
        clip: Scores the images; OpenAI's from the Hub, on the CPU, when None.
        counter: A detector that finds `objects`; none by default.
        objects: prompt -> {label: how many}; with a counter, the share of these that it finds has a vote.
        clean: As of `encoder_intervention`; "empty" by default.
        pooled: As of `encoder_intervention`; "full" by default.
        pictures: Prompts whose images are kept; 8 by default.
        batch: Conditions of one prompt that are drawn in one call; 1 by default. More are faster on a small model and
            take more memory; the last bits of an image may depend on it. The image under "clean", where it does not
            depend on the prompt, as in most families, is drawn once per seed.
        on_image: Called with (images made, images in all).
        call: Further arguments of the pipeline's call, such as guidance_scale.

    Returns:
        The probe: `verdict`, `table()` with 95 % intervals, and the images.

    Raises:
        InputError: There is nothing to probe, or an argument is out of range.
        UnsupportedModelError: It is not known how this family reads or hands over its text.
        ModelError: The CLIP cannot be opened.

    Source: Toker et al. 2025, arXiv 2501.06751.

    Example:
        >>> probe = t2i.probe_padding(pipe, ["two cats", "a dog"], clip=t2i.load_bundled_clip())
        >>> probe.verdict.word
        'undecided'
    """
    prompts = [prompts] if isinstance(prompts, str) else list(dict.fromkeys(prompts))
    if not prompts or not seeds:
        raise InputError("there is nothing to probe: give a prompt and a seed")
    if batch < 1:
        raise InputError(f"batch {batch} is out of range: use 1 or more")
    if (counter is None) != (objects is None):
        raise InputError("counter and objects go together: which detector, and what each prompt asks for")
    keeps = _conditions(conditions, len(prompts))
    _check_rows(pipe, prompts, keeps, reading_of(call).get("max_sequence_length"))
    scorer = Scorer(clip or open_clip(), counter, objects)
    runner = ConditionRunner(pipe, keeps, {"clean": clean, "pooled": pooled}, call, batch)
    others = dict(zip(prompts, (prompts[i] for i in _partners(len(prompts))), strict=True))
    work = [(prompt, seed) for prompt in prompts for seed in seeds]
    for done, (prompt, seed) in enumerate(work):
        images = runner.images(prompt, others[prompt], seed)
        scorer.score(prompt, runner.cells, images, keep_pictures=done < pictures * len(seeds))
        if on_image is not None:
            on_image((done + 1) * len(images), len(work) * len(images))
    drawn = [prompt for prompt, _ in work]
    verdict = decide(_scores(runner.cells, runner.cross), drawn, masked=known_family(pipe).masks_pads)
    note = "cross-attention: the diffusion interventions equal the encoder's and were not run" if runner.cross else ""
    return Probe(drawn, [seed for _, seed in work], runner.cells, verdict, note, pad_kinds(pipe))


def _scores(cells: Sequence[ConditionScores], cross: bool) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """metric -> route -> condition -> (n,); the CLIP score, which has no vote, among them."""
    columns = {"similarity": "similarity", "objects": "recall", "CLIP score": "clip"}
    return {
        metric: {
            route: {
                c.condition: np.array(getattr(c, column))
                for c in cells
                if c.route in ("plain", "encoder" if cross else route)
            }
            for route in ("encoder", "diffusion")
        }
        for metric, column in columns.items()
        if len(getattr(cells[0], column)) == len(cells[0].clip)  # objects may be asked for in some prompts only
    }


class ConditionRunner:
    """The images of one prompt and seed under all conditions, always in the order of `cells`."""

    def __init__(
        self,
        pipe: DiffusionPipeline,
        conditions: list[Condition],
        options: Mapping[str, Any],
        call: Mapping[str, Any],
        batch: int = 1,
    ) -> None:
        self.pipe, self.options, self.call, self.batch = pipe, options, call, batch
        self.conditions = [condition for condition in conditions if condition != "full"]
        self._blanks: dict[int, tuple[str, Image.Image]] = {}  # seed -> the latest text under "clean", and its image
        self._read: tuple[str, list[dict[str, Any]]] | None = None  # the latest prompt, and its texts
        check_supported(known_family(pipe), pipe)
        self.cross = find_family(unwrapped(denoiser(pipe))).cross_attention
        routes = ("encoder",) if self.cross else ("encoder", "diffusion")
        self.cells = [ConditionScores("plain", "full")]
        self.cells += [
            ConditionScores(route, condition_name(condition)) for route in routes for condition in self.conditions
        ]

    def images(self, prompt: str, other: str, seed: int) -> list[Image.Image]:
        """One image a cell, all from the noise of the seed."""
        others = {"other": other, **self.options}
        if self.cross:
            return self._draw(prompt, ["full", *self.conditions], seed, others)
        noise = torch.Generator().manual_seed(seed)
        outputs = compare_conditions(
            self.pipe, prompt, ["full", *self.conditions], generator=noise, output_type="np", **others, **self.call
        )
        full, *exchanged = [to_images(output.images)[0] for output in outputs]
        return [full, *self._draw(prompt, self.conditions, seed, others), *exchanged]

    def _draw(
        self, prompt: str, conditions: Sequence[Condition], seed: int, others: Mapping[str, Any]
    ) -> list[Image.Image]:
        """One image per condition of the encoder's output."""
        made = self._texts(prompt, conditions, others)
        blank = conditions.index("clean")  # always run; for most families its text is the same for all prompts
        rest = [embeds for index, embeds in enumerate(made) if index != blank]
        parts = [rest[start : start + self.batch] for start in range(0, len(rest), self.batch)]
        images = [image for part in parts for image in self._drawn(part, seed)]
        text = _fingerprint(made[blank])
        if self._blanks.get(seed, ("",))[0] != text:  # in a call of its own, so that no batch depends on it
            self._blanks[seed] = text, self._drawn([made[blank]], seed)[0]
        images.insert(blank, self._blanks[seed][1])
        return images

    def _texts(self, prompt: str, conditions: Sequence[Condition], others: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The embeddings under each condition, read once for all seeds of a prompt."""
        if self._read is None or self._read[0] != prompt:
            check_windows(self.pipe, [prompt])
            made = intervened(self.pipe, prompt, conditions, options=reading_of(self.call), **others)
            self._read = prompt, made
        return self._read[1]

    def _drawn(self, embeds: Sequence[dict[str, Any]], seed: int) -> list[Image.Image]:
        """One image for each of these texts, in one call."""
        noise = [torch.Generator().manual_seed(seed) for _ in embeds]
        text, call = embeds[0], dict(self.call)
        if len(embeds) > 1:
            text = joined(embeds, known_family(self.pipe).layered)
            call |= {name: [value] * len(embeds) for name, value in call.items() if _is_negative(name, value)}
        return to_images(self.pipe(**text, **call, generator=noise, output_type="np").images)


def _fingerprint(embeds: Mapping[str, Any]) -> str:
    """Equal for equal arguments of the pipeline's call."""
    found = hashlib.sha256()
    for name, value in sorted(embeds.items()):
        found.update(name.encode())
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, torch.Tensor):
                found.update(f"{one.dtype} {tuple(one.shape)}".encode())
                found.update(one.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
            else:
                found.update(repr(one).encode())
    return found.hexdigest()


def _is_negative(name: str, value: object) -> bool:
    """Whether the argument is a single negative prompt, which has to be repeated for each image of the batch."""
    return name.startswith("negative_prompt") and isinstance(value, str)


class Scorer:
    """Scores images: CLIP against the prompt and against the full image, and the objects that a counter finds."""

    def __init__(
        self,
        clip: ClipScorer,
        counter: Counter | None,
        objects: Mapping[str, Mapping[str, int]] | None,
    ) -> None:
        self.clip, self.counter, self.objects = clip, counter, objects or {}

    def score(
        self, prompt: str, cells: Sequence[ConditionScores], images: list[Image.Image], keep_pictures: bool
    ) -> None:
        """Append what the images of one prompt and seed scored to their cells; the first image is the full one."""
        seen, read = self.clip.embed_images(images), self.clip.embed_texts([prompt])[0][0]
        for cell, image, embedding in zip(cells, images, seen, strict=True):
            cell.clip.append(float(100 * embedding @ read))
            cell.similarity.append(float(100 * embedding @ seen[0]))
            cell.embeddings.append(embedding)
            if prompt in self.objects:
                cell.recall.append(self._recall(image, self.objects[prompt]))
            if keep_pictures:
                cell.pictures.append(image)

    def _recall(self, image: Image.Image, wanted: Mapping[str, int]) -> float:
        """The share of the objects asked for that are there; too many of one do not make up for another."""
        assert self.counter is not None  # goes with the objects
        found = {label: self.counter.detect([image], label)[0].count for label in wanted}
        return sum(min(found[label], number) for label, number in wanted.items()) / sum(wanted.values())


def _conditions(conditions: Sequence[Condition], prompts: int) -> list[Condition]:
    """What is always needed, then the rest, once each; one prompt has no other whose pads it could take."""
    asked = [*NEEDED, *map(check_condition, conditions)]
    return [k for i, k in enumerate(asked) if k not in asked[:i] and not (k == "swapped" and prompts == 1)]


def _check_rows(
    pipe: DiffusionPipeline, prompts: Sequence[str], conditions: Sequence[Condition], length: int | None
) -> None:
    """Raise InputError for a slice without a row: it would be "clean" under another name."""
    slices = [condition for condition in conditions if isinstance(condition, slice)]
    for prompt in prompts if slices else ():
        rows = text_rows(pipe, prompt, max_sequence_length=length)
        for condition in slices:
            if not kept_rows(condition, rows).any():
                raise InputError(f"condition {condition_name(condition)!r} has none of the {len(rows)} rows of text")


def _partners(prompts: int) -> list[int]:
    return derangement(prompts).tolist() if prompts > 1 else [0]


def score_interval(values: list[float], prompts: list[str]) -> Interval | float:
    """The mean score, with a 95 % interval where there are prompts to resample."""
    return cluster_bootstrap(values, prompts) if len(set(prompts)) > 1 else float(np.mean(values))


def _kid(full: ConditionScores, cell: ConditionScores) -> str:
    distance = kid(np.stack(full.embeddings), np.stack(cell.embeddings), extractor=FEATURES)
    return f"{distance.value:.4f} ± {distance.spread:.4f}"


def _bounds(interval: Interval) -> dict[str, float]:
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high, "prompts": interval.n}


def open_clip() -> ClipScorer:
    """OpenAI's CLIP from the Hub. Raises ModelError."""
    try:
        return ClipScorer.load(CLIP, device="cpu")
    except ModelError as error:
        raise ModelError(f"the scoring CLIP: {error} (pass another one as clip=)") from error

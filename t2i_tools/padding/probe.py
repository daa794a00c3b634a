"""The probe: images under each condition, their scores with intervals, and what they say of the padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from t2i_tools.errors import InputError
from t2i_tools.handle import Report
from t2i_tools.loading import opening
from t2i_tools.metrics import cluster_bootstrap, derangement, image_embeddings, kid, text_embeddings
from t2i_tools.models import denoiser, family
from t2i_tools.padding.calls import reading_of
from t2i_tools.padding.diffusion import intervene
from t2i_tools.padding.encoder import MASKS_PADS, Clean, Pooled, encoder_intervention
from t2i_tools.padding.keeps import Keep, check_keep, keep_name
from t2i_tools.padding.sites import is_cross_attention
from t2i_tools.padding.verdict import Verdict, decide

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
class Cell:
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
    """What `probe_padding` found. prompts: of each image. cells: one a route and condition. note: what was not run."""

    prompts: list[str]
    seeds: list[int]
    cells: list[Cell]
    verdict: Verdict
    note: str = ""

    def table(self) -> Report:
        """route, condition, n images, CLIP score, similarity to the full image and recall with 95 % intervals, KID."""
        return Report(self._row(cell) for cell in self.cells)

    def as_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        intervals = {"use": self.verdict.use, "need": self.verdict.need}
        return {
            "verdict": self.verdict.word,
            "why": self.verdict.why,
            **{name: {route: _bounds(i) for route, i in by.items()} for name, by in intervals.items()},
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

    def _row(self, cell: Cell) -> dict[str, Any]:
        full = next(c for c in self.cells if c.condition == "full")
        row = {"route": cell.route, "condition": cell.condition, "n": len(cell.clip)}
        row["CLIP score"] = _interval(cell.clip, self.prompts)
        row["similarity"] = _interval(cell.similarity, self.prompts)
        if len(cell.clip) >= FEWEST_FOR_KID:
            row["KID"] = "-" if cell is full else _kid(full, cell)
        if cell.recall:
            row["recall"] = _interval(cell.recall, self.prompts)
        return row


def probe_padding(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    seeds: Sequence[int] = (0,),
    *,
    conditions: Sequence[Keep] = CONDITIONS,
    clip: tuple[Any, Any, Mapping[str, Any]] | None = None,
    counter: Counter | None = None,
    objects: Mapping[str, Mapping[str, int]] | None = None,
    clean: Clean = "empty",
    pooled: Pooled = "full",
    pictures: int = 8,
    on_image: Callable[[int, int], None] | None = None,
    **call: Any,
) -> Probe:
    """What the padding of prompts does in a pipeline: images under each condition, scores, and a verdict.

    Each prompt and seed is drawn plain, then with rows exchanged in the encoder's output and, unless the denoiser is a
    cross-attention one, where that is the same, before every attention block. The verdict (see `verdict.decide`)
    rests on the CLIP score and resamples prompts: it takes several, and 400 to be sharp.

    conditions: as `keep` in `encoder_intervention`; "full", "prompt", "pads" and "clean" are always run. "swapped"
    takes the pads of another of the prompts. clip: (CLIPModel, tokenizer, options of `image_embeddings`) that scores;
    OpenAI's from the Hub when None; for ours (*load_default_clip(), {"mean": (0.5,) * 3, "std": (0.5,) * 3}).
    counter: with `objects`, prompt -> {label: how many}, gives the share of objects found. pictures: prompts whose
    images are kept. on_image: called with (images made, images in all). call: of the pipeline, such as guidance_scale.
    Raises InputError, UnsupportedModelError or ModelError.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(dict.fromkeys(prompts))
    if not prompts or not seeds:
        raise InputError("there is nothing to probe: give a prompt and a seed")
    if (counter is None) != (objects is None):
        raise InputError("counter and objects go together: which detector, and what each prompt asks for")
    keeps = _keeps(conditions, len(prompts))
    judge = Judge(clip or _open_clip(CLIP), counter, objects)
    study = Study(pipe, keeps, {"clean": clean, "pooled": pooled}, call)
    others = dict(zip(prompts, (prompts[i] for i in _partners(len(prompts))), strict=True))
    work = [(prompt, seed) for prompt in prompts for seed in seeds]
    for done, (prompt, seed) in enumerate(work):
        images = study.images(prompt, others[prompt], seed)
        judge.score(prompt, study.cells, images, keep_pictures=done < pictures * len(seeds))
        if on_image is not None:
            on_image((done + 1) * len(images), len(work) * len(images))
    scores = {
        route: {c.condition: np.array(c.clip) for c in study.cells if c.route in (route, "plain")}
        for route in ("encoder", "diffusion")
    }
    scores["diffusion"] = scores["encoder"] if study.cross else scores["diffusion"]
    verdict = decide(*scores.values(), [prompt for prompt, _ in work], masked=family(pipe) in MASKS_PADS)
    note = "cross-attention: the diffusion interventions equal the encoder's and were not run" if study.cross else ""
    return Probe([prompt for prompt, _ in work], [seed for _, seed in work], study.cells, verdict, note)


class Study:
    """The images of one prompt and seed under all conditions, always in the order of `cells`."""

    def __init__(
        self, pipe: DiffusionPipeline, keeps: list[Keep], options: Mapping[str, Any], call: Mapping[str, Any]
    ) -> None:
        self.pipe, self.options, self.call = pipe, options, call
        self.keeps = [keep for keep in keeps if keep != "full"]
        self.cross = is_cross_attention(denoiser(pipe))
        routes = ("encoder",) if self.cross else ("encoder", "diffusion")
        self.cells = [Cell("plain", "full")]
        self.cells += [Cell(route, keep_name(keep)) for route in routes for keep in self.keeps]

    def images(self, prompt: str, other: str, seed: int) -> list[Image.Image]:
        """One image a cell, all from the noise of the seed."""
        others = {"other": other, **self.options}
        if self.cross:
            full, *exchanged = [self._draw(prompt, "full", seed, others)]
        else:
            noise = torch.Generator().manual_seed(seed)
            outputs = intervene(self.pipe, prompt, ["full", *self.keeps], generator=noise, **others, **self.call)
            full, *exchanged = [output.images[0] for output in outputs]
        return [full, *(self._draw(prompt, keep, seed, others) for keep in self.keeps), *exchanged]

    def _draw(self, prompt: str, keep: Keep, seed: int, others: Mapping[str, Any]) -> Image.Image:
        embeds = encoder_intervention(self.pipe, prompt, keep, **others, **reading_of(self.call))
        return self.pipe(**embeds, **self.call, generator=torch.Generator().manual_seed(seed)).images[0]


class Judge:
    """Scores images: CLIP against the prompt and against the full image, and the objects that a counter finds."""

    def __init__(
        self,
        clip: tuple[Any, Any, Mapping[str, Any]],
        counter: Counter | None,
        objects: Mapping[str, Mapping[str, int]] | None,
    ) -> None:
        self.model, self.tokenizer, self.pixels = clip
        self.counter, self.objects = counter, objects or {}

    def score(self, prompt: str, cells: list[Cell], images: list[Image.Image], keep_pictures: bool) -> None:
        """Append what the images of one prompt and seed scored to their cells; the first image is the full one."""
        seen = image_embeddings(self.model, images, **self.pixels)
        read = text_embeddings(self.model, self.tokenizer, [prompt])[0][0]
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
        found = {label: self.counter.detect([image], label)[0].count for label in wanted}
        return sum(min(found[label], number) for label, number in wanted.items()) / sum(wanted.values())


def _keeps(conditions: Sequence[Keep], prompts: int) -> list[Keep]:
    """What is always needed, then the rest, once each; one prompt has no other whose pads it could take."""
    asked = [*NEEDED, *map(check_keep, conditions)]
    return [k for i, k in enumerate(asked) if k not in asked[:i] and not (k == "swapped" and prompts == 1)]


def _partners(prompts: int) -> list[int]:
    return derangement(prompts).tolist() if prompts > 1 else [0]


def _interval(values: list[float], prompts: list[str]) -> Interval | float:
    return cluster_bootstrap(values, prompts) if len(set(prompts)) > 1 else float(np.mean(values))


def _kid(full: Cell, cell: Cell) -> str:
    distance = kid(np.stack(full.embeddings), np.stack(cell.embeddings), extractor=FEATURES)
    return f"{distance.value:.4f} ± {distance.spread:.4f}"


def _bounds(interval: Interval) -> dict[str, float]:
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high, "prompts": interval.n}


def _open_clip(name: str) -> tuple[Any, Any, dict[str, Any]]:
    from transformers import AutoTokenizer, CLIPModel

    with opening(f"the scoring CLIP {name} (another one goes in as clip=(model, tokenizer, options))"):
        model = CLIPModel.from_pretrained(name, use_safetensors=True)
        return model.eval(), AutoTokenizer.from_pretrained(name), {}

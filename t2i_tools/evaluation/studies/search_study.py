"""Searches for exact counts at equal compute, judged by whoever took no part in them; `search_report` compares them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from t2i_tools.counting import Search, optimize_count
from t2i_tools.counting.kept import kept_share
from t2i_tools.evaluation.studies.rows import BriefSearchRow, ClipFields, SearchRow
from t2i_tools.metrics import ClipScorer

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

    from t2i_tools.detectors import Counter, Detections


@dataclass(frozen=True)
class Cell:
    """One search to make: `n` objects of `label` by the template, from `seed`."""

    label: str
    n: int
    template: str
    seed: int

    @property
    def key(self) -> str:
        """Names the pair that the methods share."""
        return f"{self.label}-{self.n}-{self.seed}"


def run_cell(
    pipe: DiffusionPipeline,
    counter: Counter,
    judges: Mapping[str, Counter],
    score: Callable[[Image.Image, Cell], ClipFields],
    cell: Cell,
    name: str,
    options: Mapping[str, Any],
    clip: ClipScorer | None = None,
    prepare: Callable[[Search], None] | None = None,
) -> SearchRow:
    """Search with the counter; the first of the judges counts the best image whenever there is a better one.

    judges: name -> judge; all count the last image. score: adds the CLIP scores of that image. clip: for the
    similarity to the plain image, None for none. prepare: changes the search before it begins.
    """
    search = optimize_count(pipe, cell.template, cell.n, counter, label=cell.label, seeds=(cell.seed,), **options)
    if prepare is not None:
        prepare(search)
    first = next(iter(judges))
    curve: list[tuple[float, int]] = []
    for step in search:
        if step.best:
            count = look(judges[first], step.image, cell.label).count
            curve.append((step.passes / search.sampler.image_passes, count))
    result = search.result()
    image = result.images[0]
    seen = {judge: look(one, image, cell.label) for judge, one in judges.items()}
    plain = {cell.label: look(judges[first], result.plain[0], cell.label).boxes} if result.plain else None
    return {
        "key": cell.key,
        "method": name,
        "label": cell.label,
        "count": cell.n,
        "seed": cell.seed,
        "budget": options.get("budget"),
        "steps": len(result.history),
        "counted": result.counts[0],
        "judged": seen[first].count,
        "judges": {judge: found.count for judge, found in seen.items()},
        "area": mean_area(seen[first]),
        "curve": curve,
        "kept": kept_share(plain, {cell.label: seen[first].boxes}),
        "similarity": None if clip is None else result.similarity(clip),
        "same_seed": result.seeds == (cell.seed,),
        "looks": sum(step["look"] is not None for step in result.history),
        "images": result.compute.passes / result.image_passes,
        "compute": result.compute.as_dict(),
        **score(image, cell),
    }


def clip_score(
    clip: ClipScorer, cells: Sequence[Cell], words: Callable[[Cell], str]
) -> Callable[[Image.Image, Cell], ClipFields]:
    """`score` for `run_cell`: 100 cos of the image with its prompt, and with another cell's, which gives the scale.

    words: cell -> the prompt as a person says it.
    """
    texts = sorted({words(cell) for cell in cells})
    embeds, _ = clip.embed_texts(texts)

    def score(image: Image.Image, cell: Cell) -> ClipFields:
        cosines = 100 * embeds @ clip.embed_images([image])[0]
        own = texts.index(words(cell))
        return {"clip": float(cosines[own]), "clip_mismatched": float(np.delete(cosines, own).mean())}

    return score


def judged_at(row: BriefSearchRow, budget: float) -> int | None:
    """What the judge counts in the best image there is once `budget` is spent; None before the first."""
    return next((judged for spent, judged in reversed(row["curve"]) if spent <= budget), None)


def look(judge: Counter, image: Image.Image, label: str) -> Detections:
    """What a judge sees of a class in one image."""
    return judge.detect([image], label)[0]


def mean_area(found: Detections) -> float | None:
    """Of the boxes, in pixels; None where there are none."""
    if not found.count:
        return None
    return float(((found.boxes[:, 2] - found.boxes[:, 0]) * (found.boxes[:, 3] - found.boxes[:, 1])).mean())

"""Searches for exact counts compared at equal compute: run, judged by whoever took no part in them, and told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from t2i_tools.counting import optimize_count
from t2i_tools.metrics import count_metrics, holm, image_embeddings, mcnemar, paired_test, text_embeddings, wilson

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

    from t2i_tools.detectors import Counter

Row = dict[str, Any]
BUDGETS = (1, 2, 4, 8, 16, 32)


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
    score: Callable[[Image.Image, Cell], Row],
    cell: Cell,
    name: str,
    options: Mapping[str, Any],
) -> Row:
    """Search with the counter, then let the judges count the best picture after every step that found a better one.

    judges: name -> judge, the first one's counts being `judged`. score: more figures of the last picture.
    """
    search = optimize_count(pipe, cell.template, cell.n, counter, label=cell.label, seeds=(cell.seed,), **options)
    curve: list[tuple[float, int]] = []
    for step in search:
        if step.best:
            curve.append(
                (step.passes / search.sampler.rows, _count(judges[next(iter(judges))], step.image, cell.label))
            )
    result = search.result()
    image = result.images[0]
    counts = {judge: _count(one, image, cell.label) for judge, one in judges.items()}
    return {
        "key": cell.key,
        "method": name,
        "label": cell.label,
        "count": cell.n,
        "seed": cell.seed,
        "steps": len(result.history),
        "counted": result.counts[0],
        "judged": counts[next(iter(judges))],
        "judges": counts,
        "curve": curve,
        "pictures": result.compute.passes / result.picture_passes,
        "compute": result.compute.as_dict(),
        **score(image, cell),
    }


def clip_score(
    clip: Any, tokenizer: Any, pixels: Mapping[str, Any], cells: Sequence[Cell], words: Callable
) -> Callable:
    """`score` for `run_cell`: 100 cos of the picture with its prompt, and with another cell's, which gives the scale.

    words: cell -> the prompt as a person says it.
    """
    texts = sorted({words(cell) for cell in cells})
    embeds, _ = text_embeddings(clip, tokenizer, texts)

    def score(image: Image.Image, cell: Cell) -> Row:
        cosines = 100 * embeds @ image_embeddings(clip, [image], **pixels)[0]
        own = texts.index(words(cell))
        return {"clip": float(cosines[own]), "clip_mismatched": float(np.delete(cosines, own).mean())}

    return score


def summarise(rows: Sequence[Row], baseline: str = "plain") -> list[Row]:
    """One line a method: exact by judge (Wilson) and by counter, MAE, bias, CLIP, cost; p values against the baseline.

    exact_p: McNemar's exact test over cells, corrected over the methods (Holm). error_p: of the difference in absolute
    error, signs flipped by class x n.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    plain = {row["key"]: row for row in rows if row["method"] == baseline}
    lines, p_values = [], {}
    for method in methods:
        own = [row for row in rows if row["method"] == method and (row["key"] in plain or not plain)]
        true, judged = np.array([row["count"] for row in own]), np.array([row["judged"] for row in own])
        figures, share = count_metrics(true, judged), wilson(int((true == judged).sum()), len(own))
        line = {
            "method": method,
            "n": len(own),
            "exact": share.estimate,
            "low": share.low,
            "high": share.high,
            "exact_by_counter": float(np.mean([row["counted"] == row["count"] for row in own])),
            **{name: figures[name] for name in ("off_by_one", "mae", "rmse", "bias") if name in figures},
            "clip": float(np.mean([row["clip"] for row in own])),
            "pictures": float(np.mean([row["pictures"] for row in own])),
            "seconds": float(np.mean([row["compute"]["seconds"] for row in own])),
        }
        if method != baseline and plain:
            pairs = [plain[row["key"]] for row in own]
            before = np.array([row["judged"] for row in pairs])
            p_values[method] = mcnemar(true == judged, true == before).p
            cells = [f"{row['label']}-{row['count']}" for row in own]
            line["error_p"] = paired_test(abs(judged - true), abs(before - true), cells)
        lines.append(line)
    for method, p in holm(p_values).items():
        next(line for line in lines if line["method"] == method)["exact_p"] = p
    return lines


def accuracy_curve(rows: Sequence[Row], budgets: Sequence[float] = BUDGETS) -> dict[str, list[float]]:
    """Method -> share of searches whose best picture the judge finds exact, once so many pictures' worth is spent."""
    methods = dict.fromkeys(row["method"] for row in rows)
    return {
        method: [
            float(np.mean([judged_at(row, budget) == row["count"] for row in rows if row["method"] == method]))
            for budget in budgets
        ]
        for method in methods
    }


def judged_at(row: Row, budget: float) -> int | None:
    """What the judge counts in the best picture there is once `budget` is spent; None before the first."""
    return next((judged for spent, judged in reversed(row["curve"]) if spent <= budget), None)


def _count(judge: Counter, image: Image.Image, label: str) -> int:
    (found,) = judge.detect([image], label)
    return found.count

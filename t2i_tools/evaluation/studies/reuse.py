"""Count tokens used again: learned for one class from a few seeds, then read with other seeds, classes, backgrounds,
steps, schedulers and sizes, always beside the plain prompt of the same seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t2i_tools.counting import CountToken, count_token, optimize_count
from t2i_tools.counting.token import fill_template
from t2i_tools.errors import InputError
from t2i_tools.evaluation.reports.protocol import Protocol
from t2i_tools.evaluation.reports.summary import cluster_interval
from t2i_tools.evaluation.studies.rows import UseRow
from t2i_tools.evaluation.studies.search_report import Field, Table
from t2i_tools.evaluation.studies.search_study import look
from t2i_tools.images.generate import Request, generate_image
from t2i_tools.images.number_words import number_word
from t2i_tools.images.sizes import Size
from t2i_tools.metrics import holm, nested_bootstrap, paired_test
from t2i_tools.models.parts import use_scheduler

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.detectors import Counter

FIGURES = {  # of the means of (right, right before, error, error before)
    "exact": lambda m: m[..., 0],
    "exact, plain": lambda m: m[..., 1],
    "exact gained": lambda m: m[..., 0] - m[..., 1],
    "MAE": lambda m: m[..., 2],
    "MAE, plain": lambda m: m[..., 3],
}


@dataclass(frozen=True)
class Lesson:
    """A token to learn: n objects of `label` by the template, from all of the seeds at once."""

    n: int
    label: str
    template: str
    seeds: tuple[int, ...]

    @property
    def key(self) -> str:
        """Names the token."""
        return f"{self.n}-{self.label}-{self.seeds[0]}"


@dataclass(frozen=True)
class Use:
    """An image to make with a token. condition: what differs from its lesson besides the seed, "seed" for nothing."""

    condition: str
    label: str
    template: str
    seed: int
    steps: int
    guidance: float
    size: Size | None = None
    scheduler: str | None = None


def learn(
    pipe: DiffusionPipeline, counter: Counter, lesson: Lesson, folder: Path, options: Mapping[str, Any]
) -> CountToken:
    """The lesson's token, kept in the folder; a search that was stopped goes on."""
    path = folder / "tokens" / f"{lesson.key}.safetensors"
    if path.exists():
        return CountToken.load(path, pipe)
    checkpoint = folder / "tokens" / f".{lesson.key}.search"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"label": lesson.label, "seeds": lesson.seeds, "checkpoint": checkpoint, **options}
    token = optimize_count(pipe, lesson.template, lesson.n, counter, **settings).run().token
    if token is None:
        raise InputError("this method learns no token: use one that does")
    token.save(path)
    checkpoint.unlink(missing_ok=True)
    return token


def use(pipe: DiffusionPipeline, judge: Counter, token: CountToken, lesson: Lesson, place: Use) -> UseRow:
    """What the judge counts with the token, and with the number's word in its place. Returns JSON's own types."""
    counted = {}
    with scheduled(pipe, place.scheduler):
        for name, spoken in (("plain_count", number_word(lesson.n)), ("token_count", token.spoken())):
            prompt = fill_template(place.template, {"count": spoken})
            request = Request(prompt, place.seed, size=place.size, steps=place.steps, guidance=place.guidance)
            with count_token(pipe, token) if name == "token_count" else nullcontext():
                counted[name] = look(judge, generate_image(pipe, request), place.label).count
    return {
        "token": lesson.key,
        "n": lesson.n,
        "learned": lesson.label,
        "plain_count": counted["plain_count"],
        "token_count": counted["token_count"],
        "condition": place.condition,
        "label": place.label,
        "template": place.template,
        "seed": place.seed,
        "steps": place.steps,
        "guidance": place.guidance,
        "size": place.size,
        "scheduler": place.scheduler,
    }


def report(rows: Sequence[UseRow], protocol: Protocol) -> dict[str, Table]:
    """By condition, and for each n over all conditions: exact and MAE with the token and without, and their difference.

    Intervals resample tokens, then their classes, then seeds. p: signs of the tokens' differences flipped, corrected
    over the conditions (Holm).
    """
    conditions = dict.fromkeys(row["condition"] for row in rows)
    by_condition = {name: [row for row in rows if row["condition"] == name] for name in conditions}
    by_n = {str(n): [row for row in rows if row["n"] == n] for n in sorted({row["n"] for row in rows})}
    tests = {name: p for name, part in by_condition.items() if (p := _p(part)) is not None}
    corrected = holm(tests)
    table = [
        {"condition": name, **figures(part, protocol), "p (Holm)": corrected.get(name, "-")}
        for name, part in by_condition.items()
    ]
    return {
        "all": [figures(rows, protocol)],
        "by condition": table,
        "by number": [{"n": n, **figures(part, protocol)} for n, part in by_n.items()],
        "spread": [{"n": n, **spread(part)} for n, part in by_n.items()],
    }


def spread(rows: Sequence[UseRow]) -> dict[str, Field]:
    """Bias and standard deviation of the counts, and how many would be exact if all plain ones were moved by the same
    whole number: what a token gains that says another number, and no more. rows: of one n.
    """
    n = rows[0]["n"]
    counts = {
        "plain": np.array([row["plain_count"] for row in rows]),
        "token": np.array([row["token_count"] for row in rows]),
    }
    moved = {step: float((counts["plain"] + step == n).mean()) for step in range(-n, n + 1)}
    best = max(moved, key=lambda step: (moved[step], -abs(step)))
    line: dict[str, Field] = {"images": len(rows)}
    for name, values in counts.items():
        line |= {f"bias, {name}": float(values.mean() - n), f"deviation, {name}": float(values.std())}
    return line | {"moved by": best, "exact, plain": moved[0], "exact, plain moved": moved[best]}


def figures(rows: Sequence[UseRow], protocol: Protocol) -> dict[str, Field]:
    """tokens, images and FIGURES, with intervals where there are two tokens or more."""
    tokens, labels = [row["token"] for row in rows], [f"{row['token']} {row['label']}" for row in rows]
    columns = np.array([_columns(row) for row in rows], dtype=np.float64)
    line: dict[str, Field] = {"tokens": len(set(tokens)), "images": len(rows)}
    for name, figure in FIGURES.items():
        if len(set(tokens)) > 1:
            line[name] = nested_bootstrap(columns, [tokens, labels], statistic=figure, level=protocol.level)
        else:
            line[name] = cluster_interval(columns, tokens, figure, protocol.level)
    return line


@contextmanager
def scheduled(pipe: DiffusionPipeline, name: str | None) -> Iterator[None]:
    """While it lasts, the pipeline has the named scheduler, its own when None."""
    before = pipe.scheduler
    try:
        if name is not None:
            use_scheduler(pipe, name)
        yield
    finally:
        pipe.scheduler = before


def _columns(row: UseRow) -> tuple[float, ...]:
    n, ours, before = row["n"], row["token_count"], row["plain_count"]
    return ours == n, before == n, abs(ours - n), abs(before - n)


def _p(rows: Sequence[UseRow]) -> float | None:
    tokens = [row["token"] for row in rows]
    columns = np.array([_columns(row) for row in rows], dtype=np.float64)
    return paired_test(columns[:, 0], columns[:, 1], tokens) if len(set(tokens)) > 1 else None

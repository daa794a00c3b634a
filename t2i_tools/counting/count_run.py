"""Many searches into one folder, which goes on where it was after a kill, to the same bytes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from safetensors.torch import save as to_bytes

from t2i_tools.counting.api import optimize_count
from t2i_tools.counting.compute import ComputeRow
from t2i_tools.counting.look_record import LookRecords
from t2i_tools.counting.results import Result, Step, StepRow
from t2i_tools.errors import InputError, first_line
from t2i_tools.files import remove_dead_parts, replacing
from t2i_tools.images.generate import Request
from t2i_tools.images.metadata import save_image

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.detectors import Counter
    from t2i_tools.metrics import ClipScorer

logger = logging.getLogger("t2i_tools.counting")
SUMMARY, SEARCH = "count.json", ".search-{:04}.safetensors"


class CountRow(TypedDict):
    """One image of count.json. Files are named from the folder on; `compute` and `history` are those of the search.

    kept: share of the plain image's objects that are still in place. similarity: to the plain image by CLIP (CLIP-I).
    """

    file: str
    strip: str
    tokens: list[str]
    noise: str | None
    prompt: str
    seed: int
    counted: dict[str, int]
    exact: bool
    stopped: str
    kept: float | None
    similarity: float | None
    image_passes: int
    compute: ComputeRow
    history: list[StepRow]


@dataclass(frozen=True)
class CountRun:
    """What to make: `number` images of seeds `seed`, `seed` + 1..., each by a search with `options`.

    name: for the files. goal: n and label, or counts, of `optimize_count`. until_exact: go on to other seeds until so
    many are exact, or `number` budgets are spent; what is not exact goes to rejected/. about: what else distinguishes
    one run from another, such as the model's name.
    """

    name: str
    template: str
    goal: dict[str, Any]
    seed: int
    number: int = 1
    until_exact: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def request(self, result: Result) -> Request:
        """The image that a search ended with, but for what it has learned."""
        negative, size, steps, guidance = map(self.options.get, ("negative", "size", "steps", "guidance"))
        return Request(result.prompt, result.seeds[0], negative, size, steps=steps, guidance=guidance)


def run_searches(
    pipe: DiffusionPipeline,
    counter: Counter,
    run: CountRun,
    folder: Path,
    describe: Callable[[Result], dict[str, Any]],
    on_step: Callable[[int, Step], object] | None = None,
    clip: ClipScorer | None = None,
) -> Iterator[CountRow]:
    """Search for one image after the other; yields each one's row of count.json when its files are complete.

    describe: settings for the image's file. on_step: called with the image's place and each step. clip: for each row's
    `similarity`, None for none. After Ctrl-C the best so far is delivered, and its row yielded, before
    KeyboardInterrupt goes on. Raises InputError for the folder of another run.
    """
    rows, looks = read_rows(folder, run), read_looks(folder)
    remove_dead_parts(folder)

    def search(place: int, budget: float) -> CountRow:
        checkpoint = folder / SEARCH.format(place + 1)
        options = {**run.options, "budget": budget, "checkpoint": checkpoint}
        if options.get("early_look"):
            options["early_look"] = looks
        seeds = ((run.seed + place) % 2**63,)
        steps = optimize_count(pipe, run.template, counter=counter, **run.goal, seeds=seeds, **options)
        if not rows:
            write_rows(folder, run, rows, looks)  # a random seed has to outlive a kill
        result = steps.run(on_step and (lambda step: on_step(place, step)))
        row = deliver(result, run, folder, place, describe(result), None if clip is None else result.similarity(clip))
        if result.stopped != "interrupted":  # else the search stays, to go on from
            rows[place:] = [row, *rows[place + 1 :]]
            write_rows(folder, run, rows, looks)
            checkpoint.unlink(missing_ok=True)
        return row

    for place, row in enumerate(list(rows)):
        lost, begun = lost_file(folder, row), (folder / SEARCH.format(place + 1)).is_file()
        if begun and not lost:  # by a run that was stopped when it searched again: the files are its best so far
            row = search(place, left(run, rows[:place]))
        elif lost:
            if run.options.get("early_look"):  # what it had learned from earlier searches by then is not known any more
                raise InputError(f"{folder / lost} is missing: restore it, or start over in another folder")
            logger.warning("%s is missing: running its search again", folder / lost)
            row = search(place, left(run, rows[:place]))
        yield row
        if row["stopped"] == "interrupted":
            raise KeyboardInterrupt
    while budget := left(run, rows):
        row = search(len(rows), budget)
        yield row
        if row["stopped"] == "interrupted":
            raise KeyboardInterrupt


def lost_file(folder: Path, row: CountRow) -> str | None:
    """The first of a finished image's files that is not there any more."""
    files = [row["file"], row["strip"], *row["tokens"], *([row["noise"]] if row["noise"] else [])]
    return next((file for file in files if not (folder / file).is_file()), None)


def left(run: CountRun, rows: list[CountRow]) -> float:
    """The budget of the next search, 0 when the run is done."""
    whole = run.options["budget"]
    if not run.until_exact:
        return whole if len(rows) < run.number else 0.0
    spent = sum(row["compute"]["passes"] / row["image_passes"] for row in rows)
    rest = min(whole, run.number * whole - spent)
    return rest if rest >= 1 and accepted(rows) < run.number else 0.0


def accepted(rows: list[CountRow]) -> int:
    """How many of the images are exact."""
    return sum(row["exact"] for row in rows)


def deliver(
    result: Result,
    run: CountRun,
    folder: Path,
    place: int,
    settings: dict[str, Any],
    similarity: float | None = None,
) -> CountRow:
    """Write image, tokens and strip of a search; returns its row."""
    stem = f"{place + 1:04}-{run.name}-{result.history[0]['seeds'][0]}"
    image = folder / ("rejected" if run.until_exact and not result.exact else "") / f"{stem}.png"
    several = len(result.tokens) > 1
    names = [f"{stem}-{i + 1}" if several else stem for i in range(len(result.tokens))]
    tokens = [folder / "tokens" / f"{name}.safetensors" for name in names]
    row: CountRow = {
        "file": str(image.relative_to(folder)),
        "strip": f"steps/{stem}.png",
        "tokens": [str(path.relative_to(folder)) for path in tokens],
        "noise": None if result.latents is None else f"noise/{stem}.safetensors",
        "prompt": result.prompt,
        "seed": result.seeds[0],
        "counted": result.counted[0],
        "exact": result.exact,
        "stopped": result.stopped,
        "kept": result.kept,
        "similarity": similarity,
        "image_passes": result.image_passes,
        "compute": result.compute.as_dict(),
        "history": result.history,
    }
    outcome = {"counted": row["counted"], "exact": row["exact"], "tokens": row["tokens"], "noise": row["noise"]}
    if result.latents is not None and row["noise"]:  # as `latents=` of the pipeline's call it makes the image again
        with replacing(folder / row["noise"]) as part:
            part.write_bytes(to_bytes({"latents": result.latents.contiguous()}))
    for token, path in zip(result.tokens, tokens, strict=True):
        token.save(path)
    save_image(result.strip(), folder / row["strip"], {"prompt": result.prompt})
    save_image(result.images[0], image, {**settings, "count": outcome})
    return row


def read_rows(folder: Path, run: CountRun) -> list[CountRow]:
    """The rows of images that are finished. Raises InputError for another run's folder."""
    try:
        there = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        rows, same = there["images"], there["run"] == _settings(run)
        if not all(map(_is_row, rows)):
            raise ValueError("the row of one of its images is incomplete")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"cannot read {folder / SUMMARY}: {first_line(error)}") from error
    if not same:
        raise InputError(f"{folder} holds a count with other settings: give another --output, or the same settings")
    return rows


def read_looks(folder: Path) -> LookRecords:
    """What early looks were worth in the finished searches; empty where there are none. Raises InputError."""
    try:
        return LookRecords.from_dict(json.loads((folder / SUMMARY).read_text(encoding="utf-8")).get("looks", {}))
    except FileNotFoundError:
        return LookRecords()
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"cannot read the early looks in {folder / SUMMARY}: {first_line(error)}") from error


def write_rows(folder: Path, run: CountRun, rows: list[CountRow], looks: LookRecords | None = None) -> None:
    """Replace count.json as a whole. Raises InputError."""
    summary = {"run": _settings(run), "images": rows} | ({"looks": looks.as_dict()} if looks and looks.records else {})
    with replacing(folder / SUMMARY) as part:
        part.write_text(json.dumps(summary, indent=1), encoding="utf-8")


def seed_of(folder: Path) -> int | None:
    """The seed of the run that a folder holds, None where it holds none."""
    try:
        return int(json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["run"]["seed"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _is_row(row: Any) -> bool:
    """Whether it has what decides how a run goes on."""
    numbers = row["compute"]["passes"], row["compute"]["seconds"], row["image_passes"]
    return (
        isinstance(row["exact"], bool)
        and all(isinstance(file, str) for file in (row["file"], row["strip"], *row["tokens"], row["noise"] or ""))
        and all(type(one) in (int, float) and one >= 0 for one in numbers)
        and numbers[2] > 0
    )


def _settings(run: CountRun) -> dict[str, Any]:
    """As JSON gives it back."""
    return json.loads(json.dumps(asdict(run)))

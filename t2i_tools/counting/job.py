"""Many searches into one folder, which goes on where it was after a kill, to the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save as to_bytes

from t2i_tools.counting.methods import optimize_count
from t2i_tools.counting.results import Result, Step
from t2i_tools.errors import InputError, first_line
from t2i_tools.files import replacing
from t2i_tools.generation import Request
from t2i_tools.imagefile import save_image

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.detectors import Counter

SUMMARY, SEARCH = "count.json", ".search-{:04}.safetensors"


@dataclass(frozen=True)
class Job:
    """What to make: `number` images of seeds `seed`, `seed` + 1..., each by a search with `options`.

    name: for the files. goal: n and label, or counts, of `optimize_count`. until_exact: go on to other seeds until so
    many are exact, or `number` budgets are spent; what is not exact goes to rejected/. about: what else tells one job
    from another, such as the model's name.
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
        """The picture that a search ended with, but for what it has learned."""
        told = {name: self.options.get(name) for name in ("negative", "size", "steps", "guidance")}
        return Request(result.prompt, result.seeds[0], **told)


def run_job(
    pipe: DiffusionPipeline,
    counter: Counter,
    job: Job,
    folder: Path,
    describe: Callable[[Result], dict[str, Any]],
    on_step: Callable[[int, Step], object] | None = None,
) -> Iterator[dict[str, Any]]:
    """Search for one image after the other; yields each one's row of count.json when its files are complete.

    describe: settings for the image's file. on_step: called with the image's place and each step. After Ctrl-C the best
    so far is delivered, and its row yielded, before KeyboardInterrupt goes on. Raises InputError for the folder of
    another job.
    """
    rows = read_rows(folder, job)
    yield from list(rows)
    while budget := left(job, rows):
        place, checkpoint = len(rows), folder / SEARCH.format(len(rows) + 1)
        options = {**job.options, "budget": budget, "checkpoint": checkpoint}
        seeds = ((job.seed + place) % 2**63,)
        search = optimize_count(pipe, job.template, counter=counter, **job.goal, seeds=seeds, **options)
        if not rows:
            write_rows(folder, job, rows)  # a random seed has to outlive a kill
        result = search.run(on_step and (lambda step, place=place: on_step(place, step)))
        row = deliver(result, job, folder, place, describe(result))
        if result.stopped == "interrupted":  # the search stays, to go on from
            yield row
            raise KeyboardInterrupt
        rows.append(row)
        write_rows(folder, job, rows)
        checkpoint.unlink(missing_ok=True)
        yield row


def left(job: Job, rows: list[dict[str, Any]]) -> float:
    """The budget of the next search, 0 when the job is done."""
    whole = job.options["budget"]
    if not job.until_exact:
        return whole if len(rows) < job.number else 0.0
    spent = sum(row["compute"]["passes"] / row["picture_passes"] for row in rows)
    rest = min(whole, job.number * whole - spent)
    return rest if rest >= 1 and accepted(rows) < job.number else 0.0


def accepted(rows: list[dict[str, Any]]) -> int:
    """How many of the images are exact."""
    return sum(row["exact"] for row in rows)


def deliver(result: Result, job: Job, folder: Path, place: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Write image, tokens and strip of a search; returns its row."""
    stem = f"{place + 1:04}-{job.name}-{result.history[0]['seeds'][0]}"
    image = folder / ("rejected" if job.until_exact and not result.exact else "") / f"{stem}.png"
    several = len(result.tokens) > 1
    names = [f"{stem}-{i + 1}" if several else stem for i in range(len(result.tokens))]
    tokens = [folder / "tokens" / f"{name}.safetensors" for name in names]
    row = {
        "file": str(image.relative_to(folder)),
        "strip": f"steps/{stem}.png",
        "tokens": [str(path.relative_to(folder)) for path in tokens],
        "noise": None if result.latents is None else f"noise/{stem}.safetensors",
        "prompt": result.prompt,
        "seed": result.seeds[0],
        "found": result.found[0],
        "exact": result.exact,
        "stopped": result.stopped,
        "picture_passes": result.picture_passes,
        "compute": result.compute.as_dict(),
        "history": result.history,
    }
    told = {name: row[name] for name in ("found", "exact", "tokens", "noise")}
    if result.latents is not None:  # as `latents=` of the pipeline's call it makes the image again
        with replacing(folder / row["noise"]) as part:
            part.write_bytes(to_bytes({"latents": result.latents.contiguous()}))
    for token, path in zip(result.tokens, tokens, strict=True):
        token.save(path)
    save_image(result.strip(), folder / row["strip"], {"prompt": result.prompt})
    save_image(result.images[0], image, {**settings, "count": told})
    return row


def read_rows(folder: Path, job: Job) -> list[dict[str, Any]]:
    """The rows of images that are finished. Raises InputError for another job's folder."""
    try:
        there = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        rows, same = there["images"], there["job"] == _settings(job)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {folder / SUMMARY}: {first_line(error)}") from error
    if not same:
        raise InputError(f"{folder} holds a count with other settings: give another --output, or the same settings")
    return rows


def write_rows(folder: Path, job: Job, rows: list[dict[str, Any]]) -> None:
    """Replace count.json as a whole. Raises InputError."""
    with replacing(folder / SUMMARY) as part:
        part.write_text(json.dumps({"job": _settings(job), "images": rows}, indent=1), encoding="utf-8")


def seed_of(folder: Path) -> int | None:
    """The seed of the job that a folder holds, None where it holds none."""
    try:
        return int(json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["job"]["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _settings(job: Job) -> dict[str, Any]:
    """As JSON gives it back."""
    return json.loads(json.dumps(asdict(job)))

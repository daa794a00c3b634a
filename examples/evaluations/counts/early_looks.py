"""Exact counts with early looks: the default search beside best-of-N with the same looks, counted by the judge.

    python examples/evaluations/counts/early_looks.py outputs/looks --split dev --rounds 2

Stopped at any moment, it goes on where it was. A round is one pair of each class and number from a seed of its own, so
that a run that is stopped has every class and number nearly as often. What looks were worth on dev (`looks.json`) and
the cost of one are fixed beforehand: each search of the test split begins with a copy. What is claimed stands in
protocol_looks.json; `early_looks_report.py` makes the tables from the rows.
"""

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from ablations import PREPARE
from PIL import Image

import t2i_tools as t2i
from t2i_tools.bundled import BUNDLED_GUIDANCE, BUNDLED_STEPS
from t2i_tools.counting import LookRecords, Search
from t2i_tools.counting.early_look import Look
from t2i_tools.evaluation.reports.protocol import log_test_run
from t2i_tools.evaluation.rows_io import append_row, read_log
from t2i_tools.evaluation.studies.rows import SearchRow
from t2i_tools.evaluation.studies.search_study import Cell, run_cell
from t2i_tools.workflows.evaluation_plan import bundled_benchmark

HERE = Path(__file__).parent
PROTOCOL, LOOKS = HERE / "protocol_looks.json", HERE / "looks.json"
FIRST_SEED = {"dev": 8_000_000_000, "test": 8_100_000_000}  # of no training and no other evaluation
COUNTS = (4, 5, 6, 7, 8, 10, 12)
LOOK_AT, LOOK_COST = 0.4, 0.025  # share of the steps; in images' worth, by processor time on dev (52 ms of 2.1 s)
LOOK = {"early_look": True, "look_at": LOOK_AT, "look_cost": LOOK_COST}
METHODS: dict[str, dict[str, Any]] = {
    "search with looks": {"method": "bisection+best_of", **LOOK},
    "best_of with looks": {"method": "best_of", **LOOK},
    "best_of": {"method": "best_of"},
    "search": {"method": "bisection+best_of"},
    **{name: {"method": "bisection+best_of", **LOOK} for name in PREPARE},
}
KEPT = ("key", "method", "label", "count", "seed", "counted", "judged", "kept", "similarity", "same_seed", "looks")

Drawn = dict[tuple[str, int], tuple[torch.Tensor, int]]  # prompt and seed -> image, and its denoiser passes


def cells(split: str, counts: list[int], rounds: int, first: int = 0) -> Iterator[Cell]:
    """Round by round, from `first` on, every class of the split with every count, each pair from its own seed.

    The order within a round is drawn once.
    """
    benchmark, order = bundled_benchmark(split), random.Random(0)
    pairs = list(product(benchmark.classes, sorted(counts)))
    for index in range(rounds):
        order.shuffle(pairs)
        for label, n in pairs if index >= first else ():
            place = list(benchmark.classes).index(label) * 100 + n
            seed = FIRST_SEED[split] + 10_000 * index + place
            yield Cell(label, n, f"{benchmark.opening} {{count}} {benchmark.classes[label]}", seed)


def sharing_plain_images(search: Search, drawn: Drawn) -> None:
    """Draw images of the plain prompt once for all methods, which are each charged for them."""
    sampler, draw, plain = search.sampler, search.sampler.draw, search.objective.plain

    def draw_once(prompt: str, seeds: Sequence[int], latents: Any, gradient: bool, look: Look | None) -> torch.Tensor:
        place = prompt, seeds[0]
        if look is None and prompt == plain and place in drawn:
            images, sampler.image_passes = drawn[place]
            sampler.compute.denoiser += sampler.image_passes
            sampler.compute.vae += 1
            return images
        images = draw(prompt, seeds, latents, gradient, look)
        if prompt == plain and (look is None or not look.ended):
            drawn[place] = images, sampler.image_passes
        return images

    sampler.draw = draw_once  # type: ignore[method-assign]


def short(row: SearchRow) -> dict[str, Any]:
    """What the report needs of a row."""
    curve = [[round(spent, 3), judged] for spent, judged in row["curve"]]
    return {name: row[name] for name in KEPT} | {"images": round(row["images"], 3), "curve": curve}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--counts", type=lambda text: [int(n) for n in text.split(",")], default=COUNTS)
    parser.add_argument("--rounds", type=int, default=20, help="pairs of each class and count")
    parser.add_argument("--first-round", type=int, default=0, help="where another run has drawn those before it")
    parser.add_argument("--methods", default="search with looks,best_of with looks")
    parser.add_argument("--budget", type=float, default=16, help="plain images' worth of compute per search")
    parser.add_argument("--until", help="begin no pair after this time of day, HH:MM")
    parser.add_argument("--looks", type=Path, default=LOOKS, help="what looks were worth; dev also learns from its own")
    parser.add_argument("--images", type=Path, help="where to keep the image that each search ends with, for eye.py")
    options = parser.parse_args()
    if options.split == "test":
        log_test_run(PROTOCOL, options.folder, f"{options.methods} {options.counts}, {options.budget}")
    if options.images:
        options.images.mkdir(parents=True, exist_ok=True)
    pipe, counter, judge = t2i.load_bundled(), t2i.load_bundled_counter(), t2i.load_bundled_judge()
    pipe.set_progress_bar_config(disable=True)
    clip, log = t2i.load_bundled_clip(), options.folder / "rows.jsonl"
    usual = {"steps": BUNDLED_STEPS, "guidance": BUNDLED_GUIDANCE, "budget": options.budget}
    done = {(row["key"], row["method"]) for row in read_log(log)}
    learned = options.folder / "looks.json"  # of dev
    records = LookRecords.load(place) if (place := learned if learned.exists() else options.looks).exists() else None
    for cell in cells(options.split, options.counts, options.rounds, options.first_round):
        if options.until and time.strftime("%H:%M") >= options.until:
            break
        drawn: Drawn = {}
        for name in options.methods.split(","):
            if (cell.key, name) in done:
                continue
            method, looks = {**usual, **METHODS[name]}, LookRecords.from_dict(records.as_dict() if records else {})
            if "early_look" in method:
                method["early_look"] = looks

            def prepare(search: Search, name: str = name, drawn: Drawn = drawn) -> None:
                sharing_plain_images(search, drawn)
                PREPARE.get(name, lambda _: None)(search)

            def keep(image: Image.Image, cell: Cell, name: str = name) -> dict[str, float]:
                if options.images:
                    image.save(options.images / f"{cell.key} {name}.png")
                return {}

            row = run_cell(pipe, counter, {"judge": judge}, keep, cell, name, method, clip, prepare)
            if options.split == "dev" and looks.records:
                records = looks
                records.save(learned)
            append_row(log, short(row))
            print(f"{name:20} {cell.key:24} {row['judged']:2} of {cell.n}, {row['images']:.1f} images", flush=True)


if __name__ == "__main__":
    main()

"""Exact counts on the bundled model: token, noise, best-of and random walk at equal compute, counted by the judge.

    python examples/evaluations/counts/run.py outputs/counts --split dev --seeds 1 --budget 8

Stopped at any moment, it goes on where it was; `--shard 1/2` and `--shard 2/2` share a folder's searches between two
processes. The methods follow the bundled detector; the judge has seen none of it.
A search costs at most `budget` plain pictures, one backward pass of the denoiser being worth two forward. Writes
report.md and report.json. What is claimed stands in protocol.json, beside which each run on the test split is logged.

    python examples/evaluations/counts/run.py outputs/paper --few-steps --budget 60 --methods paper,paper_walk,best_of

searches on the four-step form, where the gradient goes through all steps as in Zafar et al. 2024; its claims stand in
protocol_few_steps.json, and its seeds are its own.
"""

import argparse
import random
from dataclasses import replace
from itertools import product
from pathlib import Path

import t2i_tools as t2i
from t2i_tools.bundled import BUNDLED_GUIDANCE, bundled_defaults
from t2i_tools.counting.token import fill_template
from t2i_tools.errors import InputError
from t2i_tools.evaluation.reports.protocol import log_test_run, read_protocol
from t2i_tools.evaluation.row_types import typed_rows
from t2i_tools.evaluation.rows_io import append_row, read_log
from t2i_tools.evaluation.studies.rows import SearchRow
from t2i_tools.evaluation.studies.search_report import race, report, write_tables
from t2i_tools.evaluation.studies.search_study import Cell, clip_score, run_cell
from t2i_tools.images.number_words import number_word
from t2i_tools.workflows.evaluation_plan import bundled_benchmark, parse_shard

PROTOCOL, FEW_STEPS_PROTOCOL = map(Path(__file__).with_name, ("protocol.json", "protocol_few_steps.json"))
PAPER = ("paper", "paper_walk")  # their gradient goes through all steps: by default on the four-step form alone
CLAIMED = 4  # objects and more
HARD = (8, 10)  # of these, right in fewer than a quarter of dev's plain pictures
RIVAL = "best_of"
COUNTS = (2, 3, 4, 5, 6, 7, 8, 10, 12)
METHODS = {  # wording: what stands where the template has "{count}"
    "plain": {"method": "plain"},
    "best_of": {"method": "best_of"},
    "token": {"method": "token"},
    "bisection": {"method": "bisection"},
    "bisection+best_of": {"method": "bisection+best_of"},
    "token of two vectors": {"method": "token", "vectors": 2},
    "token and number": {"method": "token", "number": True},
    "token by static scale": {"method": "token", "scale": 8.0},
    "token by last steps": {"method": "token", "grad_where": "last"},
    "random_walk": {"method": "random_walk"},
    "paper": {"preset": "paper"},
    # Its steps in random directions, at equal compute: a gradient costs three images' worth, a step of the walk one.
    "paper_walk": {"preset": "paper", "method": "random_walk", "max_trials": 150, "patience": 45},
    "noise": {"method": "noise"},
    "noise+best_of": {"method": "noise+best_of"},
    "token+noise": {"method": "token+noise"},
    "token+best_of": {"method": "token+best_of"},
    "token of eight steps": {"method": "token", "grad_steps": 8},
    "token of one step": {"method": "token", "grad_steps": 1},
    "token from some": {"method": "token", "start": "some"},
    "plain exactly N": {"method": "plain", "wording": "exactly {count}"},
    "plain N twice": {"method": "plain", "wording": "{count} {count}"},
    "plain less guidance": {"method": "plain", "guidance": BUNDLED_GUIDANCE / 2},
    "plain more guidance": {"method": "plain", "guidance": 2 * BUNDLED_GUIDANCE},
}
FIRST_SEED = {"dev": 5_000_000_000, "test": 6_000_000_000}  # of no training and no other evaluation
FEW_STEPS_SEEDS = 500_000_000  # behind those of the twenty-step form


def cells(split: str, counts: list[int], seeds: int, number: int | None, few_steps: bool = False) -> list[Cell]:
    """Every class of the split with every count from every seed; of these the first `number` in an order drawn once."""
    benchmark = bundled_benchmark(split)
    first = FIRST_SEED[split] + FEW_STEPS_SEEDS * few_steps
    every = [
        Cell(label, n, f"{benchmark.opening} {{count}} {benchmark.classes[label]}", first + index)
        for index, (label, n, _) in enumerate(product(benchmark.classes, counts, range(seeds)))
    ]
    random.Random(0).shuffle(every)
    return every[:number]


def words(cell: Cell) -> str:
    return fill_template(cell.template, {"count": number_word(cell.n)})


def described(options: argparse.Namespace) -> str:
    """What is run, for the log of runs on the test split."""
    what = f"{options.methods} {options.counts} x {options.seeds}, {options.budget}"
    changes = {"number": options.number, "unet": options.unet, "counter": options.counter}
    usual = {"number": None, "unet": None, "counter": "detector"}
    return what + "".join(f", {name} {value}" for name, value in changes.items() if value != usual[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--counts", type=lambda text: [int(n) for n in text.split(",")], default=COUNTS)
    parser.add_argument("--seeds", type=int, default=2, help="of each class and count")
    parser.add_argument("--number", type=int, help="so many searches a method, not all")
    parser.add_argument("--methods", help="with commas between; the main ones by default")
    parser.add_argument("--few-steps", action="store_true", help="search on the four-step form")
    parser.add_argument("--unet", type=Path, help="folder of another UNet, for instance one less trained")
    parser.add_argument("--counter", choices=("detector", "heatmap"), default="detector", help="whom searches follow")
    parser.add_argument("--shard", type=parse_shard, default=(0, 1), metavar="1/2", help="this part of the searches")
    parser.add_argument("--budget", type=float, default=16, help="plain pictures' worth of compute a search")
    options = parser.parse_args()
    usual_methods = (name for name in METHODS if " " not in name and (options.few_steps or name not in PAPER))
    options.methods = options.methods or ",".join(usual_methods)
    protocol_file = FEW_STEPS_PROTOCOL if options.few_steps else PROTOCOL
    if read_protocol(protocol_file).baseline not in options.methods.split(","):
        parser.error(f"the tables compare with {read_protocol(protocol_file).baseline}: add it to --methods")
    if options.split == "test":
        log_test_run(protocol_file, options.folder, described(options))

    pipe, counter, guide = t2i.load_bundled(few_steps=options.few_steps), t2i.load_bundled_counter(), None
    pipe.set_progress_bar_config(disable=True)
    if options.unet:
        pipe.unet = type(pipe.unet).from_pretrained(options.unet, dtype=pipe.dtype)
    judges = {"judge": t2i.load_bundled_judge(), "second judge": t2i.load_bundled_judge(second=True)}
    if options.counter == "heatmap":  # which has no gradient: it counts, and the detector says which way
        counter, guide = judges.pop("second judge"), counter
    every = cells(options.split, options.counts, options.seeds, options.number, options.few_steps)
    score = clip_score(t2i.load_bundled_clip(), every, words)
    usual = dict(zip(("steps", "guidance"), bundled_defaults(few_steps=options.few_steps), strict=True))
    usual |= {"budget": options.budget, "guide": guide}
    log = options.folder / "searches.jsonl"
    about = {"budget": options.budget, "counter": options.counter, "unet": str(options.unet or "")}
    about |= {"few_steps": options.few_steps}
    there = [{"counter": "detector", "unet": "", "few_steps": False, **row} for row in read_log(log)]
    if any(row[name] != value for row in there for name, value in about.items()):
        raise InputError(
            f"{options.folder} holds searches of another budget, counter, UNet or form: give another folder"
        )
    done = {(row["key"], row["method"]) for row in there}
    part, parts = options.shard
    for cell, name in product(every[part::parts], options.methods.split(",")):
        if (cell.key, name) not in done:
            method = {**usual, **METHODS[name]}
            asked = replace(cell, template=cell.template.replace("{count}", method.pop("wording", "{count}")))
            row = run_cell(pipe, counter, judges, lambda image, _, cell=cell: score(image, cell), asked, name, method)
            append_row(log, row | about)
            print(f"{name:20} {cell.key:24} {row['judged']:2} of {cell.n}, {row['images']:.1f} images", flush=True)
    protocol, rows = read_protocol(protocol_file), typed_rows(SearchRow, read_log(log), log)
    tables = report(rows, protocol)
    if claimed := [row for row in rows if row["count"] >= CLAIMED]:
        tables[f"gains, n >= {CLAIMED}"] = report(claimed, protocol)["gains"]
        tables[f"beyond {RIVAL} at equal compute, n >= {CLAIMED}"] = race(claimed, RIVAL, protocol)
        hard = [row for row in claimed if row["count"] in HARD]
        tables[f"beyond {RIVAL} at half its compute, n in {HARD}"] = race(hard, RIVAL, protocol, head=0.5)
    print(write_tables(options.folder, tables))


if __name__ == "__main__":
    main()

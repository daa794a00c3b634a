"""Count tokens of the bundled model used again: other seeds, classes, backgrounds, steps, schedulers and sizes.

    python examples/evaluations/count_reuse/run.py outputs/reuse --split dev --counts 5 --tokens 2 --uses 2

Stopped at any moment, it goes on where it was. Tokens are learned for dev classes on `--seeds` pictures at once, judged
on held-out ones: another of the dev classes, or of the test classes in their own words with --split test. Writes
report.md and report.json; what is claimed stands in protocol.json, beside which each run on the
test split is logged.
"""

import argparse
from itertools import product
from pathlib import Path

import t2i_tools as t2i
from t2i_tools.bundled import BUNDLED_GUIDANCE, BUNDLED_STEPS
from t2i_tools.evaluation.reports.protocol import log_test_run, read_protocol
from t2i_tools.evaluation.row_types import typed_rows
from t2i_tools.evaluation.rows_io import append_row, read_log
from t2i_tools.evaluation.studies.reuse import Lesson, Use, learn, report, use
from t2i_tools.evaluation.studies.rows import UseRow
from t2i_tools.evaluation.studies.search_report import write_tables
from t2i_tools.workflows.evaluation_plan import bundled_benchmark

PROTOCOL = Path(__file__).with_name("protocol.json")
CONDITIONS = {
    "seed": {},
    "background": {},
    "class": {},
    "steps": {"steps": 2 * BUNDLED_STEPS},
    "scheduler": {"scheduler": "euler"},
    "size": {"size": (128, 160)},
}
LEARNING, USING = 7_000_000_000, {"dev": 7_100_000_000, "test": 7_200_000_000}  # seeds of no other evaluation


def lessons(counts: list[int], tokens: int, seeds: int) -> list[Lesson]:
    """For each count so many tokens, each of another dev class and other seeds."""
    classes = list(bundled_benchmark("dev").classes.items())
    found = []
    for place, (n, index) in enumerate(product(counts, range(tokens))):
        label, plural = classes[index % len(classes)]
        first = LEARNING + place * seeds
        found.append(Lesson(n, label, f"a photo of {{count}} {plural}", tuple(range(first, first + seeds))))
    return found


def uses(lesson: Lesson, place: int, split: str, number: int) -> list[Use]:
    """So many pictures under each condition, seeds and classes of their own."""
    benchmark, found = bundled_benchmark(split), []
    others = [label for label in benchmark.classes if label != lesson.label]
    own = lesson.template.removeprefix("a photo of")
    for (kind, (condition, changes)), index in product(enumerate(CONDITIONS.items()), range(number)):
        label, template = lesson.label, benchmark.opening + own
        if condition == "class":
            label = others[(place + index) % len(others)]
            template = f"{benchmark.opening} {{count}} {benchmark.classes[label]}"
        elif condition == "background":
            template += f" {benchmark.scenes[1 + index % (len(benchmark.scenes) - 1)]}"
        seed = USING[split] + 10_000 * place + 1000 * kind + index
        found.append(
            Use(condition, label, template, seed, **{"steps": BUNDLED_STEPS, **changes}, guidance=BUNDLED_GUIDANCE)
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--counts", type=lambda text: [int(n) for n in text.split(",")], default=[4, 5, 7, 10])
    parser.add_argument("--tokens", type=int, default=5, help="of each count")
    parser.add_argument("--seeds", type=int, default=4, help="that a token is learned from")
    parser.add_argument("--uses", type=int, default=4, help="pictures under each condition")
    parser.add_argument(
        "--budget", type=float, default=16, help="plain pictures' worth of compute a seed to learn from"
    )
    parser.add_argument("--method", choices=("token", "bisection", "random_walk"), default="token")
    options = parser.parse_args()
    if options.split == "test":
        log_test_run(PROTOCOL, options.folder, f"{options.method} {options.counts} x {options.tokens} x {options.uses}")

    pipe, counter, judge = t2i.load_bundled(), t2i.load_bundled_counter(), t2i.load_bundled_judge()
    pipe.set_progress_bar_config(disable=True)
    search = {"steps": BUNDLED_STEPS, "guidance": BUNDLED_GUIDANCE, "budget": options.budget, "method": options.method}
    log = options.folder / "uses.jsonl"
    done = {(row["token"], row["seed"]) for row in read_log(log)}
    for place, lesson in enumerate(lessons(options.counts, options.tokens, options.seeds)):
        token = learn(pipe, counter, lesson, options.folder, search)
        for one in uses(lesson, place, options.split, options.uses):
            if (lesson.key, one.seed) not in done:
                row = use(pipe, judge, token, lesson, one)
                append_row(log, row)
                print(f"{lesson.key:24} {one.condition:10} {row['plain_count']} -> {row['token_count']}", flush=True)
    print(write_tables(options.folder, report(typed_rows(UseRow, read_log(log), log), read_protocol(PROTOCOL))))


if __name__ == "__main__":
    main()

"""Which strength of entropy scaling? `strength="auto"` beside off, and beside asking for one object more.

    python examples/evaluations/sizes/strength.py outputs/strength-dev --number 40 --strengths 4,8,16
    python examples/evaluations/sizes/strength.py outputs/strength-test --split test --rows
        examples/evaluations/sizes/strength_rows.csv --results examples/evaluations/sizes/strength_results.md
    python examples/evaluations/sizes/strength.py outputs/above --split test --sizes 192x192,256x128,192x320,256x256
        --methods plain,entropy_auto,deep_shrink,two_pass --without-control
        --protocol examples/evaluations/sizes/above_protocol.json
    python examples/evaluations/sizes/strength.py outputs/combined --split test --sizes 192x192,256x128,192x320,256x256
        --methods "plain,deep_shrink + scaling,two_pass + scaling" --without-control --parts 2
        --protocol examples/evaluations/sizes/above_protocol.json --beside examples/evaluations/sizes/above_rows.csv

Stopped at any moment, it goes on where it was. The prompts are drawn in parts of 40; `--parts 3` ends after three of
them, and the tables are of the parts that are done. "one more" is a control: below the native size plain draws too few,
so a prompt that asks for n + 1 objects is counted against n. "held" gives each layer, in each step, the gain with which
its normalized entropy is what it is at the native size: if entropy were the cause, counts would change with it. What is
claimed stands in strength_protocol.json, written before the test split was run, with seeds of its own.
"""

import argparse
import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from diffusers import DiffusionPipeline
from held_entropy import held
from PIL import Image
from size_scenes import COUNTS, OBJECTS, benchmark, calibrated, draft_judge

import t2i_tools as t2i
from t2i_tools.bundled import BUNDLED_GUIDANCE
from t2i_tools.evaluation import GENERATORS, Manifest, Openers, Settings, Store, counts_rows, make_items, settle
from t2i_tools.evaluation.count_benchmark import prompt
from t2i_tools.evaluation.reports.protocol import log_test_run
from t2i_tools.evaluation.rows_io import write_text
from t2i_tools.evaluation.runs.fingerprint import detector_fingerprint, pipeline_fingerprint
from t2i_tools.evaluation.runs.generators import Method, scaled
from t2i_tools.evaluation.runs.items import Item
from t2i_tools.evaluation.runs.runner import run_shard
from t2i_tools.evaluation.studies.size_study import columns_of, fitting, to_markdown
from t2i_tools.images.sizes import format_size, parse_size
from t2i_tools.metrics import FIGURES, paired_bootstrap, paired_shares, share
from t2i_tools.metrics.objects import COLUMNS
from t2i_tools.workflows.detectors import pipeline_on
from t2i_tools.workflows.open_model import ModelOptions
from t2i_tools.workflows.progress import batch_progress

SIZES = "64x64,96x96,112x112,128x64"
STEPS, PART = 10, 40  # a part is a batch of each method and size
FRESH = {"dev": 2**41, "test": 2**42}  # seeds that no earlier evaluation has used
DRAW = 2**20  # seeds from one draw of the prompts to the next
PROTOCOL = Path(__file__).with_name("strength_protocol.json")
ONE_MORE = "one more"
LAYERS = {"": None, "-first": r"^(down_blocks\.0|up_blocks\.2)", "-deep": r"^(down_blocks\.[12]|mid|up_blocks\.[01])"}
SCALE = {"exact": 100, "recognized": 100, "found": 1, "MAE": 1}


def scaled_as_well(method: Method, pipe: DiffusionPipeline, items: Sequence[Item]) -> list[Image.Image]:
    """A method with entropy scaling on top."""
    with t2i.entropy_scaling(pipe, strength="auto"):
        return method(pipe, items)


WITH_SCALING = {f"{name} + scaling": partial(scaled_as_well, GENERATORS[name]) for name in ("deep_shrink", "two_pass")}


def asked_rows(split: str, number: int | None, draw: int = 0) -> tuple[list[dict], list[dict]]:
    """The prompts of a split with the seeds of a draw, and the same that ask for one object more."""
    bench = benchmark(split)
    every = counts_rows(bench, split, COUNTS)
    chosen = counts_rows(bench, split, COUNTS, number)
    first, drawing = every[0]["seed"], {"steps": STEPS, "guidance": BUNDLED_GUIDANCE}
    rows = [{**row, **drawing, "seed": FRESH[split] + DRAW * draw + row["seed"] - first} for row in chosen]
    scenes = [bench.scenes[(row["seed"] - first) % len(bench.scenes)] for row in chosen]
    more = [
        {**row, "prompt": prompt(bench, row["label"], row["count"] + 1, scene)}
        for row, scene in zip(rows, scenes, strict=True)
    ]
    return rows, more


def table_of(rows: list[dict], split: str, sizes: list) -> list[dict]:
    """One dict per image: size, method, unit (the prompt's place), what was asked for and what the judge found."""
    judge, found = draft_judge(), []
    for size in sizes:
        here = [row for row in rows if tuple(row["size"]) == size]
        judges = [calibrated(judge, size, split, kind) for kind in OBJECTS]
        plain = [row for row in here if row["method"] == "plain" and not row["more"]]
        threshold = fitting(judges, plain).threshold
        for row, columns in zip(here, columns_of(here, threshold).tolist(), strict=True):
            seen = dict(zip(COLUMNS, columns, strict=True))
            one = {"size": format_size(size), "method": ONE_MORE if row["more"] else row["method"]}
            one |= {"unit": row["seed"] - FRESH[split], "label": row["label"]}
            one |= {name: int(seen[name]) for name in ("asked", "found", "recognized", "objects", "cut")}
            found.append(one | {"area": round(seen["area"])})
    return found


def beside(table: list[dict], path: Path) -> list[dict]:
    """The rows of an earlier run on the same prompts and sizes, then those of the table that it lacks."""
    with path.open(encoding="utf-8") as file:
        rows = [
            {k: v if k in ("size", "method", "label") else int(v) for k, v in row.items()}
            for row in csv.DictReader(file)
        ]
    here = {(row["size"], row["unit"]) for row in table}
    rows = [row for row in rows if (row["size"], row["unit"]) in here]
    known = {row["method"] for row in rows}
    return rows + [row for row in table if row["method"] not in known]


def as_columns(table: list[dict]) -> dict[tuple[str, int], np.ndarray]:
    """(size, unit) -> recognized, exact, found, asked, cut, area, objects, and the miss |found - asked|."""
    return {
        (r["size"], r["unit"]): np.array(
            [r["recognized"], r["found"] == r["asked"], r["found"], r["asked"], r["cut"], r["area"], r["objects"]]
            + [abs(r["found"] - r["asked"])],
            dtype=float,
        )
        for r in table
    }


def difference(ours: dict, theirs: dict, figure: str):
    """The interval of a figure's difference over common pairs; prompts are resampled."""
    both = sorted(ours.keys() & theirs.keys())
    a, b, units = np.stack([ours[k] for k in both]), np.stack([theirs[k] for k in both]), [k[1] for k in both]
    if figure in ("exact", "recognized"):
        column = COLUMNS.index(figure)
        return paired_shares(a[:, column], b[:, column], units)
    if figure == "MAE":
        return paired_bootstrap(a[:, -1], b[:, -1], units)
    return paired_bootstrap(a, b, units, statistic=FIGURES[figure])


def summarized(table: list[dict]) -> list[dict[str, str]]:
    """A row per size and method, and "all" sizes together; in brackets the difference from plain."""
    sizes, methods = (list(dict.fromkeys(row[name] for row in table)) for name in ("size", "method"))
    out = []
    for size in [*sizes, "all"]:
        kept = [row for row in table if size in (row["size"], "all")]
        plain = as_columns([row for row in kept if row["method"] == "plain"])
        for method in methods:
            mine = as_columns([row for row in kept if row["method"] == method])
            if not mine:
                continue
            values, units = np.stack(list(mine.values())), [unit for _, unit in mine]
            row = {"size": size, "method": method, "n": str(len(mine))}
            row["exact"] = str(share(values[:, COLUMNS.index("exact")], units))
            row["MAE"] = f"{values[:, -1].mean():.3f}"
            row["duplication"] = f"{FIGURES['duplication'](values.mean(0)):+.3f}"
            row["cut"] = f"{FIGURES['cut'](values.mean(0)):.3f}"
            row["recognized"] = f"{values[:, 0].mean():.3f}"
            if method != "plain":
                for name in ("exact", "MAE", "duplication", "recognized"):
                    row[f"{name} - plain"] = signed(difference(mine, plain, name))
            out.append(row)
    names = dict.fromkeys(name for row in out for name in row)
    return [{name: row.get(name, "-") for name in names} for row in out]


def signed(interval) -> str:
    """An interval of a difference."""
    return f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def claims(table: list[dict], method: str = "entropy_auto") -> list[str]:
    """What the protocol says, each reached or missed."""
    by = {name: as_columns([r for r in table if r["method"] == name]) for name in (method, "plain", ONE_MORE)}
    gain, over = difference(by[method], by["plain"], "exact"), difference(by[method], by[ONE_MORE], "exact")
    known = difference(by[method], by["plain"], "recognized")
    word = {True: "reached", False: "missed"}
    return [
        f"1. exact counts, auto - off, all sizes: {signed(gain)}: bound above 0 {word[gain.low > 0]}",
        f"2. exact counts, auto - one more: {signed(over)}: bound above 0 {word[over.low > 0]}",
        f"3. classes recognized, auto - off: {signed(known)}: within 2 points {word[known.low > -0.02]}",
    ]


def drawn(folder: Path, items: list, split: str, protocol: Path) -> list[dict]:
    """The finished rows of an evaluation's folder."""
    manifest = Manifest(
        items,
        Settings(batch=PART),
        model={"name": "bundled", "fingerprint": pipeline_fingerprint(t2i.load_bundled())},
        judge={"name": "bundled, small images enlarged", "fingerprint": detector_fingerprint(draft_judge())},
        about={"benchmark": "strength-bundled", "split": split},
    )
    settle(folder, manifest)
    if split == "test":
        log_test_run(protocol, folder, manifest.digest())
    models = Openers(judge=lambda device=None: draft_judge(), pipeline=partial(pipeline_on, ModelOptions()))
    with batch_progress(True) as on_batch:
        run_shard(folder, models, on_batch=on_batch)
    return list(Store(folder).write_merged())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--strengths", default="", help="strengths to try on dev, such as 4,16-first,16-deep")
    parser.add_argument("--methods", default="plain,entropy_auto", help=f"of {', '.join(GENERATORS)}, held")
    parser.add_argument("--number", type=int, help="so many prompts, not all")
    parser.add_argument("--parts", type=int, help="so many parts of 40 prompts, not all")
    parser.add_argument("--draw", type=int, default=0, help="draw the same prompts anew, with seeds of their own")
    parser.add_argument("--without-control", action="store_true")
    parser.add_argument("--protocol", type=Path, default=PROTOCOL, help="what was claimed of the test split")
    parser.add_argument("--rows", type=Path, help="where to write what was found in each image, as CSV")
    parser.add_argument("--results", type=Path, help="where to write the tables")
    parser.add_argument(
        "--beside", type=Path, help="CSV of an earlier run, whose rows of the same prompts stand beside"
    )
    args = parser.parse_args()
    GENERATORS.update({"held": held, **WITH_SCALING})
    tried = []
    for name in filter(None, args.strengths.split(",")):
        strength, _, part = name.partition("-") if not name.startswith("-") else (name, "", "")
        options = {"strength": float(strength), "layers": LAYERS[f"-{part}" if part else ""]}
        GENERATORS[f"strength {name}"] = partial(scaled, **options)
        tried.append(f"strength {name}")
    sizes = [parse_size(size) for size in args.sizes.split(",")]
    rows, more = asked_rows(args.split, args.number, args.draw)
    order, done = np.random.default_rng(0).permutation(len(rows)), []
    parts = [sorted(order[start : start + PART].tolist()) for start in range(0, len(order), PART)][: args.parts]
    for number, part in enumerate(parts):
        asked, control = ([some[i] for i in part] for some in (rows, more))
        items = make_items(asked, [*args.methods.split(","), *tried], sizes)
        items += [] if args.without_control else make_items(control, ["plain"], sizes)
        asking = {(row["prompt"], row["seed"]) for row in asked}
        found = drawn(args.folder / f"part-{number + 1}", items, args.split, args.protocol)
        done += [{**row, "more": (row["prompt"], row["seed"]) not in asking} for row in found]
    failed = [row for row in done if row["status"] != "ok"]
    if failed:
        raise SystemExit(
            f"{len(failed)} of {len(done)} images could not be drawn, the first by {failed[0]['method']}: "
            f"{failed[0]['error']}. Mend that, delete their batches in the folder, and run the same command again"
        )
    table = table_of(done, args.split, sizes)
    if args.rows:
        with args.rows.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    if args.beside:
        table = beside(table, args.beside)
    told = to_markdown(summarized(table))
    if {"entropy_auto", ONE_MORE} <= {row["method"] for row in table}:
        told = "\n".join(claims(table)) + "\n\n" + told
    head = f"# Strength, {args.split} split, {sum(map(len, parts))} prompts, {STEPS} steps\n\n"
    write_text(args.results or args.folder / "strength.md", head + told + "\n")
    print(told)


if __name__ == "__main__":
    main()

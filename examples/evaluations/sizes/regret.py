"""What the advice of `t2i advise` costs, on prompts that it does not rest on.

    python examples/evaluations/sizes/regret.py examples/evaluations/sizes/strength_rows.csv
        examples/evaluations/sizes/above_rows.csv

The prompts are split in two at random once. The evidence of one half, all sizes together, advises a method at each of
them; its loss is the share of exact counts of the best method on the other half, less the advised one's, on that other
half. Then the halves change places, so that every prompt is judged once. "Best" is the best as drawn, which chance
favors: the loss is rather too large than too small. What is claimed stands in above_protocol.json.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from t2i_tools.evaluation.studies.advice import CONTROLS, OFF, OPTIONS, Evidence, Point, advise
from t2i_tools.evaluation.studies.size_study import to_markdown
from t2i_tools.images.sizes import parse_size
from t2i_tools.metrics import paired_bootstrap, paired_shares, share

NATIVE = (128, 128)
MOST = 0.06

Exact = dict[str, dict[str, dict[int, float]]]  # size -> method -> prompt -> whether its image is exact


def read(paths: list[Path]) -> Exact:
    """What the judge said of each image by a method that may be advised."""
    exact: Exact = {}
    for path in paths:
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["method"] in OPTIONS:
                    hit = row["found"] == row["asked"]
                    exact.setdefault(row["size"], {}).setdefault(row["method"], {})[int(row["unit"])] = float(hit)
    return exact


def evidence_of(exact: Exact, prompts: set[int]) -> Evidence:
    """The evidence of these prompts alone."""
    points = []
    for size, methods in exact.items():
        units = sorted(prompts & methods[OFF].keys())
        plain = np.array([methods[OFF][unit] for unit in units])
        for method, hits in methods.items():
            ours = np.array([hits[unit] for unit in units])
            difference = None if method == OFF else paired_shares(ours, plain, units)
            points.append(Point(parse_size(size), method, share(ours, units), difference))
    return Evidence("bundled", "", NATIVE, "test", len(prompts), points)


def judged(exact: Exact, advising: set[int], judging: set[int]) -> list[dict]:
    """One dict per size: what half of the prompts advises, and what that loses on each prompt of the other half."""
    evidence, rows = evidence_of(exact, advising), []
    for size, methods in exact.items():
        units = sorted(judging & methods[OFF].keys())
        means = {method: np.mean([hits[unit] for unit in units]) for method, hits in methods.items()}
        best, advised = max(means, key=means.__getitem__), advise(evidence, parse_size(size), NATIVE).method
        if advised is None:
            raise SystemExit(f"{size} has evidence, and no advice")
        lost = [methods[best][unit] - methods[advised][unit] for unit in units]
        rows.append({"size": size, "advised": advised, "best": best, "units": units, "lost": lost})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="+", help="CSV files of strength.py")
    exact = read(parser.parse_args().rows)
    prompts = sorted({unit for methods in exact.values() for unit in methods[OFF]})
    # Not of seed 0, as the protocol says: that is the order in which strength.py draws its parts.
    mixed = np.random.default_rng(1).permutation(prompts).tolist()
    halves = set(mixed[: len(mixed) // 2]), set(mixed[len(mixed) // 2 :])
    rows = [*judged(exact, *halves), *judged(exact, *reversed(halves))]
    lost, units = [x for row in rows for x in row["lost"]], [x for row in rows for x in row["units"]]
    loss = paired_bootstrap(np.array(lost), np.zeros(len(lost)), units)
    controls = sum(row["advised"] in CONTROLS for row in rows)
    word = {True: "reached", False: "missed"}
    print(f"loss in exact counts, {len(lost)} images of {len(prompts)} prompts: {loss.estimate:.3f} ", end="")
    print(f"[{loss.low:.3f}, {loss.high:.3f}], at most {MOST} {word[loss.high <= MOST]}; ", end="")
    print(f"controls advised: {controls}, none {word[controls == 0]}\n")
    print(to_markdown([told(row) for row in sorted(rows, key=lambda row: row["size"])]))


def told(row: dict) -> dict[str, str]:
    """A row of the table."""
    loss = f"{np.mean(row['lost']):.3f}"
    return {
        "size": row["size"],
        "advised": row["advised"],
        "best": row["best"],
        "n": str(len(row["lost"])),
        "loss": loss,
    }


if __name__ == "__main__":
    main()

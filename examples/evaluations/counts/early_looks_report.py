"""The tables of `early_looks.py` from its rows, each claim of protocol_looks.json printed as reached or missed.

    python examples/evaluations/counts/early_looks_report.py examples/evaluations/counts/rows_looks.jsonl

Pairs share class, number and seed; only those with a row of both methods count. Two intervals stand beside each
figure: over cells (class and number) as if drawn at random, by which a claim is reached or missed, and over the seeds
within the cells as they are.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from t2i_tools.evaluation.row_types import typed_rows
from t2i_tools.evaluation.rows_io import read_log
from t2i_tools.evaluation.studies.rows import BriefSearchRow
from t2i_tools.evaluation.studies.search_study import judged_at
from t2i_tools.metrics import Interval, cluster_bootstrap, paired_shares, stratified_bootstrap

Pair = tuple[BriefSearchRow, BriefSearchRow]
OURS, RIVAL, WITHOUT = "search with looks", "best_of with looks", "best_of"
UNSOLVED = 16.0
WHOLE = (
    f"exact after 16, less {RIVAL}",
    f"images' worth per pair, over {RIVAL}",
    f"images' worth per pair, over {WITHOUT} without looks",
)


def is_exact(row: BriefSearchRow, budget: float = np.inf) -> bool:
    """Whether the judge counts the right number in the best image there is once the budget is spent."""
    return judged_at(row, budget) == row["count"]


def spent(row: BriefSearchRow) -> float:
    """Images' worth until the end, UNSOLVED where the judge does not find the number then."""
    return row["images"] if row["judged"] == row["count"] else UNSOLVED


def is_plain_wrong(row: BriefSearchRow) -> bool:
    """Whether the judge finds another number in the plain image, the first of the curve."""
    return row["curve"][0][1] != row["count"]


def in_place(row: BriefSearchRow) -> float:
    """Share of the plain image's objects still in place; none where the pair was not solved."""
    return (row["kept"] or 0.0) if row["judged"] == row["count"] else 0.0


def cell(row: BriefSearchRow) -> tuple[str, int]:
    return row["label"], row["count"]


def pairs_of(rows: Iterable[BriefSearchRow], ours: str, rival: str) -> list[Pair]:
    """The rows of both methods for the keys that have both."""
    mine, theirs = ({row["key"]: row for row in rows if row["method"] == name} for name in (ours, rival))
    return [(row, theirs[key]) for key, row in mine.items() if key in theirs]


def difference(
    pairs: Sequence[Pair], figure: Callable[[BriefSearchRow], float], *, shares: bool = False
) -> tuple[Interval, ...]:
    """Mean of figure(ours) - figure(rival), over cells and within cells. shares: of right or wrong."""
    a, b = (np.array([float(figure(row)) for row in side]) for side in zip(*pairs, strict=True))
    cells = [cell(ours) for ours, _ in pairs]
    over = paired_shares(a, b, cells) if shares else cluster_bootstrap(a - b, cells)
    return over, within(a - b, cells)


def ratio(pairs: Sequence[Pair], figure: Callable[[BriefSearchRow], float]) -> tuple[Interval, ...]:
    """Mean of figure(ours) over that of figure(rival)."""
    columns = np.array([[figure(ours), figure(rival)] for ours, rival in pairs])
    cells = [cell(ours) for ours, _ in pairs]

    def over(means: np.ndarray) -> np.ndarray:
        return means[..., 0] / means[..., 1]

    return cluster_bootstrap(columns, cells, statistic=over), within(columns, cells, statistic=over)


def within(values: np.ndarray, cells: Sequence[Any], **more: Any) -> Interval:
    """Over the rows of each cell; cells of a single row are left out."""
    names = list(map(str, cells))
    keep = np.array([names.count(name) > 1 for name in names])
    if not keep.any():
        return Interval(np.nan, np.nan, np.nan, 0.95, 0)
    return stratified_bootstrap(values[keep], [name for name, one in zip(names, keep, strict=True) if one], **more)


def line(what: str, n: int, figures: Sequence[Interval], reached: bool | None = None) -> str:
    """A line of the table."""
    over, inside = figures
    verdict = "reported" if reached is None else "reached" if reached else "missed"
    return f"| {what} | {n} | {over} | [{inside.low:.3f}, {inside.high:.3f}] | {verdict} |"


def claims(rows: Sequence[BriefSearchRow], budget: float) -> list[str]:
    """Every prong of the protocol. budget: of the run; what needs more is printed as not run."""
    table = [
        "| what | pairs | figure, interval over cells | over seeds within cells | |",
        "| --- | --- | --- | --- | --- |",
    ]
    many = [row for row in rows if row["count"] >= 4]
    pairs = pairs_of(many, OURS, RIVAL)
    for spent_by in (3, 4):
        found = difference(pairs, lambda row, spent_by=spent_by: is_exact(row, spent_by), shares=True)
        table.append(
            line(
                f"exact after {spent_by}, less {RIVAL}", len(pairs), found, found[0].low > 0 if spent_by == 3 else None
            )
        )
    table += whole_budget(many, pairs) if budget >= UNSOLVED else [f"| {what} | 0 | | | not run |" for what in WHOLE]
    wrong = [pair for pair in pairs if is_plain_wrong(pair[0])]
    for what, figure in {
        "objects still in place, solved": in_place,
        "solved on the plain seed": lambda row: float(row["same_seed"] and row["judged"] == row["count"]),
        "CLIP-I to the plain image": lambda row: float(row["similarity"]),
    }.items():
        found = difference(wrong, figure)
        table.append(line(f"plain wrong: {what}, less {RIVAL}", len(wrong), found, found[0].low > 0))
    if few := pairs_of([row for row in rows if row["count"] in (2, 3)], OURS, RIVAL):
        found = difference(few, lambda row: is_exact(row, 4), shares=True)
        table.append(line(f"n = 2, 3: exact after 4, less {RIVAL}", len(few), found, found[0].low > -0.05))
    else:
        table.append(f"| n = 2, 3: exact after 4, less {RIVAL} | 0 | | | not run |")
    return table


def whole_budget(rows: Sequence[BriefSearchRow], pairs: Sequence[Pair]) -> list[str]:
    """The prongs of WHOLE, which need a budget of 16."""
    found = difference(pairs, is_exact, shares=True)
    table = [line(WHOLE[0], len(pairs), found, found[0].low > -0.02)]
    found = ratio(pairs, spent)
    table.append(line(WHOLE[1], len(pairs), found, found[0].high < 1))
    if plain := pairs_of(rows, OURS, WITHOUT):
        found = ratio(plain, spent)
        table.append(line(WHOLE[2], len(plain), found, found[0].high <= 0.85))
    else:
        table.append(f"| {WHOLE[2]} | 0 | | | not run |")
    return table


def methods(rows: Sequence[BriefSearchRow], what: str, budget: float) -> list[str]:
    """Each method by itself."""
    budgets = [one for one in (1, 2, 3, 4, 6, 8, 16) if one <= budget]
    head = [f"exact after {one}" for one in budgets]
    table = [f"| {what} | pairs | {' | '.join(head)} | images' worth | in place | on the plain seed | CLIP-I |"]
    table.append("| --- " * (len(head) + 6) + "|")
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        wrong = [row for row in mine if is_plain_wrong(row)]
        solved = [row["same_seed"] and row["judged"] == row["count"] for row in wrong]
        figures = [percent([is_exact(row, one) for row in mine]) for one in budgets]
        figures += [
            f"{np.mean([row['images'] for row in mine]):.2f}",
            f"{np.mean([in_place(row) for row in wrong]):.2f}",
        ]
        figures += [percent(solved), f"{np.mean([row['similarity'] for row in wrong]):.3f}"]
        table.append(f"| {name} | {len(mine)} | {' | '.join(figures)} |")
    return table


def percent(right: Sequence[bool]) -> str:
    return f"{100 * np.mean(right):.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="a folder of .jsonl files, or one of them")
    parser.add_argument("--budget", type=float, default=4, help="of the run")
    options = parser.parse_args()
    place, budget = options.rows, options.budget
    files = [place] if place.is_file() else sorted(place.glob("*.jsonl"))
    rows = [row for path in files for row in typed_rows(BriefSearchRow, read_log(path), path)]
    print("\n".join(claims(rows, budget)), "\n")
    print("\n".join(methods([row for row in rows if row["count"] >= 4], "n >= 4", budget)), "\n")
    if few := [row for row in rows if row["count"] < 4]:
        print("\n".join(methods(few, "n = 2, 3", budget)))


if __name__ == "__main__":
    main()

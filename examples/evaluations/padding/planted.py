"""The verdict's thresholds on graded planted models, from what the trained cells' images scored.

    python examples/evaluations/padding/planted.py examples/evaluations/padding/results

A model of U is planted so: of each of 16 prompts drawn from a cell's rows the padding alone scores as the image with
the right rows does in a share U of the cases, and as the empty prompt's image in the others. For similarity "the right
rows" are the prompt's own rows alone, since no other image equals the full one. 20 draws per U, metric and cell; writes
planted.md: the mean U found, and how often the padding is said to carry the prompt.
"""

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np

from t2i_tools.evaluation.rows_io import write_text
from t2i_tools.evaluation.studies.size_study import to_markdown
from t2i_tools.padding.formula import THRESHOLDS, decide

SHARES, SEEDS, PROMPTS = (0.1, 0.3, 0.5, 0.7, 0.9), range(20), 16


def planted(cell: dict, metric: str, share: float, seed: int):
    """The verdict on one planted model by one metric."""
    rng = np.random.default_rng([seed, round(100 * share)])
    chosen = rng.permutation(len(cell["prompts"]))[:PROMPTS]
    score = {name: np.array(cell[name][metric])[chosen] for name in ("plain full", "encoder prompt", "encoder clean")}
    right = rng.random(PROMPTS) < share
    scores = {"full": score["plain full"], "prompt": score["encoder prompt"], "clean": score["encoder clean"]}
    scores["pads"] = np.where(right, score["encoder prompt"], score["encoder clean"])
    scores["swapped"] = score["encoder clean"]
    return decide({metric: {"encoder": scores, "diffusion": scores}}, chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the folder of CELL.json")
    folder = parser.parse_args().results
    rows = []
    for file, metric in product(sorted(folder.glob("*.json")), THRESHOLDS):
        cell = json.loads(file.read_text(encoding="utf-8"))
        for share in SHARES:
            found = [planted(cell, metric, share, seed) for seed in SEEDS]
            words = [one.carries.word for one in found]
            estimate = np.mean([one.use[metric]["encoder"].estimate for one in found])
            row = {"model": file.stem, "metric": metric, "threshold": THRESHOLDS[metric], "planted U": share}
            rows.append(row | {"found U": f"{estimate:.2f}"} | {w: words.count(w) for w in ("yes", "undecided", "no")})
    head = f"# The verdict on graded planted models, {PROMPTS} prompts, {len(SEEDS)} draws per line\n\n"
    write_text(folder / "planted.md", head + to_markdown(rows) + "\n")
    print(to_markdown(rows))


if __name__ == "__main__":
    main()

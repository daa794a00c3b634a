"""Add to the evidence of `t2i advise` what strength.py found of methods and sizes that it does not hold yet.

    python examples/evaluations/sizes/add_evidence.py t2i_tools/bundled/sizes.json
        examples/evaluations/sizes/strength_rows.csv examples/evaluations/sizes/above_rows.csv

Each method's difference from off is that of its own run, whose prompts and seeds both share.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from regret import evidence_of, read

from t2i_tools.evaluation.studies.advice import OFF, read_evidence, write_evidence
from t2i_tools.images.sizes import format_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evidence", type=Path)
    parser.add_argument("rows", type=Path, nargs="+", help="CSV files of strength.py")
    args = parser.parse_args()
    evidence, exact = read_evidence(args.evidence), read(args.rows)
    prompts = {unit for methods in exact.values() for unit in methods[OFF]}
    known = {(point.size, point.method) for point in evidence.points}
    added = [point for point in evidence_of(exact, prompts).points if (point.size, point.method) not in known]
    write_evidence(args.evidence, replace(evidence, points=[*evidence.points, *added]))
    for point in added:
        print(f"{format_size(point.size)} {point.method}: exact {point.exact}, from off {point.difference}")


if __name__ == "__main__":
    main()

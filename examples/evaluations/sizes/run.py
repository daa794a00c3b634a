"""How well the bundled model draws at sizes that are not its own, off | entropy scaling | its controls | two passes.

    python examples/evaluations/sizes/run.py outputs/sizes --split dev --number 16 --sizes 64x64,256x256
    python examples/evaluations/sizes/run.py outputs/sizes-test --split test --evidence t2i_tools/bundled/sizes.json
    python examples/evaluations/sizes/run.py outputs/others --sizes 160x160,224x224
        --advised-by t2i_tools/bundled/sizes.json

Stopped at any moment, it goes on where it was; all of the test split takes three hours of one core, half of it with
--steps 10. Writes sizes.md (the claim, every figure, the judge at each size, what the advice would lose at a size held
out, or loses at these sizes where it rests on others) and the evidence for `t2i advise`. What is claimed stands in
protocol.json, written before the test split was run.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

from size_figures import summary
from size_scenes import COUNTS, OBJECTS, benchmark, calibrated, draft_judge

import t2i_tools as t2i
from t2i_tools.bundled import BUNDLED_GUIDANCE, BUNDLED_STEPS
from t2i_tools.evaluation import (
    GENERATORS,
    Manifest,
    Openers,
    Settings,
    Store,
    counts_rows,
    make_items,
    read_protocol,
    settle,
)
from t2i_tools.evaluation.reports.protocol import log_test_run
from t2i_tools.evaluation.rows_io import write_text
from t2i_tools.evaluation.runs.engines import run_processes
from t2i_tools.evaluation.runs.fingerprint import detector_fingerprint, pipeline_fingerprint
from t2i_tools.evaluation.runs.rows import asked_size
from t2i_tools.evaluation.studies.advice import Evidence, held_out, losses, points_of, read_evidence, write_evidence
from t2i_tools.evaluation.studies.size_study import correct, figures_table, primary, to_markdown
from t2i_tools.images.sizes import format_size, parse_size
from t2i_tools.workflows.detectors import pipeline_on
from t2i_tools.workflows.open_model import ModelOptions
from t2i_tools.workflows.progress import batch_progress

NATIVE = (128, 128)
SIZES = "64x64,96x96,128x64,128x128,192x192,256x256,256x128,192x320"
CLAIMED = "entropy_scaling"
PROTOCOL = Path(__file__).with_name("protocol.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--methods", default=",".join(GENERATORS))
    parser.add_argument("--number", type=int, help="so many prompts, not all")
    parser.add_argument("--steps", type=int, default=BUNDLED_STEPS)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--advised-by", type=Path, help="evidence from other sizes, whose advice is to be tested here")
    parser.add_argument("--evidence", type=Path, help="where to write it for `t2i advise`; test split only")
    args = parser.parse_args()
    if args.evidence and args.split != "test":
        parser.error("--evidence is what the test split gives: add --split test")
    sizes, methods = [parse_size(size) for size in args.sizes.split(",")], args.methods.split(",")
    others = [size for size in sizes if size != NATIVE]
    if not (others and {"plain", CLAIMED} <= set(methods) <= set(GENERATORS)):
        parser.error(
            f"give a size besides {format_size(NATIVE)}; plain, {CLAIMED} and others of {', '.join(GENERATORS)}"
        )

    pipe, judge = t2i.load_bundled(), draft_judge()
    prompts = counts_rows(benchmark(args.split), args.split, COUNTS, args.number)
    rows = [{"steps": args.steps, "guidance": BUNDLED_GUIDANCE, **row} for row in prompts]
    # At the native size all methods make the same image.
    items = [*make_items(rows, sizes=[NATIVE]), *make_items(rows, methods, others)]
    fingerprint = pipeline_fingerprint(pipe)
    manifest = Manifest(
        items,
        Settings(),
        model={"name": "bundled", "fingerprint": fingerprint},
        judge={"name": "bundled, small pictures enlarged", "fingerprint": detector_fingerprint(judge)},
        about={"benchmark": "sizes-bundled", "split": args.split},
    )
    settle(args.folder, manifest)
    if args.split == "test":
        log_test_run(PROTOCOL, args.folder, manifest.digest())
    models = Openers(judge=draft_judge, pipeline=partial(pipeline_on, ModelOptions()))
    with batch_progress(True) as on_batch:
        run_processes(args.folder, models, args.workers, on_batch=on_batch)
    done = Store(args.folder).write_merged()

    rule = replace(read_protocol(PROTOCOL), split=args.split)
    here = {size: [row for row in done if asked_size(row) == size] for size in [NATIVE, *others]}
    judges = {size: {kind: calibrated(judge, size, args.split, kind) for kind in OBJECTS} for size in here}
    found = {
        size: summary(args.folder, args.split, size, rows, prompts, judges[size], rule) for size, rows in here.items()
    }
    summaries = {size: figures for size, (figures, _) in found.items()}
    summaries = correct(summaries)
    claimed = primary({size: (here[size], found[size][1]) for size in others}, CLAIMED, rule)
    evidence = Evidence("bundled", fingerprint, NATIVE, args.split, len(prompts), points_of(summaries))
    calibration = [
        {"size": format_size(size), "scenes": kind, "threshold": one.threshold, "judge exact": str(one.exact)}
        for size, kinds in judges.items()
        for kind, one in kinds.items()
    ]
    advised = losses(read_evidence(args.advised_by), evidence) if args.advised_by else held_out(evidence)
    tables = figures_table(summaries), calibration, advised
    claim = f"{CLAIMED} - plain, exact, all sizes but the native: {claimed.difference}, p {claimed.p:.3f}, "
    claim += f"{'' if claimed.equivalent else 'not '}equivalent within {rule.margin}"
    write_text(args.folder / "sizes.md", "\n\n".join([claim, *map(to_markdown, tables)]) + "\n")
    write_evidence(args.evidence or args.folder / "evidence.json", evidence)
    print((args.folder / "sizes.md").read_text())


if __name__ == "__main__":
    main()

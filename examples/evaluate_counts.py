"""How often the bundled model draws the count it was asked for: `t2i evaluate counts` as ten lines of library.

    python examples/evaluate_counts.py outputs/counts --number 48

Stopped at any moment, it goes on where it was. The report is outputs/counts/report.html.
"""

import argparse
from pathlib import Path

import t2i_tools as t2i
from t2i_tools.cli.planning import bundled_benchmark
from t2i_tools.default import DEFAULT_GUIDANCE, DEFAULT_STEPS
from t2i_tools.evaluation import Manifest, Models, Settings, Store, counts_rows, make_items, run_shard, settle
from t2i_tools.evaluation import write_report as report
from t2i_tools.evaluation.fingerprint import detector_fingerprint, pipeline_fingerprint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--number", type=int, help="so many prompts, not all")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    pipe, judge = t2i.load_default(), t2i.load_default_judge()
    pipe.set_progress_bar_config(disable=True)
    prompts = counts_rows(bundled_benchmark("dev"), "dev", number=options.number)
    manifest = Manifest(
        make_items([{"steps": DEFAULT_STEPS, "guidance": DEFAULT_GUIDANCE, **row} for row in prompts]),
        Settings(threads=options.threads),
        model={"name": "bundled", "fingerprint": pipeline_fingerprint(pipe)},
        judge={"name": "bundled", "fingerprint": detector_fingerprint(judge)},
        about={"benchmark": "counts-bundled", "split": "dev"},
    )
    settle(options.folder, manifest)
    run_shard(
        options.folder,
        Models(pipeline=lambda device: pipe, judge=lambda device: judge),
        on_batch=lambda stage, done, total: print(f"{stage} {done} of {total}", flush=True),
    )
    print(report(options.folder, Store(options.folder).write_merged()))


if __name__ == "__main__":
    main()

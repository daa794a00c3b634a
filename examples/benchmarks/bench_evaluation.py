"""What resumable batches cost: the evaluation's generate stage against a bare loop over the pipeline.

    python examples/benchmarks/bench_evaluation.py --items 64

Both make the same batches of the bundled model by turns, in seconds of processor time, which other programs on the
machine do not stretch; a share of 1 means that nothing is lost.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

import t2i_tools as t2i
from t2i_tools.evaluation import Manifest, Openers, Settings, Store, counts_rows, make_items, settle
from t2i_tools.evaluation.runs.fingerprint import detector_fingerprint, pipeline_fingerprint
from t2i_tools.evaluation.runs.runner import fixed_machine, run_batch
from t2i_tools.evaluation.runs.stages import open_stage
from t2i_tools.workflows.evaluation_plan import bundled_benchmark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()

    pipe, judge = t2i.load_bundled(), t2i.load_bundled_judge()
    pipe.set_progress_bar_config(disable=True)
    rows = counts_rows(bundled_benchmark("dev"), "dev", number=options.items)
    items = make_items([{"steps": options.steps, "guidance": 3.0, **row} for row in rows])
    manifest = Manifest(
        items,
        Settings(),
        model={"name": "bundled_judge", "fingerprint": pipeline_fingerprint(pipe)},
        judge={"name": "bundled_judge", "fingerprint": detector_fingerprint(judge)},
    )
    ours, bare = 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder, fixed_machine(manifest.settings):
        settle(folder, manifest)
        store = Store(folder)
        work = open_stage("generate", store, Openers(pipeline=lambda _: pipe, judge=lambda _: judge))
        for batch in range(len(manifest.batches)):
            start = time.process_time()
            loop(pipe, store.items(batch), Path(folder) / "bare")
            middle = time.process_time()
            run_batch(store, "generate", batch, work)
            bare, ours = bare + middle - start, ours + time.process_time() - middle
    print(f"{len(items)} items: bare loop {bare:.1f} s, evaluation {ours:.1f} s, throughput {bare / ours:.3f}x")


def loop(pipe, items, folder: Path) -> None:
    """What one would write without an evaluation: a call, and the images saved."""
    folder.mkdir(exist_ok=True)
    generators = [torch.Generator().manual_seed(item.seed) for item in items]
    images = pipe(
        [item.prompt for item in items],
        generator=generators,
        num_inference_steps=items[0].steps,
        guidance_scale=items[0].guidance,
    ).images
    for item, image in zip(items, images, strict=True):
        image.save(folder / f"{item.seed}.png")


if __name__ == "__main__":
    main()

"""Puts the folders of several shards together."""

from collections.abc import Sequence
from pathlib import Path

from t2i_tools.errors import InputError
from t2i_tools.evaluation.rows_io import append_row, copy_file, read_log
from t2i_tools.evaluation.runs.manifest import read_manifest, settle
from t2i_tools.evaluation.runs.store import STAGES, Store


def merge(sources: Sequence[str | Path], target: str | Path) -> int:
    """Copy what is done in each folder into `target`; returns how many items are still missing there.

    Raises InputError when the folders are not of one manifest, two hold different rows of one batch, or an image is not
    there as it was made.
    """
    stores = [Store(folder) for folder in sources]
    for store in stores:
        settle(target, store.manifest)
    merged = Store(target)
    for store in stores:
        if store.folder.resolve() == merged.folder.resolve():
            continue
        for batch in range(len(merged.manifest.batches)):
            _copy_batch(store, merged, batch)
        known = read_log(merged.folder / "timings.jsonl")
        for note in read_log(store.folder / "timings.jsonl"):
            if note not in known:  # a folder may be merged again when there is more in it
                append_row(merged.folder / "timings.jsonl", note)
    last = STAGES[-1]
    return sum(len(one) for batch, one in enumerate(read_manifest(target).batches) if not merged.done(last, batch))


def _copy_batch(source: Store, target: Store, batch: int) -> None:
    for stage in STAGES:
        if not source.done(stage, batch):
            return
        rows = source.rows(stage, batch)
        if target.done(stage, batch):
            if rows != target.rows(stage, batch):
                raise InputError(f"{source.folder} and an earlier folder differ in batch {batch} of {stage}")
            continue
        if stage == "generate":
            for row in source.generated(batch):
                if row["status"] != "ok":
                    continue
                source.check_image(row)
                if not Path(row["file"]).is_absolute():
                    copy_file(source.folder / row["file"], target.folder / row["file"])
        copy_file(source.path(stage, batch), target.path(stage, batch))

"""An evaluation's folder: one file of rows a stage and batch, there when the batch is done and not before.

manifest.json            what fixes the bytes
images/00007-1f2e....png   one per item: its place in the manifest and its key
generate/00003.jsonl     the rows of batch 3, after its images; detect/ and score/ alike
timings.jsonl            what took how long where: never in rows or images
rows.jsonl, report.*     everything in one row per item, written at the end
"""

import errno
import hashlib
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from t2i_tools.errors import InputError, shortened
from t2i_tools.evaluation.row_types import type_hints, unfit_name
from t2i_tools.evaluation.rows_io import append_row, read_rows, write_rows
from t2i_tools.evaluation.runs.items import Item
from t2i_tools.evaluation.runs.manifest import Manifest, read_manifest
from t2i_tools.evaluation.runs.rows import DetectRow, GenerateRow, MergedRow, ScoreRow
from t2i_tools.files import remove_parts, unwritable

if sys.platform != "win32":  # where two processes on one shard are not kept apart
    import fcntl

STAGES = ("generate", "detect", "score")
ROWS, LOCK = "rows.jsonl", ".lock"
KINDS: dict[str, type] = {"generate": GenerateRow, "detect": DetectRow, "score": ScoreRow}
NEEDED = {"generate": {"file", "sha256", "width", "height"}, "detect": {"objects"}, "score": {"others"}}  # when "ok"
logger = logging.getLogger("t2i_tools.evaluation")


class Store:
    """The folder of one evaluation, for one process."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.manifest: Manifest = read_manifest(self.folder)

    def items(self, batch: int) -> list[Item]:
        """The items of a batch."""
        return [self.manifest.items[index] for index in self.manifest.batches[batch]]

    def keys(self, batch: int) -> list[str]:
        """The keys of a batch's items."""
        return [self.manifest.keys[index] for index in self.manifest.batches[batch]]

    def images(self, batch: int) -> list[Path]:
        """Where the images of a batch go."""
        indices = self.manifest.batches[batch]
        return [self.folder / "images" / f"{index:05}-{self.manifest.keys[index][:12]}.png" for index in indices]

    def shard(self, part: int, parts: int) -> list[int]:
        """The batches of one of `parts` workers, numbered from 0: every batch has exactly one."""
        return list(range(len(self.manifest.batches)))[part::parts]

    def path(self, stage: str, batch: int) -> Path:
        """The file of rows of a batch."""
        return self.folder / stage / f"{batch:05}.jsonl"

    def done(self, stage: str, batch: int) -> bool:
        """Whether a stage has finished a batch."""
        return self.path(stage, batch).exists()

    def ready(self, stage: str, batch: int) -> bool:
        """Whether a stage has this batch to do: the stage before has finished it."""
        earlier = STAGES[: STAGES.index(stage)][-1:]
        return not self.done(stage, batch) and all(self.done(one, batch) for one in earlier)

    def rows(self, stage: str, batch: int) -> list[dict[str, Any]]:
        """The rows of a finished batch, in the order of its items. Raises InputError when they are not its own."""
        rows = read_rows(self.path(stage, batch))
        if [row.get("key") for row in rows] != self.keys(batch):
            raise InputError(f"{self.path(stage, batch)} does not belong to this manifest: remove it and run again")
        if not all(_is_whole(stage, row) for row in rows):
            raise InputError(f"{self.path(stage, batch)} is broken: remove it and run again")
        if stage == "generate":
            self._check_places(batch, rows)
        return rows

    def _check_places(self, batch: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Raise InputError where a row names another file than its item's, which a merge would copy anywhere."""
        for row, item, path in zip(rows, self.items(batch), self.images(batch), strict=True):
            own = item.image or path.relative_to(self.folder).as_posix()
            if row["status"] == "ok" and row["file"] != own:
                rows_file = self.path("generate", batch)
                raise InputError(
                    f"{rows_file} names {shortened(row['file'])} instead of {shortened(own)}: remove "
                    f"{rows_file.name} and run again"
                )

    def generated(self, batch: int) -> list[GenerateRow]:
        """The rows of the images of a batch. Raises what `rows` raises."""
        return cast("list[GenerateRow]", self.rows("generate", batch))

    def detected(self, batch: int) -> list[DetectRow]:
        """The rows of what was seen in a batch. Raises what `rows` raises."""
        return cast("list[DetectRow]", self.rows("detect", batch))

    def check_image(self, row: GenerateRow) -> None:
        """Raise InputError unless the file of a row is, to the byte, the image that was made."""
        path = self.folder / row["file"]
        try:
            digest = file_digest(path)
        except OSError as error:
            raise InputError(f"{row['file']} cannot be read: {error.strerror}") from error
        if digest != row["sha256"]:
            raise InputError(f"{row['file']} is not the image that was made: it has changed since")

    def forget_lost(self, batches: Iterable[int]) -> int:
        """Have each finished batch done again whose images are not all there as they were made; returns how many.

        A batch that another process has at this moment is left to it.
        """
        forgotten = 0
        for batch in batches:
            lost = self._lost(batch)
            if not lost:
                continue
            with self.claim("generate", batch) as mine:
                if mine:
                    logger.warning("%s: batch %d is made again", lost, batch)
                    self.forget(batch)
                    forgotten += 1
        return forgotten

    def _lost(self, batch: int) -> str:
        """Why the images of a finished batch are not those of its rows; "" where they are."""
        for row in self.generated(batch) if self.done("generate", batch) else ():
            try:
                if row["status"] == "ok":
                    self.check_image(row)
            except InputError as error:
                return str(error)
        return ""

    def write(self, stage: str, batch: int, rows: Iterable[Mapping[str, Any]], seconds: float, where: str) -> None:
        """Finish a batch: its time goes to the log, its rows into a file."""
        rows = list(rows)
        note = {"stage": stage, "batch": batch, "items": len(rows), "seconds": round(seconds, 4), "where": where}
        append_row(self.folder / "timings.jsonl", note)
        write_rows(self.path(stage, batch), rows)

    def forget(self, batch: int) -> None:
        """Have a batch done again, from its images on; what is made of them goes first."""
        for stage in reversed(STAGES):
            self.path(stage, batch).unlink(missing_ok=True)

    @contextmanager
    def claim(self, stage: str, batch: int) -> Iterator[bool]:
        """Yield whether this process has claimed the batch, until the block or the process ends, however it ends.

        Raises InputError where the folder cannot be written, or its file system has no locks.
        """
        if sys.platform == "win32":
            yield True
            return
        place = (1, STAGES.index(stage) << 32 | batch)  # one byte of the file a batch
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, *place)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):  # else it would seem to be another process', for ever
                raise InputError(
                    f"cannot lock {self.folder / LOCK} ({error.strerror}): use a file system that supports locks"
                ) from error
            yield False
            return
        try:
            for path in (self.path(stage, batch), *self.images(batch)):
                remove_parts(path)
            yield True
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN, *place)

    def merged(self) -> list[MergedRow]:
        """One row per item in the manifest's order: the item and all that is known of it, `status` being "ok",
        "error" or "missing"."""
        known: dict[int, Any] = {}
        for batch, indices in enumerate(self.manifest.batches):
            finished = [stage for stage in STAGES if self.done(stage, batch)]
            tables = [zip(indices, self.rows(stage, batch), strict=True) for stage in finished]
            complete = len(finished) == len(STAGES)
            for index in indices:
                known[index] = {} if complete else {"status": "missing"}
            for stage, table in zip(finished, tables, strict=True):
                for index, row in table:
                    if known[index].get("status") != "error":
                        failed = {"stage": stage} if row["status"] == "error" else {}
                        status = known[index].get("status", row["status"]) if not failed else "error"
                        known[index] |= {**row, **failed, "status": status}
        items = zip(self.manifest.keys, self.manifest.items, strict=True)
        return [
            cast("MergedRow", {"index": index, "key": key, **_item_fields(item), **known[index]})
            for index, (key, item) in enumerate(items)
        ]

    def write_merged(self) -> list[MergedRow]:
        """Write `merged` to rows.jsonl, and hand it back."""
        rows: list[MergedRow] = json.loads(json.dumps(self.merged()))
        write_rows(self.folder / ROWS, rows)
        return rows

    @cached_property
    def _lock(self) -> Any:
        # Held open for good: closing any handle of the file would give up every claim of the process.
        path = self.folder / LOCK
        try:
            return open(path, "ab")  # noqa: SIM115
        except OSError as error:
            raise unwritable(path, error) from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes. Raises OSError."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_whole(stage: str, row: Mapping[str, Any]) -> bool:
    """Whether a row has what its stage writes, and nothing else."""
    if unfit_name(row, KINDS[stage]) or row["status"] == "missing" or not row.keys() <= type_hints(KINDS[stage]).keys():
        return False
    return row["status"] != "ok" or (NEEDED[stage] <= row.keys() and ("found" in row or "exact" not in row))


def _item_fields(item: Item) -> dict[str, Any]:
    return {name: value for name, value in asdict(item).items() if value is not None and value is not False}

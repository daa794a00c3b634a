"""The queue on disk: whatever kills the server, no job is lost and none is done twice."""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError

QUEUED, RUNNING, DONE, FAILED, CANCELLED = STATES = ("queued", "running", "done", "failed", "cancelled")
ATTEMPTS = 3
TABLE = """CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL, kind TEXT NOT NULL, asked TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued', attempts INTEGER NOT NULL DEFAULT 0, result TEXT, error TEXT,
    created REAL NOT NULL, finished REAL)"""
COLUMNS = "number, id, owner, kind, asked, state, attempts, result, error, created, finished"


@dataclass(frozen=True)
class Job:
    """One request of a user. id: cannot be guessed, and who knows it may see and cancel the job.

    asked: the values of its kind. result: what the kind made, also of a cancelled job as far as it came.
    """

    number: int
    id: str
    owner: str
    kind: str
    asked: Mapping[str, Any]
    state: str
    attempts: int
    result: Mapping[str, Any]
    error: str | None
    created: float
    finished: float | None

    @property
    def open(self) -> bool:
        """Whether it still has something to do."""
        return self.state in (QUEUED, RUNNING)

    @property
    def folder(self) -> str:
        """The name of its folder: in order, and not to be guessed."""
        return f"{self.number:05}-{self.id}"


class Jobs:
    """All jobs ever asked for, in one SQLite file; safe to use from several threads of one process."""

    def __init__(self, path: Path):
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute(TABLE)
        self._database.execute("CREATE INDEX IF NOT EXISTS by_state ON jobs (state)")
        self._database.execute("CREATE INDEX IF NOT EXISTS by_owner ON jobs (owner, kind)")

    def recover(self) -> None:
        """Queue anew what was running when the last server ended; give up what has ended it several times."""
        error = f"given up: the server ended {ATTEMPTS} times while it worked on this"
        self._rows(
            "UPDATE jobs SET state = ?, error = ? WHERE state = ? AND attempts >= ?", FAILED, error, RUNNING, ATTEMPTS
        )
        self._rows("UPDATE jobs SET state = ? WHERE state = ?", QUEUED, RUNNING)

    def add(self, owner: str, kind: str, asked: Mapping[str, Any], most: int) -> Job:
        """Put a job at the end of the queue. Raises InputError when `most` jobs wait already."""
        waiting = "(SELECT count(*) FROM jobs WHERE state = 'queued') < ?"
        rows = self._rows(
            f"INSERT INTO jobs (id, owner, kind, asked, created) SELECT ?, ?, ?, ?, ? WHERE {waiting} "
            f"RETURNING {COLUMNS}",
            *(secrets.token_hex(8), owner, kind, json.dumps(dict(asked)), time.time(), most),
        )
        if not rows:
            raise InputError(f"the queue is full, {most} jobs wait: try again when some are done")
        return rows[0]

    def take(self) -> Job | None:
        """The first job of the queue, now running; None when nothing waits."""
        first = "(SELECT min(number) FROM jobs WHERE state = 'queued')"
        rows = self._rows(
            f"UPDATE jobs SET state = 'running', attempts = attempts + 1 WHERE number = {first} RETURNING {COLUMNS}"
        )
        return rows[0] if rows else None

    def finish(self, job: Job, state: str, result: Mapping[str, Any], error: str | None = None) -> None:
        """End a running job."""
        values = (state, json.dumps(dict(result)), error, time.time(), job.number)
        self._rows("UPDATE jobs SET state = ?, result = ?, error = ?, finished = ? WHERE number = ?", *values)

    def drop(self, job: Job) -> bool:
        """Cancel a job that still waits; whether it did."""
        return bool(
            self._rows(
                f"UPDATE jobs SET state = 'cancelled', finished = ? WHERE number = ? AND state = 'queued' "
                f"RETURNING {COLUMNS}",
                *(time.time(), job.number),
            )
        )

    def get(self, name: str) -> Job:
        """The job of this id. Raises InputError when there is none."""
        rows = self._rows(f"SELECT {COLUMNS} FROM jobs WHERE id = ?", name)
        if not rows:
            raise InputError(f"there is no job {name!r}")
        return rows[0]

    def of(self, owner: str, kind: str | None = None, most: int = 50) -> list[Job]:
        """An owner's jobs, the newest first."""
        chosen, values = ("AND kind = ?", [kind]) if kind else ("", [])
        return self._rows(
            f"SELECT {COLUMNS} FROM jobs WHERE owner = ? {chosen} ORDER BY number DESC LIMIT ?", owner, *values, most
        )

    def open(self) -> list[Job]:
        """All jobs that still have something to do."""
        return self._rows(f"SELECT {COLUMNS} FROM jobs WHERE state IN ('queued', 'running')")

    def ahead(self, job: Job) -> int:
        """How many jobs come before this one, the running one among them."""
        state = "(state = 'queued' AND number < ?) OR state = 'running'"
        with self._lock:
            return self._database.execute(f"SELECT count(*) FROM jobs WHERE {state}", (job.number,)).fetchone()[0]

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def _rows(self, statement: str, *values: Any) -> list[Job]:
        with self._lock:
            rows = self._database.execute(statement, values).fetchall()
        return [Job(*row[:4], json.loads(row[4]), *row[5:7], json.loads(row[7] or "{}"), *row[8:]) for row in rows]

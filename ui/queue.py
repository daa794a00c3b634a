"""The queue on disk: whatever kills the server, no job is lost and none is done twice."""

import json
import secrets
import sqlite3
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError, T2IError

QUEUED, RUNNING, DONE, FAILED, CANCELLED = STATES = ("queued", "running", "done", "failed", "cancelled")
ATTEMPTS = 3
TABLE = """CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL, kind TEXT NOT NULL, asked TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued', attempts INTEGER NOT NULL DEFAULT 0, result TEXT, error TEXT,
    created REAL NOT NULL, finished REAL)"""
# Columns that the table of an earlier version lacks.
ADDED = ("started REAL", "worked REAL NOT NULL DEFAULT 0", "source TEXT NOT NULL DEFAULT ''")
COLUMNS = "number, id, owner, kind, asked, state, attempts, result, error, created, finished, worked, source"
JSON_COLUMNS = ("asked", "result")
SQLITE_ERROR = 1  # a wrong statement or table; Python has the name from 3.11 on
RECENT = 20  # jobs of a kind, whose mean is the time that the next is expected to take


@dataclass(frozen=True)
class Job:
    """One request of a user. id: cannot be guessed, and who knows it may see and cancel the job.

    asked: the values of its kind. result: what the kind made, also of a cancelled job as far as it came.
    worked: seconds of work, over all attempts. source: the login or network address that asked.
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
    worked: float
    source: str

    @property
    def open(self) -> bool:
        """Whether it still has something to do."""
        return self.state in (QUEUED, RUNNING)

    @property
    def folder(self) -> str:
        """The name of its folder: in order, and not to be guessed."""
        return f"{self.number:05}-{self.id}"


class BrokenQueueError(T2IError):
    """The file of the queue is malformed, or no database."""


@contextmanager
def usable_queue() -> Iterator[None]:
    """Turn what SQLite says of its disk into an InputError, which is worth another try, and of a broken file into a
    BrokenQueueError, which is not. What it says of a statement is an error of ours, and stays as it is."""
    unusable = "the server cannot use its queue, jobs.sqlite3 ({}): its operator has to {}"
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        if getattr(error, "sqlite_errorcode", None) == SQLITE_ERROR:
            raise
        mend = "free some space or make the file writable; then try again"
        raise InputError(unusable.format(error, mend)) from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:
            raise
        mend = "restore the file or move it away, and restart the server"  # malformed, or no database
        raise BrokenQueueError(unusable.format(error, mend)) from error


class Jobs:
    """All jobs ever asked for, in one SQLite file; safe to use from several threads of one process."""

    def __init__(self, path: Path):
        self._lock, self._adding = threading.Lock(), threading.Lock()
        with usable_queue():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._database.execute(TABLE)
            present = {row[1] for row in self._database.execute("PRAGMA table_info(jobs)")}
            for column in ADDED:
                if column.split()[0] not in present:
                    self._database.execute(f"ALTER TABLE jobs ADD COLUMN {column}")
            self._database.execute("CREATE INDEX IF NOT EXISTS by_state ON jobs (state)")
            self._database.execute("CREATE INDEX IF NOT EXISTS by_owner ON jobs (owner, kind)")
            self._database.execute("CREATE INDEX IF NOT EXISTS by_turn ON jobs (owner, started)")
            self._database.execute("CREATE INDEX IF NOT EXISTS by_source ON jobs (source, started)")

    def recover(self) -> None:
        """Queue anew what was running when the last server ended; give up what has ended it several times."""
        error = f"given up: the server ended {ATTEMPTS} times while it worked on this"
        self._rows(
            "UPDATE jobs SET state = ?, error = ?, finished = ? WHERE state = ? AND attempts >= ?",
            *(FAILED, error, time.time(), RUNNING, ATTEMPTS),
        )
        self._rows("UPDATE jobs SET state = ? WHERE state = ?", QUEUED, RUNNING)

    def check_room(self, owner: str, source: str, most: int, most_per_owner: int) -> None:
        """Raise InputError if the queue is full, or the network address or the owner has too many jobs.

        The limits: `most` waiting jobs, half of them from one address, and `most_per_owner` unfinished ones per owner.
        """
        waiting = self._value("SELECT count(*) FROM jobs WHERE state = 'queued'")
        if waiting >= most:
            raise InputError(f"the queue is full with {most} jobs: try again when some are done")
        mine = self._value("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running') AND owner = ?", owner)
        if mine >= most_per_owner:
            raise InputError(
                f"you have {mine} unfinished jobs, the most that this server allows: wait for one, or cancel one"
            )
        here = self._value("SELECT count(*) FROM jobs WHERE state = 'queued' AND source = ?", source)
        if source != owner and here >= max(1, most // 2):
            raise InputError(
                f"{here} jobs from your network address are waiting, as many as this server allows: try again when "
                "some are done"
            )

    def add(
        self, owner: str, kind: str, asked: Mapping[str, Any], most: int, most_per_owner: int, source: str = ""
    ) -> Job:
        """Put a job into the queue; source is the owner by default. Raises InputError where there is no room."""
        source = source or owner
        with self._adding:
            self.check_room(owner, source, most, most_per_owner)
            return self._rows(
                "INSERT INTO jobs (id, owner, kind, asked, created, source) VALUES (?, ?, ?, ?, ?, ?) "
                f"RETURNING {COLUMNS}",
                *(secrets.token_hex(8), owner, kind, json.dumps(dict(asked)), time.time(), source),
            )[0]

    def take(self) -> Job | None:
        """Take the job whose turn it is, which is running from now on; None when nothing waits."""
        for number in self._order():
            rows = self._rows(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, started = ? "
                f"WHERE number = ? AND state = 'queued' RETURNING {COLUMNS}",
                *(time.time(), number),
            )
            if rows:  # else it was cancelled just now
                return rows[0]
        return None

    def put_back(self, job: Job, result: Mapping[str, Any], worked: float) -> None:
        """Queue a running job anew, for others whose turn it is; it goes on where it was when its turn comes."""
        self._rows(
            "UPDATE jobs SET state = 'queued', attempts = attempts - 1, result = ?, worked = ? WHERE number = ?",
            *(json.dumps(dict(result)), worked, job.number),
        )

    def others_wait(self, job: Job) -> bool:
        """Whether somebody else has a job that waits."""
        query = "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'queued' AND owner != ?)"
        return bool(self._value(query, job.owner))

    def finish(
        self, job: Job, state: str, result: Mapping[str, Any], error: str | None = None, worked: float = 0.0
    ) -> None:
        """End a running job, after so many seconds of work."""
        values = (state, json.dumps(dict(result)), error, time.time(), worked, job.number)
        self._rows(
            "UPDATE jobs SET state = ?, result = ?, error = ?, finished = ?, worked = ? WHERE number = ?", *values
        )

    def drop(self, job: Job) -> bool:
        """Cancel a job that still waits; whether it did."""
        return bool(
            self._rows(
                f"UPDATE jobs SET state = 'cancelled', finished = ? WHERE number = ? AND state = 'queued' "
                f"RETURNING {COLUMNS}",
                *(time.time(), job.number),
            )
        )

    def get(self, name: object) -> Job:
        """The job of this id. Raises InputError when there is none."""
        rows = (
            self._rows(f"SELECT {COLUMNS} FROM jobs WHERE id = ?", name)
            if isinstance(name, str) and name.isascii()
            else []
        )
        if not rows:
            raise InputError(f"there is no job {str(name)[:100]!r}")
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

    def before(self, job: Job) -> list[Job]:
        """The jobs that come before a waiting one, the running one first."""
        running = self._rows(f"SELECT {COLUMNS} FROM jobs WHERE state = 'running'")
        waiting = {other.number: other for other in self._rows(f"SELECT {COLUMNS} FROM jobs WHERE state = 'queued'")}
        if job.number not in waiting:
            return running
        earlier = takewhile(lambda number: number != job.number, self._order())
        return running + [waiting[number] for number in earlier if number in waiting]

    def usual_seconds(self, kind: str) -> float:
        """What the latest jobs of this kind took, on average; 0 while there are none."""
        latest = "SELECT worked FROM jobs WHERE kind = ? AND state = 'done' ORDER BY finished DESC LIMIT ?"
        return self._value(f"SELECT coalesce(avg(worked), 0) FROM ({latest})", kind, RECENT)

    def ended(self) -> list[Job]:
        """All jobs that have ended, the oldest first."""
        open_ = "('queued', 'running')"
        return self._rows(f"SELECT {COLUMNS} FROM jobs WHERE state NOT IN {open_} ORDER BY finished")

    def forget(self, job: Job) -> None:
        """Strike a job that has ended off the list."""
        self._rows("DELETE FROM jobs WHERE number = ? AND state NOT IN ('queued', 'running')", job.number)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def _order(self) -> Iterator[int]:
        """The numbers of the waiting jobs, as they are taken.

        Of each owner the first one competes; the source that was served longest ago goes first, within a source the
        owner that was.
        """
        with self._lock, usable_queue():
            query = "SELECT number, owner, source FROM jobs WHERE state = 'queued' ORDER BY number"
            waiting = self._database.execute(query).fetchall()
        queues: dict[str, deque[tuple[int, str]]] = {}
        for number, owner, source in waiting:
            queues.setdefault(owner, deque()).append((number, source))
        sources, owners = (defaultdict(float, self._turns(column)) for column in ("source", "owner"))
        for later in range(len(waiting)):
            heads = ((*queue[0], owner) for owner, queue in queues.items() if queue)
            number, source, owner = min(heads, key=lambda head: (sources[head[1]], owners[head[2]], head[0]))
            yield number
            queues[owner].popleft()
            sources[source] = owners[owner] = time.time() + later

    def _turns(self, column: str) -> dict[str, float]:
        """When each owner, or each source, was served last."""
        with self._lock, usable_queue():
            rows = self._database.execute(f"SELECT {column}, max(coalesce(started, 0)) FROM jobs GROUP BY {column}")
            return dict(rows.fetchall())

    def _value(self, query: str, *values: Any) -> Any:
        with self._lock, usable_queue():
            return self._database.execute(query, values).fetchone()[0]

    def _rows(self, statement: str, *values: Any) -> list[Job]:
        with self._lock, usable_queue():
            rows = self._database.execute(statement, values).fetchall()
        return [Job(*_decoded(row)) for row in rows]


def _decoded(row: Sequence[Any]) -> list[Any]:
    """A row's values in the order of COLUMNS, its JSON read."""
    named = zip(COLUMNS.split(", "), row, strict=True)
    return [json.loads(value or "{}") if name in JSON_COLUMNS else value for name, value in named]

"""The worker on a queue that cannot be written for a while."""

import logging
import sqlite3
import sys

import pytest
from support.waiting import wait_until

from t2i_tools.errors import InputError
from t2i_tools.ui import worker as module
from t2i_tools.ui.job_context import Cancelled, Paused
from t2i_tools.ui.queue import CANCELLED, DONE, BrokenQueueError, Jobs
from t2i_tools.ui.worker import Worker

WRITES = ("take", "finish", "put_back", "drop")
FULL = "the server cannot use its queue"
NEWER = pytest.mark.skipif(sys.version_info < (3, 11), reason="tells no wrong statement from a full disk")


class Registry:
    """No models."""

    def warm(self):
        """Nothing to open."""

    def of(self, owner):
        """No model."""


class FullJobs(Jobs):
    """A queue of which each write of a job fails twice."""

    def __init__(self, path, failures=2):
        super().__init__(path)
        self.left = dict.fromkeys(WRITES, failures)

    def _fail(self, name):
        if self.left[name]:
            self.left[name] -= 1
            raise InputError(FULL)

    def take(self):
        self._fail("take")
        return super().take()

    def finish(self, *values):
        self._fail("finish")
        super().finish(*values)

    def put_back(self, *values):
        self._fail("put_back")
        super().put_back(*values)

    def drop(self, job):
        self._fail("drop")
        return super().drop(job)


@pytest.fixture
def working(tmp_path, monkeypatch):
    """working(jobs, run) -> a started worker."""
    monkeypatch.setattr(module, "RETRY", 0.01)
    workers = []

    def start(jobs, run):
        workers.append(Worker(jobs, Registry(), tmp_path, run))
        workers[-1].start()
        return workers[-1]

    yield start
    for worker in workers:
        worker.end()


def add(jobs):
    return jobs.add("me", "generate", {}, 9, 9)


def test_every_write_is_tried_again(working, tmp_path, caplog):
    jobs, paused = FullJobs(tmp_path / "jobs.sqlite3"), []

    def run(job, context):
        if job.number == dropped.number:
            context.stop.set()  # cancelled at the moment at which it makes room
            raise Paused
        if job.number == resumed.number and not paused:
            paused.append(job)
            raise Paused
        if job.number == cancelled.number:
            raise Cancelled

    dropped, resumed, cancelled, plain = (add(jobs) for _ in range(4))
    with caplog.at_level(logging.ERROR):
        worker = working(jobs, run)
        wait_until(lambda: not jobs.open() or not worker.is_alive())
    assert worker.is_alive()
    states = [jobs.get(job.id).state for job in (dropped, resumed, cancelled, plain)]
    assert states == [CANCELLED, DONE, CANCELLED, DONE]
    assert jobs.left == dict.fromkeys(WRITES, 0)
    assert [record.message for record in caplog.records] == [FULL] * len(WRITES)  # of two failures each


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_no_waiting_mends_is_loud(working, tmp_path, monkeypatch):
    jobs, loud = Jobs(tmp_path / "jobs.sqlite3"), []
    monkeypatch.setattr("threading.excepthook", lambda said: loud.append(said.exc_type))
    monkeypatch.setattr(jobs, "take", lambda: jobs._rows("SELECT ? FROM jobs"))
    working(jobs, None).join(10)
    assert loud == [sqlite3.ProgrammingError]


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        (
            "INSERT INTO jobs (number, id, owner, kind, asked, created) SELECT 9, id, '', '', '', 0 FROM jobs",
            "Integrity",
        ),
        ("SELECT ? FROM jobs", "Programming"),
        pytest.param("SELECT * FROM work", "Operational", marks=NEWER),
    ],
)
def test_a_wrong_statement_is_no_full_disk(tmp_path, statement, error):
    jobs = Jobs(tmp_path / "jobs.sqlite3")
    add(jobs)
    with pytest.raises(getattr(sqlite3, f"{error}Error")):
        jobs._rows(statement)


def test_a_disk_that_is_full_or_busy_or_read_only_is_worth_another_try(tmp_path):
    jobs = Jobs(tmp_path / "jobs.sqlite3")
    jobs._database.execute("PRAGMA busy_timeout = 0")
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match="database is locked"):
            add(jobs)
    jobs._database.execute("PRAGMA query_only = 1")
    with pytest.raises(InputError, match="readonly"):
        add(jobs)
    jobs._database.execute("PRAGMA query_only = 0")
    jobs._database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(InputError, match="database or disk is full"):
        jobs.add("me", "generate", {"prompt": "x" * 10**5}, 9, 9)


def test_a_broken_file_is_not(tmp_path):
    (tmp_path / "jobs.sqlite3").write_bytes(b"no database" * 1000)
    with pytest.raises(BrokenQueueError, match="not a database.*restore the file or move it away"):
        Jobs(tmp_path / "jobs.sqlite3")
    (tmp_path / "jobs.sqlite3").unlink()
    jobs = Jobs(tmp_path / "jobs.sqlite3")
    add(jobs)
    content = bytearray((tmp_path / "jobs.sqlite3").read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    jobs.close()
    (tmp_path / "jobs.sqlite3").write_bytes(content)
    with pytest.raises(BrokenQueueError, match="malformed"):
        Jobs(tmp_path / "jobs.sqlite3").take()

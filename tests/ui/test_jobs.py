"""The queue on disk: order, limits, restarts."""

import pytest

from t2i_tools.errors import InputError
from t2i_tools.ui.jobs import ATTEMPTS, CANCELLED, DONE, FAILED, QUEUED, RUNNING, Jobs


@pytest.fixture
def jobs(tmp_path):
    return Jobs(tmp_path / "jobs.sqlite3")


def add(jobs, owner="me", most=100):
    return jobs.add(owner, "generate", {"prompt": "a cat"}, most)


def test_first_come_first_served(jobs):
    first, second = add(jobs), add(jobs, "you")
    assert (jobs.ahead(first), jobs.ahead(second)) == (0, 1)
    assert jobs.take().id == first.id
    assert jobs.get(first.id).state == RUNNING
    assert jobs.ahead(second) == 1
    jobs.finish(first, DONE, {"files": ["x.png"]})
    assert jobs.get(first.id).result == {"files": ["x.png"]}
    assert jobs.take().id == second.id
    assert jobs.take() is None


def test_full_queue_is_refused_in_one_line(jobs):
    add(jobs), add(jobs)
    with pytest.raises(InputError, match="the queue is full, 2 jobs wait"):
        add(jobs, most=2)
    jobs.take()
    assert add(jobs, most=2).state == QUEUED


def test_only_what_waits_can_be_dropped(jobs):
    job = add(jobs)
    assert jobs.drop(job)
    assert jobs.get(job.id).state == CANCELLED
    assert not jobs.drop(job)
    assert jobs.take() is None


def test_owners_see_their_own(jobs):
    mine, _ = add(jobs), add(jobs, "you")
    assert [job.id for job in jobs.of("me")] == [mine.id]
    assert jobs.of("me", "count") == []
    with pytest.raises(InputError, match="there is no job 'x'"):
        jobs.get("x")


def test_restart_takes_up_what_ran_in_its_place(jobs, tmp_path):
    first, second = add(jobs), add(jobs)
    jobs.take()
    jobs.close()
    again = Jobs(tmp_path / "jobs.sqlite3")
    again.recover()
    assert [again.take().id, again.take().id] == [first.id, second.id]


def test_a_job_that_ends_the_server_every_time_is_given_up(jobs):
    job = add(jobs)
    for _ in range(ATTEMPTS):
        jobs.recover()
        assert jobs.take().id == job.id
    jobs.recover()
    assert jobs.get(job.id).state == FAILED
    assert "given up" in jobs.get(job.id).error
    assert jobs.take() is None

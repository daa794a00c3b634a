"""The queue on disk: order, limits, restarts."""

import sqlite3

import pytest

from t2i_tools.errors import InputError
from t2i_tools.ui.queue import ATTEMPTS, CANCELLED, DONE, FAILED, QUEUED, RUNNING, TABLE, Jobs


@pytest.fixture
def jobs(tmp_path):
    return Jobs(tmp_path / "jobs.sqlite3")


def add(jobs, owner="me", most=100, most_per_owner=100, source=""):
    return jobs.add(owner, "generate", {"prompt": "a cat"}, most, most_per_owner, source)


def test_first_come_first_served(jobs):
    first, second = add(jobs), add(jobs, "you")
    assert (len(jobs.before(first)), len(jobs.before(second))) == (0, 1)
    assert jobs.take().id == first.id
    assert jobs.get(first.id).state == RUNNING
    assert len(jobs.before(second)) == 1
    jobs.finish(first, DONE, {"files": ["x.png"]})
    assert jobs.get(first.id).result == {"files": ["x.png"]}
    assert jobs.take().id == second.id
    assert jobs.take() is None


def test_full_queue_is_refused_in_one_line(jobs):
    add(jobs), add(jobs)
    with pytest.raises(InputError, match="the queue is full with 2 jobs"):
        add(jobs, most=2)
    jobs.take()
    assert add(jobs, most=2).state == QUEUED


def test_one_address_has_half_of_the_queue_whoever_it_says_it_is(jobs):
    for n in range(4):
        add(jobs, f"session {n}", most=8, source="address 1.2.3.4")
    with pytest.raises(InputError, match="4 jobs from your network address are waiting"):
        add(jobs, "session 5", most=8, source="address 1.2.3.4")
    other = add(jobs, "session 6", most=8, source="address 5.6.7.8")
    jobs.finish(jobs.take(), DONE, {})
    assert jobs.take().id == other.id  # addresses are served by turns
    assert jobs.get(other.id).source == "address 5.6.7.8"


def test_before_and_take_agree_on_the_order(jobs):
    flood = [add(jobs, f"session {n}", source="address 1.2.3.4") for n in range(4)]
    other = add(jobs, "you", source="address 5.6.7.8")
    expected = [flood[0], other, *flood[1:]]
    assert [len(jobs.before(job)) for job in expected] == list(range(5))
    taken = []
    while job := jobs.take():
        taken.append(job.number)
        jobs.finish(job, DONE, {})
    assert taken == [job.number for job in expected]


def test_owners_are_served_by_turns(jobs):
    mine = [add(jobs) for _ in range(4)]
    yours = [add(jobs, "you") for _ in range(2)]
    theirs = add(jobs, "they")
    expected = [mine[0], yours[0], theirs, mine[1], yours[1], mine[2], mine[3]]
    assert [len(jobs.before(job)) for job in expected] == list(range(7))
    taken = []
    while job := jobs.take():
        taken.append(job.number)
        jobs.finish(job, DONE, {})
    assert taken == [job.number for job in expected]


def test_a_long_job_makes_room_and_goes_on_where_it_was(jobs):
    long, short = add(jobs), add(jobs, "you")
    running = jobs.take()
    assert running.id == long.id and jobs.others_wait(running)
    jobs.put_back(running, {"files": ["a.png"]}, 12.0)
    assert jobs.take().id == short.id
    again = jobs.take()
    assert (again.id, again.result, again.worked, again.attempts) == (long.id, {"files": ["a.png"]}, 12.0, 1)
    assert not jobs.others_wait(again)
    for _ in range(2 * ATTEMPTS):  # making room is no attempt that failed
        jobs.put_back(again, {}, 12.0)
        again = jobs.take()
    jobs.recover()
    assert jobs.take().id == short.id or jobs.get(long.id).state == QUEUED


def test_one_owner_does_not_take_all_places(jobs):
    for _ in range(3):
        add(jobs, most_per_owner=3)
    jobs.take()
    with pytest.raises(InputError, match="^you have 3 unfinished jobs, the most that this server allows"):
        add(jobs, most_per_owner=3)
    assert add(jobs, "you", most_per_owner=3).state == QUEUED


def test_a_table_of_an_earlier_version_is_widened(tmp_path):
    with sqlite3.connect(tmp_path / "old.sqlite3") as old:
        old.execute(TABLE)
        old.execute("INSERT INTO jobs (id, owner, kind, asked, created) VALUES ('a', 'me', 'count', '{}', 0)")
    jobs = Jobs(tmp_path / "old.sqlite3")
    assert (jobs.take().id, jobs.get("a").worked) == ("a", 0.0)


def test_what_jobs_of_a_kind_usually_take(jobs):
    assert jobs.usual_seconds("generate") == 0
    for seconds in (1.0, 3.0):
        add(jobs)
        jobs.finish(jobs.take(), DONE, {}, worked=seconds)
    assert jobs.usual_seconds("generate") == 2.0


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

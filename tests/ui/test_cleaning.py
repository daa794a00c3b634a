"""Finished jobs go by age and size, and nothing that somebody still works on."""

import os
import time
from dataclasses import replace

import pytest
import torch

from t2i_tools.ui.cleaning import DAY, GIB, clean_up, places_of
from t2i_tools.ui.learned_noise import keep_noise, noise_path
from t2i_tools.ui.options import AppOptions
from t2i_tools.ui.queue import DONE
from t2i_tools.ui.service import Service
from t2i_tools.workflows.limits import Limits

from .conftest import QUICK


@pytest.fixture
def service_with(options, tmp_path):
    """service_with(limits) -> a server's work that has not begun."""
    made = []

    def build(**limits):
        made.append(Service(replace(options, output=tmp_path / "out", limits=Limits(**limits))))
        return made[-1]

    yield build
    for service in made:
        service.close()


def finished(service, size=1000, days=0.0, owner="me", kind="generate", values=None, result=None):
    """A job that has ended so many days ago and left a file."""
    job = service.jobs.add(owner, kind, values or {"prompt": "x", **QUICK}, 1000, 1000)
    folders = [place for place in places_of(service, job) if not place.is_file()]  # learned noise is a file
    folder = max(folders, key=lambda place: "evaluation" in place.name)
    folder.mkdir(exist_ok=True)
    (folder / f"{job.number}.png").write_bytes(bytes(size))
    service.jobs.take()
    service.jobs.finish(job, DONE, result or {"files": []})
    service.jobs._rows("UPDATE jobs SET finished = ? WHERE number = ?", time.time() - days * DAY, job.number)
    return folder / f"{job.number}.png", job


def test_nothing_goes_on_a_machine_of_ones_own(service_with):
    service = service_with()
    file, _ = finished(service, days=5000)
    assert clean_up(service) == 0 and file.exists()


def test_a_login_sets_bounds(tmp_path):
    limits = AppOptions(auth=(("a", "b"),), limits=Limits(keep_days=3)).limits
    assert (limits.keep_days, limits.keep_gib, limits.job_minutes) == (3, 20, 60)


def test_by_age(service_with):
    service = service_with(keep_days=7)
    old, job = finished(service, days=8)
    new, _ = finished(service, days=6)
    assert clean_up(service) == 1
    assert (old.parent.exists(), new.exists()) == (False, True)
    assert [one.number for one in service.jobs.of("me")] == [job.number + 1]


def test_by_size_the_oldest_first(service_with):
    service = service_with(keep_gib=1)
    files = [finished(service, days=days)[0] for days in (1, 3, 2)]
    for file in files:
        with open(file, "r+b") as sparse:
            sparse.truncate(GIB * 2 // 5)
    assert clean_up(service) == 1
    assert [file.exists() for file in files] == [True, False, True]


def test_an_evaluation_that_an_open_job_goes_on_with_stays(service_with):
    service = service_with(keep_days=7)
    values = {"name": "mine"}
    kept, _ = finished(service, days=9, kind="evaluate", values=values)
    gone, _ = finished(
        service, days=9, kind="evaluate", values=values, owner="you"
    )  # of the same name, in its own folder
    assert kept.parent != gone.parent
    service.jobs.add("me", "evaluate", values, 10, 10)
    clean_up(service)
    assert (kept.exists(), gone.exists()) == (True, False)


def test_learned_noise_goes_with_the_last_job_that_names_it(service_with):
    service = service_with(keep_days=7)
    names = [keep_noise(service.output, torch.full((1, 4, 2, 2), float(i))) for i in range(5)]
    paths = [noise_path(service.output, name) for name in names]
    for path in paths:
        os.utime(path, (time.time() - 9 * DAY,) * 2)

    def learned(name):
        return {"files": [], "images": [{"noise": name}]}

    finished(service, days=9, kind="count", values={"counts": {"cat": 2}}, result=learned(names[0]))
    finished(service, days=9, kind="count", values={"counts": {"cat": 2}}, result=learned(names[1]))
    finished(service, days=1, values={"prompt": "x", "noise": names[1], **QUICK})
    finished(service, days=1, kind="count", values={"counts": {"cat": 2}}, result=learned(names[2]))
    service.jobs.add("me", "generate", {"prompt": "x", "noise": names[3], **QUICK}, 10, 10)
    assert clean_up(service) == 2
    assert [path.exists() for path in paths] == [False, True, True, True, False]
    young = noise_path(service.output, keep_noise(service.output, torch.zeros(1)))
    clean_up(service)
    assert young.exists()

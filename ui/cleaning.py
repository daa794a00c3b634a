"""Finished jobs go when they are too old, or when all of them take too much of the disk; the oldest first."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .learned_noise import FOLDER, noise_path
from .queue import Job

if TYPE_CHECKING:
    from .service import Service

DAY, GIB = 24 * 3600.0, 2**30


def clean_up(service: "Service", now: float | None = None) -> int:
    """Remove what the limits on days and GiB do not allow; how many jobs went. Nothing without such limits.

    Files that an open job, or one that stays, has a part in are left alone.
    """
    limits, now = service.options.limits, now or time.time()
    if limits.keep_days is None and limits.keep_gib is None:
        return 0
    oldest = now - limits.keep_days * DAY if limits.keep_days else float("-inf")
    ended = [(job, places_of(service, job)) for job in service.jobs.ended()]
    needed = {place for job in service.jobs.open() for place in places_of(service, job)}
    sizes = {place: _size(place) for _, places in ended for place in places}
    total, gone = sum(sizes.values()), 0
    while ended and (
        (ended[0][0].finished or now) < oldest or limits.keep_gib is not None and total > limits.keep_gib * GIB
    ):
        job, places = ended.pop(0)
        staying = needed.union(*(others for _, others in ended))
        for place in places - staying:
            total -= sizes[place]
            _remove(place)
        service.jobs.forget(job)
        gone += 1
    _remove_orphans(service, needed.union(*(places for _, places in ended)), oldest)
    return gone


def remove_job(service: "Service", job: Job) -> None:
    """Remove an ended job, and of its files those that no other job has a part in."""
    others = (other for other in (*service.jobs.open(), *service.jobs.ended()) if other.number != job.number)
    needed = {place for other in others for place in places_of(service, other)}
    for place in places_of(service, job) - needed:
        _remove(place)
    service.jobs.forget(job)


def places_of(service: "Service", job: Job) -> set[Path]:
    """The folders and files that hold what a job has made or needs: its own folder, an evaluation's, in which several
    jobs may work, and the noise that it has learned or begins with."""
    from .jobs.evaluate import folder_name

    places = {service.files / job.folder}
    if job.kind == "evaluate":
        places.add(service.files / folder_name(service.secret, job.owner, job.asked["name"]))
    noises = [job.asked.get("noise"), *(image.get("noise") for image in job.result.get("images", ()))]
    return places | {noise_path(service.output, noise) for noise in noises if isinstance(noise, str)}


def _remove_orphans(service: "Service", needed: set[Path], oldest: float) -> None:
    """Remove old noise that belongs to no job: a search that was killed, or that an earlier version made."""
    for path in (service.output / FOLDER).glob("*.safetensors"):
        if path not in needed and path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def _size(place: Path) -> int:
    files = place.rglob("*") if place.is_dir() else (place,)
    return sum(path.stat().st_size for path in files if path.is_file())

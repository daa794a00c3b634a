"""How much the app may be asked for; each field is an option of the server."""

from dataclasses import dataclass, field, replace
from typing import Any


def _most(value: int | None, what: str) -> Any:
    """A limit and what it limits, which is the option's help text."""
    return field(
        default=value, metadata={"metavar": "N", "help": what, "least": 1, "prefix": "max-", "panel": "Limits"}
    )


@dataclass(frozen=True)
class Limits:
    """The most that a job may ask for, that may wait, and that uploads may take; each is an option of `t2i ui`."""

    pixels: int = _most(1024 * 1024, "Pixels per image.")
    steps: int = _most(150, "Denoising steps per image.")
    images: int = _most(16, "Images per job on the page Generate.")
    cells: int = _most(64, "Images per grid.")
    items: int = _most(500, "Images per evaluation or probe.")
    budget: int = _most(100, "Compute per image of a search for a count, in generations of a plain image.")
    queue: int = _most(100, "Jobs that wait, of all users.")
    open_jobs: int = _most(20, "Jobs that wait or run, per user.")
    job_minutes: int | None = _most(None, "Minutes of work per job; 60 with a login, else unlimited.")
    keep_days: int | None = _most(None, "Days for which finished jobs are kept; 30 with a login, else unlimited.")
    keep_gib: int | None = _most(None, "GiB that finished jobs take on the disk; 20 with a login, else unlimited.")
    upload_mib: int = _most(20, "MiB per uploaded file.")
    uploads_mib: int = _most(2048, "MiB that uploads take on the disk; the oldest are deleted first.")

    def shared(self) -> "Limits":
        """The same for a server of several users, on which time and disk have a bound in any case."""
        usual = {"job_minutes": 60, "keep_days": 30, "keep_gib": 20}
        return replace(self, **{name: getattr(self, name) or most for name, most in usual.items()})

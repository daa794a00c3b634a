"""How much of the disk uploads take: the oldest go first, but not the images that open jobs start from."""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse

from t2i_tools.errors import InputError

from .jobs.generate import start_path
from .security import is_upload
from .service import Service

OF_GRADIO = re.compile("[0-9a-f]{64}")  # the name of the folder into which it puts an upload


def make_room(service: Service) -> None:
    """Remove the oldest uploads until the others take no more than the limit."""
    names = (name for job in service.jobs.open() for name in starts_of(job.asked))
    needed = {start_path(service.output, name) for name in names}
    sizes = {path: path.stat() for path in _uploads(service)}
    room = _bytes(service) - sum(sizes[path].st_size for path in needed & sizes.keys())
    for path in sorted(sizes.keys() - needed, key=lambda path: -sizes[path].st_mtime_ns):
        room -= sizes[path].st_size
        if room < 0:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # others are in it
                path.parent.rmdir()


def starts_of(asked: Mapping[str, Any]) -> list[str]:
    """The uploaded images that a job begins with."""
    return [name for name in (asked.get("image"), *asked.get("images", ())) if name]


def check_room(service: Service, folder: Path, more: int) -> None:
    """Raise InputError where a folder of what nobody may remove would take more than uploads may. more: bytes."""
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if there + more > _bytes(service):
        raise InputError(
            f"the space for count tokens on this server ({service.options.limits.uploads_mib} MiB) is full: ask its "
            "operator to raise the limit"
        )


class UploadLimit:
    """ASGI middleware that makes room after an upload, and refuses one that is larger than all of them may be."""

    def __init__(self, app: Any, service: Service):
        self.app, self.service = app, service

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        upload = is_upload(scope)
        if upload and not 0 <= _length(scope) <= _bytes(self.service):
            message = f"an upload has to say its length, of up to {self.service.options.limits.uploads_mib} MiB"
            await JSONResponse({"detail": message}, status_code=413)(scope, receive, send)
            return
        await self.app(scope, receive, send)
        if upload:
            await asyncio.to_thread(make_room, self.service)


def _uploads(service: Service) -> list[Path]:
    folders = [path for path in service.files.iterdir() if OF_GRADIO.fullmatch(path.name)]
    starts = start_path(service.output, "any").parent.glob("*.png")
    return [*starts, *(path for folder in folders for path in folder.iterdir() if path.is_file())]


def _bytes(service: Service) -> int:
    return service.options.limits.uploads_mib * 2**20


def _length(scope: dict[str, Any]) -> int:
    """What the request says its body takes; -1 where it does not."""
    value = dict(scope["headers"]).get(b"content-length", b"")
    return int(value) if value.isdigit() else -1

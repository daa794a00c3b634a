"""Gradio's sessions, each of which holds a copy of the whole page, and of which every call of the API begins one."""

import time
from datetime import datetime
from typing import Any

EVERY, IDLE, CLOSED = 5.0, 10.0, 3600.0  # seconds
MOST = 1000  # a session takes some 0.6 MiB


class Sweeper:
    """Forgets sessions that would be built anew as they are, and those of pages that were closed an hour ago."""

    def __init__(self) -> None:
        self._next = 0.0

    def sweep(self, page: Any) -> None:
        """Look through the sessions of a page that is served, at most every five seconds."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY
        holder, now = page.state_holder, datetime.now()
        for name, session in list(holder.session_data.items()):
            idle = (now - holder.time_last_used.get(name, now)).total_seconds()
            if idle > (CLOSED if session.is_closed else IDLE) and (session.is_closed or _is_as_built(session, page)):
                with holder.lock:
                    holder.session_data.pop(name, None)
                    holder.time_last_used.pop(name, None)


def _is_as_built(session: Any, page: Any) -> bool:
    """Whether nothing in it differs from the page as it was built."""
    present, built = session.blocks_config.blocks, page.default_config.blocks
    return not session.state_data and all(present.get(key) is block for key, block in built.items())

"""Removes old Gradio sessions: each holds a copy of the whole page, and every API call starts a new one."""

import time
from datetime import datetime
from typing import Any

SWEEP_INTERVAL, IDLE_SECONDS, CLOSED_SECONDS = 5.0, 10.0, 3600.0
MAX_SESSIONS = 1000  # each takes about 0.6 MiB


class Sweeper:
    """Removes idle sessions that still equal the initial page, and sessions whose page was closed an hour ago."""

    def __init__(self) -> None:
        self._next = 0.0

    def sweep(self, page: Any) -> None:
        """Remove old sessions of a running page; does nothing within five seconds of the last sweep."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SWEEP_INTERVAL
        holder, now = page.state_holder, datetime.now()
        for name, session in list(holder.session_data.items()):
            idle = (now - holder.time_last_used.get(name, now)).total_seconds()
            limit = CLOSED_SECONDS if session.is_closed else IDLE_SECONDS
            if idle > limit and (session.is_closed or _is_as_built(session, page)):
                with holder.lock:
                    holder.session_data.pop(name, None)
                    holder.time_last_used.pop(name, None)


def _is_as_built(session: Any, page: Any) -> bool:
    """Whether the session still equals the page as it was built."""
    present, built = session.blocks_config.blocks, page.default_config.blocks
    return not session.state_data and all(present.get(key) is block for key, block in built.items())

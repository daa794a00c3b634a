"""What a server remembers of calls and pages that are over."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from gradio_client import Client

from t2i_tools.ui import launch, sessions


@pytest.fixture
def page(options, tmp_path, monkeypatch):
    """The page of a server of its own, which is swept at each event."""
    monkeypatch.setattr(sessions, "SWEEP_INTERVAL", 0.0)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # which `launch` changes
    page, service = launch(replace(options, output=tmp_path), block=False)
    yield page
    service.close()
    page.close()


def call(page):
    Client(page.local_url, verbose=False, httpx_kwargs={"timeout": 120}).predict(api_name="/cancel")


def test_a_call_leaves_no_session(page, monkeypatch):
    monkeypatch.setattr(sessions, "IDLE_SECONDS", 0.0)
    for _ in range(5):
        call(page)
    assert len(page.state_holder.session_data) <= 1  # the last one's


def test_changed_sessions_are_kept_for_an_hour_after_closing(page):
    holder = page.state_holder
    old = datetime.now() - timedelta(minutes=30)
    for name in ("same", "other", "closed"):
        session = holder[name]
        if name != "same":
            key, block = next(iter(session.blocks_config.blocks.items()))
            session.blocks_config.blocks[key] = type(block)(render=False)
        holder.time_last_used[name] = old
    holder["closed"].is_closed = True
    holder.time_last_used["closed"] = old - timedelta(hours=1)
    call(page)
    assert {"same", "other", "closed"} & holder.session_data.keys() == {"other"}
    assert "closed" not in holder.time_last_used

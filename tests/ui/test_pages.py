"""The pages without a browser: what their controls hold at the start is a job, and jobs of each kind can be shown."""

from dataclasses import replace

import pytest

from t2i_tools.errors import InputError
from t2i_tools.ui.kinds import KINDS


@pytest.fixture(scope="module")
def pages(options, tmp_path_factory):
    """desk, and kind -> (fields, read, results, show) of its page."""
    from t2i_tools.ui.app import build
    from t2i_tools.ui.desk import Desk
    from t2i_tools.ui.panel import Panel

    wired = {}

    def connect(panel, page, run, cancel, fields, read, results, show, also=()):
        wired[panel.kind] = (fields, read, results, show)

    desk = Desk(replace(options, output=tmp_path_factory.mktemp("pages")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Panel, "connect", connect)
        build(desk)
    yield desk, wired
    desk.jobs.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_as_it_opens_is_a_job_that_can_be_shown(pages, kind):
    desk, wired = pages
    fields, read, results, show = wired[kind]
    job = desk.submit("me", kind, read({name: field.value for name, field in fields.items()}))
    assert desk.jobs.get(job.id).state == "queued"
    assert len(show(job)) == len(results)


def test_two_classes_of_a_count_are_two(pages):
    fields, read, *_ = pages[1]["count"]
    shown = {name: field.value for name, field in fields.items()}
    assert read({**shown, "second": "dog"})["counts"] == {"cat": 5, "dog": 2}
    with pytest.raises(InputError, match="both classes are cat"):
        read({**shown, "second": "cat"})

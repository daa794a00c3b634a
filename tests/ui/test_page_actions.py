"""What is done with a job from anywhere on the page, for its owner and for nobody else."""

import json
from dataclasses import replace

import gradio as gr
import pytest
from PIL import Image

from t2i_tools.errors import InputError
from t2i_tools.images.metadata import save_image
from t2i_tools.ui.job_list import actions_html, history_html, list_html, targets
from t2i_tools.ui.jobs import KINDS
from t2i_tools.ui.objects import counted_prompt
from t2i_tools.ui.queue import CANCELLED, DONE

from .conftest import QUICK

OTHER = "browser other"


@pytest.fixture(scope="module")
def actions(options, tmp_path_factory):
    """What the page does, on a service that works on nothing: jobs wait until a test ends them."""
    from t2i_tools.ui import page_actions
    from t2i_tools.ui.app import build
    from t2i_tools.ui.service import Service

    made, init = [], page_actions.PageActions.__init__

    def noted(self, *values):
        init(self, *values)
        made.append(self)

    service = Service(replace(options, output=tmp_path_factory.mktemp("actions")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_actions.PageActions, "__init__", noted)
        build(service)
    yield made[0]
    service.close()


@pytest.fixture
def me(request):
    """An owner of this test alone."""
    return f"browser {request.node.name}"


def drawn(service, owner, prompt="two cats", state=DONE, **values):
    """A job that has ended, with one image."""
    job = service.submit(owner, "generate", {"prompt": prompt, "seed": 5, **QUICK, **values})
    path = service.files / job.folder / "01.png"
    path.parent.mkdir(parents=True)
    save_image(Image.new("RGB", (8, 8)), path, {"prompt": prompt, "seed": 5})
    service.jobs.finish(job, state, {"files": [path.relative_to(service.output).as_posix()]})
    return service.jobs.get(job.id)


def kept(updates, field):
    return next(value for one, value in updates.items() if one is field)


def test_a_job_opens_on_its_tab_with_its_result(actions, me):
    first, _ = drawn(actions.service, me, "one cat"), drawn(actions.service, me, "two dogs")
    panel = actions.panels["generate"]
    updates = actions.do(me, {"act": "open", "job": first.id})
    assert "data-tab='generate'" in history_html(actions.service, [first], "m")  # for page.js, which opens it
    assert f"{first.folder}/01.png" in kept(updates, panel.results[0])
    assert "Back to the latest" in kept(updates, panel.actions)
    latest = actions.do(me, {"act": "latest", "job": first.id})
    assert f"{first.folder}/01.png" not in kept(latest, panel.results[0])


def test_nothing_can_be_done_with_the_job_of_somebody_else(actions, me):
    job = drawn(actions.service, me)
    for act in actions.acts:
        with pytest.raises(InputError) as refused:
            actions.do(OTHER, {"act": act, "job": job.id, "to": "generate"})
        with pytest.raises(InputError) as unknown:
            actions.do(OTHER, {"act": act, "job": "0" * 16, "to": "generate"})
        assert str(refused.value).replace(job.id, "0" * 16) == str(unknown.value)  # it tells nothing
    assert actions.service.paths(job)
    assert [one.id for one in actions.service.jobs.of(me)] == [job.id]
    strip = history_html(actions.service, actions.service.jobs.of(OTHER), actions.service.mark(OTHER))
    assert job.id not in strip


@pytest.mark.parametrize("about", [{}, {"act": "open"}, {"act": "rm"}, {"act": ["open"]}, {"act": "use", "job": {}}])
def test_what_no_page_says_is_refused_in_one_line(actions, me, about):
    with pytest.raises(InputError):
        actions.do(me, about)


def test_use_settings_fills_in_the_form(actions, me):
    job = drawn(actions.service, me, "three stars", size="72x80", number=2, negative="cats", guidance=3.5)
    updates = actions.do(me, {"act": "use", "job": job.id})
    fields = actions.panels["generate"].fields
    expected = {"prompt": "three stars", "width": "72", "height": "80", "steps": "2", "seed": "5", "number": 2}
    expected |= {"negative": "cats", "guidance": "3.5", "model": "tiny", "two_pass": False, "two_pass_strength": 0.5}
    assert {name: kept(updates, fields[name]) for name in expected} == expected


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"detect"}))
def test_a_form_that_is_filled_in_asks_for_the_same_job(actions, me, kind):
    panel = actions.panels[kind]
    first = panel.read({name: field.value for name, field in panel.fields.items()})
    job = actions.service.submit(me, kind, first)
    shown = {name: field.value for name, field in panel.fields.items()}
    updates = actions.do(me, {"act": "use", "job": job.id})
    shown |= {name: kept(updates, field) for name, field in panel.fields.items()}
    again = actions.service.submit(me, kind, panel.read(shown | {"model": job.asked["model"] or "bundled"}))
    names = job.asked.keys() - {"seed", "model", "name", "native"}
    assert {name: again.asked[name] for name in names} == {name: job.asked[name] for name in names}


def test_again_makes_the_same_and_vary_another_seed(actions, me):
    job = drawn(actions.service, me)
    actions.do(me, {"act": "again", "job": job.id})
    actions.do(me, {"act": "vary", "job": job.id})
    varied, again, _ = actions.service.jobs.of(me)
    assert again.asked == job.asked
    assert varied.asked["seed"] != job.asked["seed"]
    assert {**varied.asked, "seed": 5} == job.asked


def test_a_prompt_goes_to_count_with_its_number(actions, me):
    job = drawn(actions.service, me, "Seven apples on a table")
    assert "count" in targets(job)
    updates = actions.do(me, {"act": "send", "to": "count", "job": job.id})
    fields = actions.panels["count"].fields
    shown = {name: kept(updates, fields[name]) for name in ("n", "label", "second", "prompt", "model")}
    assert shown == {"n": 7, "label": "apple", "second": "", "prompt": "{count} apples on a table", "model": "tiny"}
    plain = drawn(actions.service, me, "a sunset")
    assert targets(plain) == ["detect"]
    with pytest.raises(InputError, match="no number"):
        actions.do(me, {"act": "send", "to": "count", "job": plain.id})


def test_the_tokens_of_a_search_are_tried_on_another_prompt(actions, me, tokens, models):
    service = actions.service
    job = service.submit(me, "count", {"counts": {"cat": 2, "star": 3}, **QUICK})
    service.jobs.finish(job, DONE, {"files": [], "images": [{"tokens": ["cat-2", "star-3"]}]})
    job = service.jobs.get(job.id)
    assert "data-act='try'" in actions_html(job, False)
    updates = actions.do(me, {"act": "try", "job": job.id})
    fields = actions.panels["generate"].fields
    assert kept(updates, fields["prompt"]) == "{cat} cats and {star} stars on a white background"
    assert kept(updates, fields["count_tokens"]).value == ["cat-2", "star-3"]
    assert (kept(updates, fields["model"]), kept(updates, fields["seed"])) == ("tiny", "")
    service.jobs.finish(job, DONE, {"images": [{"tokens": ["gone"]}]})
    with pytest.raises(InputError, match="the tokens of this search no longer exist"):
        actions.do(me, {"act": "try", "job": job.id})


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("two cats and a dog", ({"cat": 2, "dog": 1}, "{cat} cats and {dog} dog")),
        ("2 cats", ({"cat": 2}, "{count} cats")),
        ("two cats, a cat", None),
        ("{count} cats, two dogs", None),
        ("cats", None),
    ],
)
def test_counted_prompts(prompt, expected):
    assert counted_prompt(prompt) == expected


def test_delete_removes_the_files_and_only_of_ended_jobs(actions, me):
    service = actions.service
    job, waiting = drawn(service, me), service.submit(me, "generate", {"prompt": "x", **QUICK})
    folder = service.files / job.folder
    actions.do(me, {"act": "delete", "job": job.id})
    assert not folder.exists()
    assert [one.id for one in service.jobs.of(me)] == [waiting.id]
    with pytest.raises(InputError, match="cancel it"):
        actions.do(me, {"act": "delete", "job": waiting.id})
    actions.do(me, {"act": "cancel", "job": waiting.id})
    assert service.jobs.get(waiting.id).state == CANCELLED
    updates = actions.do(me, {"act": "delete", "job": waiting.id})
    assert kept(updates, actions.panels["generate"].actions) == ""


def test_an_evaluation_is_called_by_what_it_compares(actions, me):
    values = {"model": "tiny", "number": 3, "methods": ["plain", "two_pass"], "sizes": ["96x64"]}
    job = actions.service.submit(me, "evaluate", values)
    assert "3 prompts: plain, two pass" in history_html(actions.service, [job], "m")


def test_what_is_asked_for_is_escaped(actions, me):
    job = drawn(actions.service, me, "<script>alert('x')</script>\" onload='y'")
    for text in (
        history_html(actions.service, [job], "m"),
        list_html(actions.service, [job], "Ended"),
        actions_html(job, True),
    ):
        assert "<script" not in text and "onload='" not in text


def test_a_form_comes_back_to_its_owner_only(actions, me):
    from t2i_tools.ui.kept_form import KeptForm

    with gr.Blocks():
        fields = {"prompt": gr.Textbox("x"), "n": gr.Slider(1, 9, 5), "kind": gr.Dropdown(["a", "b"], value="a")}
        form = KeptForm(actions.service, "test", fields, {})
    mark = actions.service.mark
    values = {"prompt": "two cats", "n": 7, "kind": "b"}
    assert form.restored(me, {"owner": mark(me), "values": values}) == ["two cats", 7, "b"]
    nothing = [gr.skip()] * 3
    assert form.restored(OTHER, {"owner": mark(me), "values": values}) == nothing
    wrong = {"prompt": ["x"], "n": 99, "kind": "gone"}
    for kept in (None, "text", {"owner": mark(me)}, {"owner": mark(me), "values": wrong}):
        assert form.restored(me, json.loads(json.dumps(kept))) == nothing

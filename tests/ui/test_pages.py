"""The pages without a browser: what their controls hold at the start is a job, and jobs of each kind can be shown."""

from dataclasses import replace

import pytest
from PIL import Image

from t2i_tools.errors import InputError
from t2i_tools.ui.errors import FieldError
from t2i_tools.ui.jobs import KINDS


@pytest.fixture(scope="module")
def pages(options, tmp_path_factory):
    """service, and kind -> (fields, read, results, show) of its tab."""
    from t2i_tools.ui.app import build
    from t2i_tools.ui.job_panel import JobPanel
    from t2i_tools.ui.service import Service

    wired, connect = {}, JobPanel.connect

    def noted(panel, *values, **named):
        connect(panel, *values, **named)
        wired[panel.kind] = (panel.fields, panel.read, panel.results, panel.show)

    service = Service(replace(options, output=tmp_path_factory.mktemp("pages")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobPanel, "connect", noted)
        build(service)
    yield service, wired
    service.jobs.close()


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"detect"}))  # which waits for images
def test_a_page_as_it_opens_is_a_job_that_can_be_shown(pages, kind):
    service, wired = pages
    fields, read, results, show = wired[kind]
    job = service.submit("me", kind, read({name: field.value for name, field in fields.items()}))
    assert service.jobs.get(job.id).state == "queued"
    assert len(show(job)) == len(results)


def test_two_classes_of_a_count_are_two(pages):
    fields, read, *_ = pages[1]["count"]
    shown = {name: field.value for name, field in fields.items()}
    assert read({**shown, "second": "dog"})["counts"] == {"cat": 5, "dog": 2}
    with pytest.raises(InputError, match="both classes are cat"):
        read({**shown, "second": "cat"})


def test_the_grid_notes_the_words_of_all_its_cells(pages):
    from t2i_tools.ui.pages.grid import prompts_of

    fields = pages[1]["grid"][0]
    shown = {name: field.value for name, field in fields.items()}
    red, blue = prompts_of(shown, 9)
    assert (red, blue) == ("three cats on a red background", "three cats on a blue background")
    assert prompts_of(shown, 5) == prompts_of({**shown, "down_values": ""}, 9) == [shown["prompt"]]  # six cells; none


def test_an_image_to_start_from_stays_unread_when_the_page_updates_its_field():
    """Gradio then builds the field anew from its class."""
    from types import SimpleNamespace

    from t2i_tools.ui.pages.generate_controls import StartImage

    first = StartImage(type="filepath", label="Start")
    again = type(first)(**first.constructor_args)
    assert again.preprocess(SimpleNamespace(path="no-image.png")) == "no-image.png"
    assert (again.preprocess(None), again.get_block_name()) == (None, "image")


@pytest.mark.parametrize(
    ("kind", "given", "field"),
    [
        ("grid", {"across_values": ""}, "across_values"),
        ("grid", {"down": ""}, "down"),
        ("evaluate", {"question": "My own prompts, with their counts"}, "prompts"),
    ],
)
def test_what_is_left_out_is_asked_for_at_its_field(pages, kind, given, field):
    fields, read, *_ = pages[1][kind]
    with pytest.raises(FieldError) as error:
        read({**{name: one.value for name, one in fields.items()}, **given})
    assert error.value.field == field


def test_a_grid_of_one_axis(pages):
    fields, read, *_ = pages[1]["grid"]
    shown = {name: field.value for name, field in fields.items()}
    assert read({**shown, "down": "", "down_values": ""})["axes"] == ["steps=5, 10, 20"]


def test_the_question_of_searches_is_forecast_with_their_budget(pages, monkeypatch):
    """At most: plain images, and a budget for every search; what steers is in the job only where something searches."""
    from t2i_tools.ui.pages.evaluate import QUESTIONS
    from t2i_tools.ui.values import read_values

    service, wired = pages
    fields, read, *_ = wired["evaluate"]
    shown = {name: field.value for name, field in fields.items()}
    assert not {"detector", "budget"} & read({**shown, "methods": ["plain"]}).keys()
    asked = {**shown, **QUESTIONS["Does the search make counts exact?"], "sizes": "", "number": 4, "budget": 10}
    values = read_values(KINDS["evaluate"].values, read(asked))
    assert (values.methods, values.detector, values.budget) == (["plain", "bisection+best_of"], "bundled_counter", 10)
    assert service.forecast("evaluate", values).startswith("up to 44 images")
    monkeypatch.setattr(service.registry, "usual_steps", lambda model: 20)
    monkeypatch.setattr(service.pace, "_known", {f"evaluate {service.model_of(values)}": 0.1})
    assert service.forecast("evaluate", values) == "up to 44 images, up to 88 s"
    job = service.submit("me", "evaluate", read({**asked, "number": 2}))
    assert (job.asked["detector"], job.asked["budget"]) == ("bundled_counter", 10)


def test_the_schedulers_that_are_offered_are_known():
    from t2i_tools.models.samplers import find_sampler
    from t2i_tools.ui.pages.generate_controls import SCHEDULERS

    assert all(map(find_sampler, SCHEDULERS))


def test_the_cells_of_a_grid_have_boxes(pages):
    from t2i_tools.ui.pages.grid import grid_html

    service, wired = pages
    fields, read, *_ = wired["grid"]
    shown = {name: field.value for name, field in fields.items()}
    job = service.submit("me", "grid", read({**shown, "across_values": "5", "down_values": "red"}))
    path = service.files / "cell.png"
    Image.new("RGB", (64, 64)).save(path)
    counted = {"label": "cat", "asked": 3, "counted": 1, "boxes": [[1, 2, 30, 40]]}
    made = replace(
        job, result={"cells": [{"steps": "5", "colour": "red", "cat": 1, "CLIP": 21.5}], "objects": [[counted]]}
    )
    html = grid_html(made, [path])
    assert "5; red · CLIP 21.5 · 64 × 64 · cat: 3 asked, " in html and "1 counted" in html
    assert "<rect x='1' y='2'" in html and "<span>cat 1 · CLIP 21.5</span>" in html


@pytest.mark.parametrize(
    ("images", "said"), [(2, "too few to compare; use 8 or more"), (12, "draws more exact counts")]
)
def test_a_comparison_of_few_images_claims_nothing(images, said):
    from t2i_tools.ui.pages.evaluate import headline_html

    share = {"estimate": 0.5, "low": 0.1, "high": 0.9, "images": images}
    difference = {"estimate": 1.0, "low": 1.0, "high": 1.0}  # as resampling two like ones gives it
    compared = {"group": "two_pass", "baseline": "plain", "difference": difference}
    exact = [{"name": "plain", **share}, {"name": "two_pass", **share}]
    assert said in headline_html({"exact": exact, "compared": [compared]})

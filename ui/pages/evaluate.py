"""The page on which a batch is made, judged and reported, and goes on where it was stopped."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from t2i_tools.counting.methods import DEFAULT_BUDGET, DEFAULT_METHOD
from t2i_tools.evaluation.reports.protocol import SPLITS, read_protocol
from t2i_tools.evaluation.runs.generators import GENERATORS
from t2i_tools.evaluation.runs.items import SEARCHES
from t2i_tools.images.promptfile import LABELLED, read_prompts

from .. import layout
from ..bars import bars_svg
from ..errors import FieldError
from ..job_panel import LATEST, QUIET, JobPanel
from ..pages.grid import USUAL_CLIP
from ..queue import Job
from ..registry import NONE
from ..service import Service
from ..uploads import uploaded, without_folders

Fields = dict[str, gr.components.Component]
PROMPT_FILES = [".csv", ".jsonl"]
METHODS = {
    "plain": "plain",
    "bisection+best_of": "count search: between number words, then other seeds",
    "best_of": "count search: other seeds only (best of N)",
    "two_pass": "two passes",
    "deep_shrink": "deep shrink",
    "entropy_scaling": "entropy scaling",
    "entropy_auto": "entropy scaling, as strong as each layer asks for",
    "entropy_half": "entropy scaling, half as strong",
    "entropy_log": "entropy scaling, logarithmic",
    "shifted": "noise levels shifted by size",
    "chunk": "long prompts window by window",
    "stretch": "long prompts by stretched positions",
    "entropy_opposite": "the opposite of entropy scaling (a control)",
    "entropy_extreme": "entropy scaling, 16 times as strong (a control)",
}
METHODS |= {name: name.replace("_", " ") for name in GENERATORS if name not in METHODS}
FEWEST = 8  # images, of which an interval by resampling says something
TWO_PASS = "Do two passes help at twice the size?"
OWN = "My own prompts, with their counts"
QUESTIONS: dict[str, dict[str, Any]] = {
    "How exact is this model?": {"number": 24},
    TWO_PASS: {"methods": ["plain", "two_pass"]},
    "Does the search make counts exact?": {"methods": ["plain", DEFAULT_METHOD], "counts": "4,5,7"},
    OWN: {},
}
SEARCH_FIELDS = ("detector", "budget")
IDLE = "The report will appear here. What is stopped goes on with the next start of the same settings."


def evaluate_tab(service: Service, page: gr.Blocks) -> JobPanel:
    """Builds and wires the page."""
    with gr.Row():
        with layout.inputs():
            fields = _asked(service)
            forecast = gr.HTML("", elem_id="evaluate-forecast", padding=False)
            run, cancel = layout.buttons("evaluate", "Start or go on", "Stop")
            with layout.options():
                fields |= _claim() | _details(service)
        with layout.results():
            panel = JobPanel(service, "evaluate", IDLE)
            head = gr.HTML("", elem_id="evaluate-headline", label="Result", padding=False)
            latest = layout.gallery("Latest images", 6)
            report = gr.HTML("", label="Report", padding=False)
            files = layout.downloads("Report and rows")
            panel.place_actions()

    def show(job: Job) -> list[Any]:
        paths = service.paths(job)
        made = [str(path) for path in paths if path.suffix == ".png"]
        files = [str(path) for path in paths if path.suffix != ".png"]
        return [headline_html(job.result), layout.images(made), _report(files), layout.files(files)]

    def note(*values: Any) -> str:
        shown = dict(zip(noted, values, strict=True))
        return layout.forecast(service, "evaluate", read_fields(service, {**shown, "question": "", "protocol": None}))

    read, write = partial(read_fields, service), partial(write_fields, service, fields)
    noted = {name: field for name, field in fields.items() if name not in ("question", "split", "protocol", "name")}
    news = [page.load, panel.shown.change]  # after a job the machine's pace is known better
    panel.forecast = (note, list(noted.values()), forecast)
    gr.on([*(field.change for field in noted.values()), *news], *panel.forecast, **LATEST)
    panel.connect(page, run, cancel, fields, read, [head, latest, report, files], show, write)
    return panel


def read_fields(service: Service, shown: dict[str, Any]) -> dict[str, Any]:
    """From what the controls hold to the values of the kind. Raises InputError."""
    values = layout.stripped(shown)
    if values.pop("question") == OWN and not shown["prompts"]:
        raise FieldError("prompts", "choose a file first, of one row per prompt with its class and count")
    values["sizes"] = [text.strip() for text in values["sizes"].split(",") if text.strip()]
    values["prompts"] = read_rows(service, shown["prompts"]) if shown["prompts"] else None
    if not set(values["methods"]) & set(SEARCHES):  # the controls of the search are hidden
        values = {name: value for name, value in values.items() if name not in SEARCH_FIELDS}
    values["protocol"] = read_rule(service, shown["protocol"]) if shown["protocol"] else None
    return values


def write_fields(service: Service, fields: Fields, owner: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `read_fields`, but for files, which have to be chosen again."""
    files = [fields[name].label for name in ("prompts", "protocol") if values.get(name)]
    if files:
        gr.Warning(f"Choose the files again: {', '.join(files)}")
    sizes, clip = ", ".join(values.get("sizes") or ()), values.get("clip") or ""
    shown = layout.written(service, fields, {**values, "sizes": sizes, "clip": clip, "name": None})
    return shown | {"question": OWN if values.get("prompts") else None, "prompts": None, "protocol": None}


def read_rows(service: Service, upload: Any) -> list[dict[str, Any]]:
    """The rows of an uploaded prompts file. Raises InputError."""
    path = uploaded(service, upload, PROMPT_FILES)
    with without_folders(path):
        rows = [row for _, row in read_prompts(path, LABELLED, counted=True)]
    return [{name: row[name] for name in ("prompt", "label", "count", "seed") if name in row} for row in rows]


def read_rule(service: Service, upload: Any) -> dict[str, Any]:
    """The protocol of an uploaded file. Raises InputError."""
    path = uploaded(service, upload, [".json"])
    with without_folders(path):
        return asdict(read_protocol(path))


def _asked(service: Service) -> Fields:
    """A ready-made question, which fills in the form, and what it is made of."""
    question = gr.Radio(list(QUESTIONS), value=TWO_PASS, label="Question", elem_id="evaluate-question")
    start, most = _question(service, TWO_PASS, ""), service.options.limits.items
    counts = gr.Textbox(start["counts"], label="Counts asked for", max_lines=1)
    number = gr.Slider(1, most, min(start["number"], most), step=1, label="Prompts")
    names = [(words, name) for name, words in METHODS.items()]
    methods = gr.CheckboxGroup(names, value=start["methods"], label="Methods to compare")
    steering = _search_controls(service, methods)
    sizes = gr.Textbox(start["sizes"], label="Sizes", placeholder="WxH, WxH; the model's own")
    with gr.Accordion("My own prompts", open=False) as own:
        prompts = gr.File(label="Prompts: csv or jsonl with prompt, class, count", file_types=PROMPT_FILES, height=150)
    with gr.Row():
        model = layout.chooser(list(service.registry.models()), "Model")
    asked: Fields = {"counts": counts, "number": number, "methods": methods, "sizes": sizes}

    def ask(name: str, model: str) -> list[Any]:
        values = _question(service, name, model)
        return [*(values[key] for key in asked), gr.Accordion(open=name == OWN)]

    question.input(ask, [question, model], [*asked.values(), own], **QUIET)
    return {"question": question} | asked | steering | {"prompts": prompts, "model": model}


def _search_controls(service: Service, methods: gr.CheckboxGroup) -> Fields:
    """The controls of the search, visible only while a search method is selected."""
    limit = service.options.limits.budget
    with gr.Column(visible=False) as part:
        detector = layout.chooser(list(service.registry.detectors()), "Detector that steers the search")
        budget = gr.Slider(
            1,
            limit,
            min(int(DEFAULT_BUDGET), limit),
            step=1,
            label="Budget per image",
            info="The most a search may cost, in plain images' worth of compute",
        )

    def show(chosen: list[str]) -> gr.Column:
        return gr.Column(visible=bool(set(chosen) & set(SEARCHES)))

    methods.change(show, methods, part, **LATEST)
    return {"detector": detector, "budget": budget}


def _question(service: Service, name: str, model: str) -> dict[str, Any]:
    """The form of a question; a size of twice the pixels that the model was trained on."""
    values = {"counts": "2,3,4,5,7,10", "number": 12, "methods": ["plain"], "sizes": ""} | QUESTIONS[name]
    if name == TWO_PASS:
        size = service.registry.model_size(model or next(iter(service.registry.models())))
        height, width = size.native if size else (512, 512)
        values["sizes"] = f"{2 * width}x{height}"
    return values


def _claim() -> dict[str, gr.components.Component]:
    with gr.Accordion("Test split and protocol", open=False):
        split = gr.Radio(
            list(SPLITS), value="dev", label="Split", info="Tune on dev; test is for what was claimed before"
        )
        protocol = gr.File(label="Protocol: what is claimed, as json", file_types=[".json"], height=150)
    return {"split": split, "protocol": protocol}


def _details(service: Service) -> dict[str, gr.components.Component]:
    registry = service.registry
    with gr.Accordion("Steps, judges, name", open=False):
        steps = layout.steps_box()
        judge = layout.chooser(list(registry.judges()), "Judge that counts")
        clip = layout.chooser([USUAL_CLIP, *registry.clips(), NONE], "CLIP that scores")
        name = gr.Textbox("", label="Name", placeholder="drawn from the settings")
    return {"steps": steps, "judge": judge, "clip": clip, "name": name}


def headline_html(result: Mapping[str, Any]) -> str:
    """How many counts were exact by each method, with an interval, and whether the methods differ."""
    if not result.get("exact"):
        return ""
    lines = [
        f"<p><strong>{escape(_words(one['name']))}: {one['estimate']:.0%} exact</strong> of {one['images']} images "
        f"[{one['low']:.0%}, {one['high']:.0%}]</p>"
        for one in result["exact"]
    ]
    fewest = min(one["images"] for one in result["exact"])
    lines += [f"<p>{escape(_compared(one, fewest))}</p>" for one in result.get("compared", ())]
    bars = [(_words(one["name"]), one, None) for one in result["exact"]]
    chart = bars_svg(bars, "Share of exact counts, with 95 % intervals")
    return f"<div class='t2i-status t2i-headline'>{''.join(lines)}{chart}</div>"


def _compared(one: Mapping[str, Any], images: int) -> str:
    """In a sentence what the difference between two methods is. images: of each."""
    low, high, pair = one["difference"]["low"], one["difference"]["high"], (one["group"], one["baseline"])
    name, other = map(_words, pair)
    if images < FEWEST:
        return f"{name} against {other}: {images} images of each are too few to compare; use {FEWEST} or more"
    if low is None or high is None or low <= 0 <= high:
        return f"{name} against {other}: these images do not show whether they differ"
    word = "more" if low > 0 else "fewer"
    difference = one["difference"]["estimate"]
    return f"{name} draws {word} exact counts than {other}: {difference:+.0%} [{low:+.0%}, {high:+.0%}]"


def _words(group: str) -> str:
    """The name of a method, or of one at a size, as the page calls it."""
    method, _, size = group.partition(" ")
    return " ".join(filter(None, [METHODS.get(method, method), size]))


def _report(paths: list[str]) -> str:
    """The report in a frame that may run its own scripts and reach nothing of this page."""
    html = next((path for path in paths if path.endswith("report.html")), None)
    if html is None:
        return ""
    with open(html, encoding="utf-8") as file:
        text = escape(file.read(), quote=True)
    button = "<button type='button' data-act='report'>Open the report in a tab of its own</button>"
    frame = f"<iframe class='t2i-report' title='Report' sandbox='allow-scripts' srcdoc=\"{text}\"></iframe>"
    return f"<p class='t2i-actions'>{button}</p>{frame}"

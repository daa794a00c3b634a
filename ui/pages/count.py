"""The page on which images are searched that hold an exact number of objects."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import gradio as gr

from t2i_tools.bundled.scenes import LABELS
from t2i_tools.errors import InputError

from .. import layout, render
from ..job_panel import LATEST, QUIET, JobPanel
from ..jobs.count import CountValues, usual_prompt
from ..queue import Job
from ..ruler import vocabulary_html
from ..search_charts import charts_html, strip_html
from ..service import Service
from ..stage import Figure, stage_html

METHODS = {
    "token between number words, and other seeds": "bisection+best_of",
    "token between number words": "bisection",
    "other seeds (best of N)": "best_of",
    "token by gradient": "token",
    "token by gradient, and other seeds": "token+best_of",
    "noise": "noise",
    "noise and other seeds": "noise+best_of",
    "token and noise": "token+noise",
    "plain": "plain",
}
NAMES = {method: name for name, method in METHODS.items()}
Fields = dict[str, gr.components.Component]
WANTED = ("n", "label", "second_n", "second")


def count_tab(service: Service, page: gr.Blocks) -> JobPanel:
    """Builds and wires the page."""
    with gr.Row():
        with layout.inputs():
            fields = _wanted()
            vocabulary = gr.HTML("", elem_id="count-vocabulary", padding=False)
            run, cancel = layout.buttons("count", "Search", "Stop")
            with layout.options():
                fields |= _search(service) | _details(service)
        with layout.results():
            panel = JobPanel(service, "count", "The trials of the search will appear here. Stopping it keeps the best.")
            stage = gr.HTML("", elem_id="count-stage", label="The best of each search", padding=False)
            panel.place_actions()
            strip = gr.HTML("", label="Trials", padding=False)
            rows = gr.HTML("", label="Results", padding=False)
            charts = gr.HTML("", elem_id="count-charts", label="Charts", padding=False)
            tokens = layout.downloads("Count tokens")

    def show(job: Job) -> list[Any]:
        progress, found = service.progress(job), job.result.get("images", ())
        events = progress.strip if progress else job.result.get("strip", ())
        known = service.registry.of(job.owner).tokens()
        learned = [str(known[name]) for row in found for name in row["tokens"] if name in known]
        return [
            stage_html(_figures(service, job), name="search"),
            strip_html(events, NAMES),
            charts_html(events, job.asked["counts"], job.asked["method"]),
            render.table(map(_row, found), "What the detector that steered and the judge counted in the best images"),
            layout.files(learned),
        ]

    def note(*values: Any) -> str:
        asked = dict(zip(noted, values, strict=True))
        return vocabulary_html(asked["model"], asked["prompt"] or usual_prompt(_counts(asked)))

    noted = {name: fields[name] for name in (*WANTED, "prompt", "model")}
    gr.on([field.change for field in noted.values()], note, list(noted.values()), vocabulary, **LATEST)
    shown = [stage, strip, charts, rows, tokens]
    write, also = partial(write_fields, service, fields), [fields["prompt"].submit]
    panel.connect(page, run, cancel, fields, read_fields, shown, show, write, also, places={"counts": "n"})
    return panel


def read_fields(shown: dict[str, Any]) -> dict[str, Any]:
    """From what the controls hold to the values of the kind. Raises InputError."""
    shown = layout.stripped(shown)
    values = {name: value for name, value in shown.items() if name not in WANTED}
    if shown["second"] and shown["second"] == shown["label"]:
        raise InputError(f"both classes are {shown['label']}: leave the second out, or choose another")
    return values | {"counts": _counts(shown), "method": METHODS[shown["method"]]}


def write_fields(service: Service, fields: Fields, owner: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `read_fields`; what the values do not say is as at the start."""
    counts = dict(values.get("counts") or {})
    shown = layout.written(service, fields, values)
    pairs = [*counts.items(), ("", fields["second_n"].value)][:2]
    (shown["label"], shown["n"]), (shown["second"], shown["second_n"]) = pairs
    if counts and values.get("prompt") == usual_prompt(counts):
        shown["prompt"] = ""
    return shown | {"method": NAMES.get(values.get("method") or "", fields["method"].value)}


def _wanted() -> dict[str, gr.components.Component]:
    """What is to be in the image. The prompt, while it is empty, follows the classes."""
    with gr.Row():
        n = gr.Slider(1, 20, 5, step=1, label="How many", min_width=140)
        label = gr.Dropdown(list(LABELS), value="cat", allow_custom_value=True, label="Of what", min_width=110)
    with gr.Accordion("Two classes at once", open=False), gr.Row():
        second_n = gr.Slider(1, 20, 2, step=1, label="And how many", min_width=140)
        second = gr.Dropdown(["", *LABELS], value="", allow_custom_value=True, label="Of what else", min_width=110)
    prompt = gr.Textbox(
        "",
        label="Prompt",
        lines=2,
        placeholder=usual_prompt({label.value: n.value}),
        info="{count} stands for the number, with two classes {cat} and {dog}",
        elem_id="count-prompt",
    )

    wanted = {"n": n, "label": label, "second_n": second_n, "second": second}

    def example(*shown: Any) -> gr.Textbox:
        return gr.Textbox(placeholder=usual_prompt(_counts(dict(zip(wanted, shown, strict=True)))))

    gr.on([one.change for one in wanted.values()], example, list(wanted.values()), prompt, **QUIET)
    return wanted | {"prompt": prompt}


def _counts(shown: dict[str, Any]) -> dict[str, int]:
    """Class -> number."""
    return {shown[label]: shown[n] for label, n in (("label", "n"), ("second", "second_n")) if shown[label]}


def _search(service: Service) -> dict[str, gr.components.Component]:
    limits, usual = service.options.limits, CountValues()
    method = gr.Radio(
        list(METHODS),
        value=NAMES[usual.method],
        label="What the search changes",
        info="A token can be used again in other prompts, a noise is for one image",
    )
    compare = gr.Checkbox(False, label="Afterwards compare with the plain image and with other seeds")
    with gr.Row():
        number = gr.Slider(1, limits.images, 1, step=1, label="Images", min_width=140)
        until = gr.Checkbox(False, label="Continue until this many are exact", min_width=140)
    keep = gr.Checkbox(False, label="Keep the tokens of searches that end without the exact number, too")
    name = gr.Textbox("", label="Name of the token", placeholder="by default from class, number and seed", max_lines=1)
    budget = gr.Slider(
        1,
        limits.budget,
        min(usual.budget, limits.budget),
        step=1,
        label="Budget per image",
        info="The most a search may cost, in plain images' worth of compute",
    )
    fields = {"method": method, "compare": compare, "number": number, "until_exact": until, "budget": budget}
    return fields | {"keep_tokens": keep, "token_name": name}


def _details(service: Service) -> dict[str, gr.components.Component]:
    registry = service.registry
    with gr.Accordion("Size, steps, seed, model, judge", open=False):
        with gr.Row():
            size, seed = layout.size_box(), layout.seed_box()
        steps = layout.steps_box()
        negative = gr.Textbox("", label="Negative prompt", placeholder="What the image should not show")
        model = layout.chooser(list(registry.models()), "Model")
        with gr.Row():
            detector = layout.chooser(list(registry.detectors()), "Detector that steers", min_width=140)
            judge = layout.chooser(list(registry.judges()), "Judge that only counts", min_width=140)
    fields = {"size": size, "seed": seed, "steps": steps, "negative": negative, "model": model}
    return fields | {"detector": detector, "judge": judge}


def _figures(service: Service, job: Job) -> list[Figure]:
    """The best of each search, that of the method asked for first."""
    rows = list(zip(service.paths(job), job.result.get("images", ()), strict=False))
    rows.sort(key=lambda one: one[1]["method"] != job.asked["method"])
    return [
        Figure(path, f"{NAMES.get(row['method'], row['method'])}, seed {row['seed']}", row.get("objects", ()))
        for path, row in rows
    ]


def _row(row: dict[str, Any]) -> dict[str, Any]:
    seen = {"counter": row["counted"], "judge": row["judged"], "exact": row["exact"], "trials": row["steps"]}
    return {"search": NAMES.get(row["method"], row["method"]), "seed": row["seed"]} | seen

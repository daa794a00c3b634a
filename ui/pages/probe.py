"""The page on which one sees what the padding of a prompt does."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from t2i_tools.workflows.probe import default_rows

from .. import layout, render
from ..bars import bars_svg
from ..job_panel import LATEST, JobPanel
from ..jobs.probe import USUAL
from ..queue import Job
from ..service import Service
from ..stage import Figure, matrix_html, stage_html

CONDITIONS = {
    "all of it": "full",
    "the prompt": "prompt",
    "the padding": "pads",
    "nothing": "clean",
    "the padding of another prompt": "swapped",
    "the end token": "eos",
    "noise for the padding": "noise",
    "first fifth of the padding": "pads:1/5",
    "last fifth of the padding": "pads:5/5",
    "ten rows of padding at random": "random:10",
}
NAMES = {condition: words for words, condition in CONDITIONS.items()}
PROMPTS = "\n".join(row["prompt"] for row in default_rows())


def probe_tab(service: Service, page: gr.Blocks) -> JobPanel:
    """Builds and wires the page."""
    with gr.Row():
        with layout.inputs():
            prompts = gr.Textbox(
                PROMPTS,
                label="Prompts, one per line",
                lines=6,
                info="It takes 8 or more for a verdict, that the model draws right",
                elem_id="prompts",
            )
            forecast = gr.HTML("", elem_id="probe-forecast", padding=False)
            run, cancel = layout.buttons("probe", "Probe")
            with layout.options():
                fields = {"prompts": prompts} | _details(service)
        with layout.results():
            panel = JobPanel(
                service, "probe", "The verdict will appear here: what the padding does, and how sure that is."
            )
            verdict = gr.HTML("", label="Verdict", padding=False)
            stage = gr.HTML("", elem_id="probe-stage", label="Images", padding=False)
            panel.place_actions()
            table = gr.HTML("", label="Scores", padding=False)

    def show(job: Job) -> list[Any]:
        rows = render.table(map(_row, job.result.get("rows", ())), "Scores, with 95 % intervals over prompts")
        return [verdict_html(job.result), matrix(job, service.paths(job)), rows]

    def note(*values: Any) -> str:
        return layout.forecast(service, "probe", read_fields(dict(zip(fields, values, strict=True))))

    noted = [fields[name].change for name in ("prompts", "conditions", "seeds", "steps", "size", "model")]
    news = [page.load, panel.shown.change]  # after a job the machine's pace is known better
    panel.forecast = (note, list(fields.values()), forecast)
    gr.on([*noted, *news], *panel.forecast, **LATEST)

    def write(owner: str, values: Mapping[str, Any]) -> dict[str, Any]:
        return layout.written(service, fields, {**values, "prompts": "\n".join(values.get("prompts") or ())})

    panel.connect(page, run, cancel, fields, read_fields, [verdict, stage, table], show, write)
    return panel


def read_fields(shown: dict[str, Any]) -> dict[str, Any]:
    """From what the controls hold to the values of the kind."""
    values = layout.stripped(shown)
    prompts = [line.strip() for line in (shown["prompts"] or "").splitlines() if line.strip()]
    return values | {"prompts": prompts, "seed": values["seed"] or 0}


def _details(service: Service) -> dict[str, gr.components.Component]:
    conditions = gr.CheckboxGroup(list(CONDITIONS.items()), value=USUAL, label="What keeps its own rows of text")
    with gr.Accordion("Seeds, size, steps, model", open=False):
        with gr.Row():
            seeds = gr.Slider(1, 20, 1, step=1, label="Images of each", min_width=140)
            seed = layout.seed_box("0", "First seed")
        size = layout.size_box()
        steps = layout.steps_box(10)
        model = layout.chooser(list(service.registry.models()), "Model")
        clip = layout.chooser(list(service.registry.clips()), "CLIP that scores")
    fields = {"conditions": conditions, "seeds": seeds, "seed": seed, "size": size}
    return fields | {"steps": steps, "model": model, "clip": clip}


def verdict_html(result: Mapping[str, Any]) -> str:
    """The verdict in words, and where the first prompt has its words and its padding."""
    if not result:
        return ""
    word, _, meaning = result.get("verdict", "").partition(": ")
    note = f"<p class='t2i-hint'>{escape(result['note'])}</p>" if result.get("note") else ""
    spans = "".join(map(_spans, result.get("spans", ())))
    said = f"<p class='t2i-verdict'><strong>{escape(word)}</strong>: {escape(meaning)}</p>"
    return f"<div class='t2i-status'>{said}{shares_html(result)}{note}{spans}</div>"


def shares_html(result: Mapping[str, Any]) -> str:
    """What the padding carries of the prompt's effect, and what is lost without it, by each metric with a vote."""
    bars = []
    for metric, threshold in result.get("thresholds", {}).items():
        for route, carried in result["use"].get(metric, {}).items():
            needed, where = result["need"][metric][route], f" ({route})" if len(result["use"][metric]) > 1 else ""
            bars.append((f"carried, by {metric}{where}", carried, threshold))
            bars.append((f"needed, by {metric}{where}", needed, threshold))
    return (
        bars_svg(bars, "Share of the prompt's effect, with intervals; dashed: the threshold of a yes") if bars else ""
    )


def matrix(job: Job, paths: Sequence[Path]) -> str:
    """The images that the probe kept: what keeps its own rows of text across, prompts down."""
    heads = job.result.get("matrix")
    if not heads:  # a probe of an earlier version, or one that did not end
        return stage_html([Figure(path, path.stem.partition("-")[2].replace("-", " ")) for path in paths])
    several = len({route for route, _ in heads["columns"]}) > 2  # both routes beside the plain image
    columns = [_head(route, condition, several) for route, condition in heads["columns"]]
    rows = [
        f"{prompt} (seed {seed})" if len(set(heads["seeds"])) > 1 else prompt
        for prompt, seed in zip(heads["prompts"], heads["seeds"], strict=True)
    ]
    names = [f"{row}; kept: {column}" for row in rows for column in columns]
    figures = [Figure(path, name) for path, name in zip(paths, names, strict=False)]
    return matrix_html(columns, rows, figures, corner="prompt \\ what keeps its own rows of text")


def _head(route: str, condition: str, several: bool) -> str:
    """A condition in the words of the check boxes."""
    words = NAMES.get(condition, condition)
    return f"{words} ({route})" if several and route != "plain" else words


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "condition": NAMES.get(str(row["condition"]), row["condition"])}


def _spans(spans: Mapping[str, Any]) -> str:
    words = "".join(f"<span class='t2i-token'>{escape(text)}</span>" for text, _, _ in spans["words"])
    pads = spans["pads"][1] - spans["pads"][0]
    return (
        f"<p class='t2i-ruler' aria-label='Rows of text'><span class='t2i-hint'>{escape(spans['encoder'])}</span> "
        f"<span class='t2i-end'>begin</span>{words}<span class='t2i-end'>end</span>"
        f"<span class='t2i-pads'>{pads} rows of padding</span></p>"
    )

"""The page on which one sees what the padding of a prompt does."""

from collections.abc import Mapping
from html import escape
from typing import Any

import gradio as gr

from t2i_tools.workflows.probe import default_rows

from .. import layout, render
from ..job_panel import JobPanel
from ..jobs.probe import USUAL
from ..queue import Job
from ..service import Service

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
PROMPTS = "\n".join(row["prompt"] for row in default_rows())


def probe_tab(service: Service, page: gr.Blocks) -> None:
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
            run, cancel = layout.buttons("probe", "Probe")
            with layout.options():
                fields = {"prompts": prompts} | _details(service)
        with layout.results():
            panel = JobPanel(
                service, "probe", "The verdict will appear here: what the padding does, and how sure that is."
            )
            verdict = gr.HTML("", label="Verdict", padding=False)
            gallery = layout.gallery("Images", 5)
            table = gr.HTML("", label="Scores", padding=False)

    def show(job: Job) -> list[Any]:
        images = [(str(path), path.stem.partition("-")[2].replace("-", " ")) for path in service.paths(job)]
        rows = render.table(job.result.get("rows", ()), "Scores, with 95 % intervals over prompts")
        return [verdict_html(job.result), layout.images(images), rows]

    panel.connect(page, run, cancel, fields, read_fields, [verdict, gallery, table], show)


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
    return f"<div class='t2i-status'><p><strong>{escape(word)}</strong>: {escape(meaning)}</p>{note}{spans}</div>"


def _spans(spans: Mapping[str, Any]) -> str:
    words = "".join(f"<span class='t2i-token'>{escape(text)}</span>" for text, _, _ in spans["words"])
    pads = spans["pads"][1] - spans["pads"][0]
    return (
        f"<p class='t2i-ruler' aria-label='Rows of text'><span class='t2i-hint'>{escape(spans['encoder'])}</span> "
        f"<span class='t2i-end'>begin</span>{words}<span class='t2i-end'>end</span>"
        f"<span class='t2i-pads'>{pads} rows of padding</span></p>"
    )

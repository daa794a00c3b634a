"""The page on which one sees what the padding of a prompt does."""

from collections.abc import Mapping
from html import escape
from typing import Any

import gradio as gr

from t2i_tools.ui import view
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.jobs import Job
from t2i_tools.ui.kinds.probe import USUAL
from t2i_tools.ui.panel import Panel

CONDITIONS = ["full", "prompt", "pads", "clean", "swapped", "eos", "noise", "pads:1/5", "pads:5/5", "random:10"]
PROMPTS = "two cats on a green background\na red car\nthree stars on a blue background\na dog at the top left"


def probe_tab(desk: Desk, page: gr.Blocks) -> None:
    """Builds and wires the page."""
    models, clips = list(desk.shelf.models()), list(desk.shelf.clips())
    with gr.Row():
        with gr.Column(scale=5, min_width=320, elem_classes="t2i-inputs"):
            prompts = gr.Textbox(
                PROMPTS, label="Prompts, one a line", lines=4, info="The more, the surer the verdict", elem_id="prompts"
            )
            with gr.Row():
                run = gr.Button("Probe", variant="primary", scale=3, min_width=120, elem_id="probe-run")
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90)
            with gr.Column(elem_classes="t2i-options"):
                conditions = gr.CheckboxGroup(CONDITIONS, value=USUAL, label="Rows of text that stay the prompt's own")
                with gr.Accordion("Seeds, size, steps, model", open=False):
                    with gr.Row():
                        seeds = gr.Slider(1, 20, 1, step=1, label="Images of each", min_width=140)
                        seed = gr.Textbox("0", label="First seed", max_lines=1, min_width=110)
                    size = gr.Textbox("", label="Size", placeholder="WxH; the model's own")
                    steps = gr.Slider(0, desk.options.limits.steps, 10, step=1, label="Steps (0: usual)")
                    model = gr.Dropdown(models, value=models[0], label="Model")
                    clip = gr.Dropdown(clips, value=clips[0], label="CLIP that scores")
        with gr.Column(scale=6, min_width=320, elem_classes="t2i-results"):
            panel = Panel(desk, "probe", "Ready: the verdict will appear here.")
            verdict = gr.HTML("", label="Verdict", padding=False)
            gallery = gr.Gallery(label="Images", columns=5, fit_columns=False, height="auto", object_fit="contain")
            table = gr.HTML("", label="Scores", padding=False)
    fields = {"prompts": prompts, "conditions": conditions, "seeds": seeds, "seed": seed, "size": size}
    fields |= {"steps": steps, "model": model, "clip": clip}

    def show(job: Job) -> list[Any]:
        pictures = [(str(path), path.stem.partition("-")[2].replace("-", " ")) for path in desk.paths(job)]
        rows = view.table(job.result.get("rows", ()), "CLIP scores and similarity, with 95 % intervals over prompts")
        return [verdict_html(job.result), pictures, rows]

    panel.connect(page, run, cancel, fields, read_fields, [verdict, gallery, table], show)


def read_fields(shown: dict[str, Any]) -> dict[str, Any]:
    """From what the controls hold to the values of the kind."""
    prompts = [line.strip() for line in (shown["prompts"] or "").splitlines() if line.strip()]
    return shown | {"prompts": prompts, "steps": shown["steps"] or None, "seed": (shown["seed"] or "").strip() or 0}


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

"""The page on which images are made."""

import math
from functools import partial
from typing import Any

import gradio as gr

from t2i_tools.cli.options import BUNDLED
from t2i_tools.entropy.gain import RULES
from t2i_tools.errors import InputError, T2IError
from t2i_tools.imagefile import read_settings
from t2i_tools.ui import view
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.jobs import Job
from t2i_tools.ui.kinds.generate import restored, start_path
from t2i_tools.ui.owner import page_owner
from t2i_tools.ui.panel import Panel
from t2i_tools.ui.ruler import ruler_html
from t2i_tools.ui.uploads import keep_start, settings_of

SHAPES = {"Square": 1.0, "Landscape": 4 / 3, "Portrait": 3 / 4, "Wide": 16 / 9, "Tall": 9 / 16}
SCALES = {"half": 0.5, "as trained": 1.0, "1.5 times": 1.5, "double": 2.0}
READING = [("cut", ""), ("window by window", "chunk"), ("stretched positions", "stretch")]
SCALING = [("off", "off"), ("on", "on"), ("side by side", "compare")]
ACTED = {"entropy_scaling": "entropy scaling", "two_pass": "two passes", "long_prompts": "long prompt"}
ACTED |= {"count_token": "count token", "image": "from an image"}
EXAMPLE = "seven apples on a blue background"


def generate_tab(desk: Desk, page: gr.Blocks) -> None:
    """Builds and wires the page."""
    limits, models = desk.options.limits, list(desk.shelf.models())
    with gr.Row():
        with gr.Column(scale=5, min_width=320, elem_classes="t2i-inputs"):
            prompt = gr.Textbox(
                EXAMPLE, label="Prompt", lines=3, placeholder="What to draw. Shift+Enter generates.", elem_id="prompt"
            )
            ruler = gr.HTML("", elem_id="ruler", padding=False)
            with gr.Row():
                run = gr.Button("Generate", variant="primary", scale=3, min_width=120, elem_id="generate")
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90, elem_id="generate-cancel")
            with gr.Column(elem_classes="t2i-options"):
                shape = gr.Radio(list(SHAPES), value="Square", label="Shape")
                with gr.Row(elem_classes="t2i-seed"):
                    seed = gr.Textbox(
                        "", label="Seed", placeholder="random", max_lines=1, min_width=120, elem_id="seed"
                    )
                    dice = gr.Button("Random", size="sm", min_width=80, scale=0, elem_id="seed-random")
                    again = gr.Button("Last used", size="sm", min_width=90, scale=0, elem_id="seed-last")
                number = gr.Slider(1, limits.images, 1, step=1, label="Images")
                with gr.Accordion("Size, steps, negative prompt", open=False):
                    with gr.Row():
                        width = gr.Number(None, label="Width", precision=0, minimum=0, min_width=90)
                        height = gr.Number(None, label="Height", precision=0, minimum=0, min_width=90)
                        scale = gr.Dropdown(list(SCALES), value="as trained", label="Scale", min_width=110)
                    negative = gr.Textbox("", label="Negative prompt", lines=1, placeholder="What to stay away from")
                    with gr.Row():
                        steps = gr.Slider(0, limits.steps, 0, step=1, label="Steps (0: usual)", min_width=140)
                        guidance = gr.Slider(0, 20, 0, step=0.5, label="Guidance (0: usual)", min_width=140)
                    scheduler = gr.Textbox(
                        "", label="Scheduler", placeholder="the model's own; or ddim, euler, unipc..."
                    )
                with gr.Accordion("Other sizes than the model's own", open=False):
                    scaling = gr.Radio(SCALING, value="off", label="Entropy scaling")
                    two_pass = gr.Checkbox(False, label="Two passes: compose at the model's own size, then enlarge")
                    with gr.Accordion("Details", open=False):
                        native = gr.Textbox("", label="Trained at", placeholder="WxH, where the model does not say")
                        with gr.Row():
                            rule = gr.Dropdown(list(RULES), value="sqrt-log", label="Rule", min_width=110)
                            strength = gr.Slider(-1, 3, 1, step=0.05, label="Scaling strength", min_width=140)
                        layers = gr.Textbox("", label="Layers", placeholder="all; or a part of their names")
                        second = gr.Slider(0.05, 1, 0.5, step=0.05, label="Strength of the second pass")
                with gr.Accordion("Long prompt, count token", open=False):
                    reading = gr.Radio(READING, value="", label="Prompts longer than the text encoder reads")
                    token = gr.Dropdown(
                        ["", *desk.shelf.tokens()],
                        value="",
                        label="Count token",
                        info="{count} in the prompt stands for it; the Count page learns them",
                    )
                with gr.Accordion("Model and LoRA", open=False):
                    model = gr.Dropdown(models, value=models[0], label="Model")
                    with gr.Row():
                        loras = gr.Dropdown(list(desk.shelf.loras()), value=[], multiselect=True, label="LoRA")
                        lora_scale = gr.Slider(-2, 2, 1, step=0.05, label="LoRA scale")
                with gr.Accordion("Start from an image", open=False):
                    image = gr.Image(
                        type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Start", height=200
                    )
                    redrawn = gr.Slider(0.05, 1, 0.6, step=0.05, label="How much is drawn anew")
                png = gr.File(label="Settings from a PNG", file_types=[".png"], height=120)
        with gr.Column(scale=6, min_width=320, elem_classes="t2i-results"):
            panel = Panel(desk, "generate", "Ready: the picture will appear here.")
            gallery = gr.Gallery(
                label="Images",
                columns=2,
                fit_columns=False,
                height="auto",
                object_fit="contain",
                buttons=["download", "fullscreen"],
            )
    fields = {
        "prompt": prompt,
        "negative": negative,
        "width": width,
        "height": height,
        "steps": steps,
        "guidance": guidance,
        "scheduler": scheduler,
        "seed": seed,
        "number": number,
        "model": model,
        "loras": loras,
        "lora_scale": lora_scale,
        "entropy_scaling": scaling,
        "entropy_rule": rule,
        "entropy_strength": strength,
        "entropy_layers": layers,
        "native": native,
        "long_prompts": reading,
        "count_token": token,
        "two_pass": two_pass,
        "two_pass_strength": second,
        "image": image,
        "strength": redrawn,
    }
    quiet = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    gr.on([shape.input, scale.input, model.input], _size_of, [shape, scale, model], [width, height], **quiet)

    def read(text: str, method: str) -> str:
        return ruler_html(desk.shelf.reader(), text or "", method or None)

    gr.on(
        [prompt.change, reading.change, page.load], read, [prompt, reading], ruler, trigger_mode="always_last", **quiet
    )
    token.focus(lambda: gr.Dropdown(["", *desk.shelf.tokens()]), None, token, **quiet)
    dice.click(lambda: "", None, seed, **quiet)

    def last_seed(request: gr.Request) -> str:
        jobs = desk.jobs.of(page_owner(request), "generate", 1)
        return str(jobs[0].asked["seed"]) if jobs else ""

    again.click(last_seed, None, seed, **quiet)

    def restore(file: str | None) -> list[Any]:
        try:
            values = restored(settings_of(desk, file))
        except T2IError as error:
            return [view.complaint(error), *(gr.skip() for _ in fields)]
        return [gr.skip(), *shown_values(desk, values, fields).values()]

    png.upload(restore, png, [panel.status, *fields.values()], **quiet)
    from_page, show = partial(read_fields, desk), partial(captioned, desk)
    panel.connect(page, run, cancel, fields, from_page, [gallery], show, also=[prompt.submit])


def read_fields(desk: Desk, shown: dict[str, Any]) -> dict[str, Any]:
    """From what the controls hold to the values of the kind."""
    values = {name: value for name, value in shown.items() if name not in ("width", "height", "lora_scale")}
    width, height = shown["width"], shown["height"]
    if bool(width) != bool(height):
        raise InputError("give both width and height, or neither for the model's own size")
    values["size"] = f"{width:.0f}x{height:.0f}" if width else None
    values["steps"] = shown["steps"] or None
    values["guidance"] = shown["guidance"] or None
    values["seed"] = (shown["seed"] or "").strip() or None
    values["image"] = keep_start(desk, shown["image"]) if shown["image"] else None
    if not shown["two_pass"]:
        values["two_pass_strength"] = None
    values["loras"] = [name if ":" in name else f"{name}:{shown['lora_scale']}" for name in shown["loras"] or ()]
    return values


def shown_values(desk: Desk, values: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `read_fields`, for every field: what a file does not tell is as at the start."""
    width, _, height = (values.get("size") or "x").partition("x")
    shown = {name: values.get(name, field.value) for name, field in fields.items()}
    shown |= {"width": int(width) if width else None, "height": int(height) if height else None, "number": 1}
    shown |= {name: values.get(name) or 0 for name in ("steps", "guidance")}
    texts = ("negative", "scheduler", "native", "entropy_layers", "long_prompts", "count_token")
    shown |= {name: str(values.get(name) or "") for name in texts}
    shown["image"] = str(start_path(desk.output, values["image"])) if values.get("image") else None
    return shown | {"seed": str(values.get("seed", ""))}


def captioned(desk: Desk, job: Job) -> list[list[tuple[str, str]]]:
    """The gallery: the job's files with what tells them apart."""
    told = []
    for path in desk.paths(job):
        settings = read_settings(path)
        acted = "".join(f" · {what}" for name, what in ACTED.items() if name in settings)
        told.append((str(path), f"seed {settings.get('seed')}{acted}"))
    return [told]


def _size_of(shape: str, scale: str, model: str) -> tuple[int | None, int | None]:
    """Width and height of a shape with as many pixels as the model was trained on, times the scale."""
    if shape == "Square" and scale == "as trained":
        return None, None
    side = SCALES[scale] * (128 if model == BUNDLED else 512)
    ratio = math.sqrt(SHAPES[shape])
    return round(side * ratio / 8) * 8, round(side / ratio / 8) * 8

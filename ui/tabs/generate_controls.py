"""What an image can be made with: the controls of the Generate page, each under the name of the value it stands for."""

import math
from typing import Any

import gradio as gr

from t2i_tools.cli.options import BUNDLED
from t2i_tools.entropy.gain import RULES
from t2i_tools.errors import T2IError
from t2i_tools.ui import layout, view
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.owner import page_owner
from t2i_tools.ui.panel import QUIET
from t2i_tools.ui.uploads import keep_token

Fields = dict[str, gr.components.Component]
SHAPES = {"1:1": 1.0, "4:3": 4 / 3, "3:4": 3 / 4, "16:9": 16 / 9, "9:16": 9 / 16}
SCALES = {"half": 0.5, "as trained": 1.0, "1.5 times": 1.5, "double": 2.0}
READING = [("cut", ""), ("window by window", "chunk"), ("stretched positions", "stretch")]
SCALING = [("off", "off"), ("on", "on"), ("side by side", "compare")]
UNTUNED, OWN_VAE = ("the model's own, untuned", ""), ("the model's own", "")


def controls(desk: Desk) -> Fields:
    """All but the prompt; width and height stand for the size, lora_scale for the scale of all LoRAs."""
    shape = gr.Radio(list(SHAPES), value="1:1", label="Shape")
    fields = _seed_and_number(desk)
    with gr.Accordion("Size, steps, negative prompt", open=False):
        scale, more = _size_and_steps(desk)
    fields |= more
    with gr.Accordion("Other sizes than the model's own", open=False):
        fields |= _other_sizes()
    with gr.Accordion("Long prompt, count token", open=False):
        fields |= _words(desk)
    with gr.Accordion("Model, VAE, LoRA", open=False):
        fields |= _parts(desk)
    with gr.Accordion("Start from an image", open=False):
        fields |= _start()
    model, size = fields["model"], [fields["width"], fields["height"]]
    gr.on([shape.input, scale.input, model.input], size_of, [shape, scale, model], size, **QUIET)
    return fields


def choices(desk: Desk) -> list[gr.Dropdown]:
    """What there is now to choose from, for vae, loras, long_clip and count_tokens."""
    vaes, clips = [OWN_VAE, *desk.shelf.vaes()], [UNTUNED, *desk.shelf.long_clips()]
    known = (vaes, desk.shelf.loras(), clips, desk.shelf.tokens())
    return [gr.Dropdown(list(names)) for names in known]


def size_of(shape: str, scale: str, model: str) -> tuple[int | None, int | None]:
    """Width and height of a shape with as many pixels as the model was trained on, times the scale."""
    if shape == "1:1" and scale == "as trained":
        return None, None
    side = SCALES[scale] * (128 if model == BUNDLED else 512)
    ratio = math.sqrt(SHAPES[shape])
    return round(side * ratio / 8) * 8, round(side / ratio / 8) * 8


def _seed_and_number(desk: Desk) -> Fields:
    with gr.Row(equal_height=True):
        seed = gr.Textbox("", label="Seed", placeholder="random", max_lines=1, min_width=110, elem_id="seed")
        with gr.Column(scale=0, min_width=100, elem_classes="t2i-stack"):
            dice = gr.Button("Random", size="sm", elem_id="seed-random")
            again = gr.Button("Last used", size="sm", elem_id="seed-last")
        number = gr.Slider(1, desk.options.limits.images, 1, step=1, label="Images", min_width=150)

    def last_seed(request: gr.Request) -> str:
        jobs = desk.jobs.of(page_owner(request), "generate", 1)
        return str(jobs[0].asked["seed"]) if jobs else ""

    dice.click(lambda: "", None, seed, **QUIET)
    again.click(last_seed, None, seed, **QUIET)
    return {"seed": seed, "number": number}


def _size_and_steps(desk: Desk) -> tuple[gr.Dropdown, Fields]:
    with gr.Row():
        width = gr.Number(None, label="Width", precision=0, minimum=0, min_width=90)
        height = gr.Number(None, label="Height", precision=0, minimum=0, min_width=90)
        scale = gr.Dropdown(list(SCALES), value="as trained", label="Scale", min_width=110)
    negative = gr.Textbox("", label="Negative prompt", lines=1, placeholder="What to stay away from")
    with gr.Row():
        steps = layout.steps_slider(desk.options.limits.steps)
        guidance = gr.Slider(0, 20, 0, step=0.5, label="Guidance (0: usual)", min_width=140)
    scheduler = gr.Textbox("", label="Scheduler", placeholder="the model's own; or ddim, euler, unipc...")
    fields = {"width": width, "height": height, "negative": negative, "steps": steps}
    return scale, fields | {"guidance": guidance, "scheduler": scheduler}


def _other_sizes() -> Fields:
    scaling = gr.Radio(SCALING, value="off", label="Entropy scaling", info="Keeps attention as sharp as in training")
    two_pass = gr.Checkbox(False, label="Two passes: compose at the model's own size, then enlarge")
    with gr.Accordion("Details", open=False):
        native = gr.Textbox("", label="Trained at", placeholder="WxH, where the model does not say")
        with gr.Row():
            rule = gr.Dropdown(list(RULES), value="sqrt-log", label="Rule", min_width=110)
            strength = gr.Slider(-1, 3, 1, step=0.05, label="Scaling strength", min_width=140)
        layers = gr.Textbox("", label="Layers", placeholder="all; or a part of their names")
        second = gr.Slider(0.05, 1, 0.5, step=0.05, label="Strength of the second pass")
    fields = {"entropy_scaling": scaling, "entropy_rule": rule, "entropy_strength": strength, "native": native}
    return fields | {"entropy_layers": layers, "two_pass": two_pass, "two_pass_strength": second}


def _words(desk: Desk) -> Fields:
    reading = gr.Radio(READING, value="", label="Prompts longer than the text encoder reads")
    clip = layout.chooser([UNTUNED, *desk.shelf.long_clips()], "Long-CLIP", info="Weights for stretched positions")
    tokens = gr.Dropdown(
        list(desk.shelf.tokens()),
        value=[],
        multiselect=True,
        label="Count tokens",
        info="{count} in the prompt stands for one, {cat} and {dog} for two; the Count page learns them",
    )
    upload = gr.UploadButton("Upload a count token", file_types=[".safetensors"], size="sm", elem_id="token-upload")
    told = gr.HTML("", elem_id="token-told", padding=False)
    noise = gr.Textbox(
        "", label="Learned noise", max_lines=1, placeholder="none", info="Filled in by the PNG of a search for a count"
    )

    def keep(file: str, chosen: list[str]) -> list[Any]:
        try:
            name = keep_token(desk, file)
        except T2IError as error:
            return [gr.skip(), view.complaint(error)]
        return [
            gr.Dropdown(list(desk.shelf.tokens()), value=[*chosen, name]),
            view.hint(f"Kept as {name}: write {{count}} into the prompt"),
        ]

    upload.upload(keep, [upload, tokens], [tokens, told], **QUIET)
    tokens.focus(lambda: gr.Dropdown(list(desk.shelf.tokens())), None, tokens, **QUIET)
    return {"long_prompts": reading, "long_clip": clip, "count_tokens": tokens, "noise": noise}


def _parts(desk: Desk) -> Fields:
    model = layout.chooser(list(desk.shelf.models()), "Model")
    vae = layout.chooser([OWN_VAE, *desk.shelf.vaes()], "VAE")
    with gr.Row():
        loras = gr.Dropdown(list(desk.shelf.loras()), value=[], multiselect=True, label="LoRA", min_width=140)
        lora_scale = gr.Slider(-2, 2, 1, step=0.05, label="LoRA scale", min_width=140)
    return {"model": model, "vae": vae, "loras": loras, "lora_scale": lora_scale}


def _start() -> Fields:
    image = gr.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Start", height=200)
    redrawn = gr.Slider(0.05, 1, 0.6, step=0.05, label="How much is drawn anew")
    return {"image": image, "strength": redrawn}

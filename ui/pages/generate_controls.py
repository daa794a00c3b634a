"""What an image can be made with: the controls of the Generate page, each under the name of the value it stands for."""

from abc import ABCMeta
from typing import Any

import gradio as gr

from t2i_tools.entropy.formula import RULES
from t2i_tools.errors import T2IError
from t2i_tools.shrink.formula import LEVEL, SHARE

from .. import layout, render
from ..identity import owner_of
from ..job_panel import ASKED, QUIET
from ..service import Service
from ..uploads import keep_token
from .size_controls import SizeControls

Fields = dict[str, gr.components.Component]
AUTO = "auto"  # a choice of the form only: "chunk" for a prompt with weights or BREAK, else cut
READING = [("automatic: windows if the prompt has weights or BREAK, else cut", AUTO), ("window by window", "chunk")]
READING += [("stretched positions", "stretch"), ("cut, with weights", "truncate")]
READING += [("cut, brackets read as plain text", "")]
SCHEDULERS = ("Euler", "Euler a", "DPM++ 2M", "DPM++ 2M Karras", "DPM++ SDE", "DDIM", "UniPC", "Heun", "LCM")
SCALING = [("off", "off"), ("on", "on"), ("side by side", "compare")]
UNTUNED, OWN_VAE = ("the model's own, untuned", ""), ("the model's own", "")


def _unread(image: gr.Image, payload: Any) -> str | None:
    """The file as it is: it is looked at with the job, which says at this field what is wrong with it."""
    return payload.path if payload else None


# A class, since Gradio builds a field anew whenever a page updates it. Not made by Gradio's own metaclass, which would
# write a .pyi beside this file.
StartImage: type[gr.Image] = ABCMeta.__new__(
    type(gr.Image),
    "StartImage",
    (gr.Image,),
    {
        "__module__": __name__,
        "is_template": True,
        "preprocess": _unread,
    },  # a template of Image: the same in the browser
)


def controls(service: Service, size: SizeControls) -> Fields:
    """All but the prompt; width and height stand for the size, lora_scale for the scale of all LoRAs."""
    fields = {"width": size.width, "height": size.height} | _seed_and_number(service)
    with gr.Accordion("Negative prompt, steps, guidance", open=False):
        fields |= _drawing()
    with gr.Accordion("Other sizes than the model's own", open=False):
        fields |= _other_sizes()
    with gr.Accordion("Long prompt, count token", open=False):
        fields |= _words(service)
    with gr.Accordion("Model, VAE, LoRA", open=False):
        fields |= _parts(service)
    with gr.Accordion("Start from an image", open=False):
        fields |= _start()
    return fields


def choices(service: Service, owner: str) -> list[gr.Dropdown]:
    """What an owner now has to choose from, for vae, loras, long_clip, count_tokens and embeddings."""
    vaes, clips = [OWN_VAE, *service.registry.vaes()], [UNTUNED, *service.registry.long_clips()]
    known = (vaes, service.registry.loras(), clips, service.registry.of(owner).tokens(), service.registry.embeddings())
    return [gr.Dropdown(list(names)) for names in known]


def _seed_and_number(service: Service) -> Fields:
    with gr.Row(equal_height=True):
        seed = gr.Textbox("", label="Seed", placeholder="random", max_lines=1, min_width=110, elem_id="seed")
        with gr.Column(scale=0, min_width=100, elem_classes="t2i-stack"):
            dice = gr.Button("Random", size="sm", elem_id="seed-random")
            again = gr.Button("Last used", size="sm", elem_id="seed-last")
    number = gr.Slider(1, service.options.limits.images, 1, step=1, label="Images", min_width=150)

    def last_seed(request: gr.Request) -> str:
        jobs = service.jobs.of(owner_of(request), "generate", 1)
        return str(jobs[0].asked["seed"]) if jobs else ""

    dice.click(lambda: "", None, seed, **QUIET)
    again.click(last_seed, None, seed, **QUIET)
    return {"seed": seed, "number": number}


def _drawing() -> Fields:
    negative = gr.Textbox("", label="Negative prompt", lines=1, placeholder="What the image should not show")
    with gr.Row():
        steps, guidance = layout.steps_box(), layout.number_box("Guidance")
    scheduler = gr.Dropdown(
        [("the model's own", ""), *SCHEDULERS],
        value="",
        allow_custom_value=True,
        label="Scheduler",
        info="Or type the name of another, as diffusers, AUTOMATIC1111 or ComfyUI have it",
    )
    return {"negative": negative, "steps": steps, "guidance": guidance, "scheduler": scheduler}


def _other_sizes() -> Fields:
    scaling = gr.Radio(
        SCALING,
        value="off",
        label="Entropy scaling",
        info="Keeps attention as sharp as at the trained size. The line at the size says where that was seen to help",
    )
    about = "Keeps the number and place of things at larger sizes; takes the time of about two images"
    two_pass = gr.Checkbox(False, label="Two passes: compose at the model's own size, then enlarge", info=about)
    about = "Larger images repeat fewer objects, in less time than a plain image; UNets only, not with two passes"
    shrink = gr.Checkbox(False, label="Deep shrink: smaller deep feature maps in the first steps", info=about)
    with gr.Accordion("Details", open=False):
        native = gr.Textbox("", label="Trained at", placeholder="WxH, where the model does not say")
        with gr.Row():
            rule = gr.Dropdown(list(RULES), value="sqrt_log", label="Rule", min_width=110)
            strength = gr.Textbox("1", label="Scaling strength", placeholder="a number, or auto", min_width=140)
        layers = gr.Textbox("", label="Layers", placeholder="all; or a part of their names")
        second = gr.Slider(0.05, 1, 0.5, step=0.05, label="Strength of the second pass")
        with gr.Row():
            share = gr.Slider(0, 1, SHARE, step=0.05, label="Share of the steps with shrunk maps", min_width=140)
            level = gr.Slider(1, 3, LEVEL, step=1, label="Downsampler whose output is shrunk", min_width=140)
    fields = {"entropy_scaling": scaling, "entropy_rule": rule, "entropy_strength": strength, "native": native}
    fields |= {"deep_shrink": shrink, "deep_shrink_share": share, "deep_shrink_level": level}
    return fields | {"entropy_layers": layers, "two_pass": two_pass, "two_pass_strength": second}


def _words(service: Service) -> Fields:
    reading = gr.Radio(
        READING,
        value=AUTO,
        label="How the prompt is read",
        info="(word:1.2), [word] and BREAK act as in AUTOMATIC1111, except with the last option",
    )
    clip = layout.chooser(
        [UNTUNED, *service.registry.long_clips()], "Long-CLIP", info="Weights for stretched positions"
    )
    tokens = gr.Dropdown(
        list(service.registry.tokens()),
        value=[],
        multiselect=True,
        label="Count tokens",
        info="{count} in the prompt stands for one, {cat} and {dog} for two; the Count page learns them",
    )
    upload = gr.UploadButton("Upload a count token", file_types=[".safetensors"], size="sm", elem_id="token-upload")
    message = gr.HTML("", elem_id="token-message", padding=False)
    noise = gr.Textbox(
        "", label="Learned noise", max_lines=1, placeholder="none", info="Filled in by the PNG of a search for a count"
    )

    forget = gr.Button("Delete the chosen tokens of mine", size="sm", elem_id="token-forget")

    def names(request: gr.Request) -> list[str]:
        return list(service.registry.of(owner_of(request)).tokens())

    def look(request: gr.Request) -> gr.Dropdown:
        return gr.Dropdown(names(request))

    def keep(request: gr.Request, file: str, chosen: list[str]) -> list[Any]:
        try:
            name = keep_token(service, owner_of(request), file)
        except T2IError as error:
            return [gr.skip(), render.complaint(error)]
        message = render.hint(f"Kept as {name}: write {{count}} into the prompt")
        return [gr.Dropdown(names(request), value=[*chosen, name]), message]

    def delete(request: gr.Request, chosen: list[str]) -> list[Any]:
        try:
            for name in chosen:
                service.registry.of(owner_of(request)).forget_token(name)
        except T2IError as error:
            return [gr.Dropdown(names(request)), render.complaint(error)]
        return [
            gr.Dropdown(names(request), value=[]),
            render.hint(f"Deleted: {', '.join(chosen) or 'none was chosen'}"),
        ]

    upload.upload(keep, [upload, tokens], [tokens, message], **ASKED)
    forget.click(delete, tokens, [tokens, message], **ASKED)
    tokens.focus(look, None, tokens, **QUIET)
    return {"long_prompts": reading, "long_clip": clip, "count_tokens": tokens, "noise": noise}


def _parts(service: Service) -> Fields:
    model = layout.chooser(list(service.registry.models()), "Model")
    vae = layout.chooser([OWN_VAE, *service.registry.vaes()], "VAE")
    with gr.Row():
        embeddings = gr.Dropdown(
            list(service.registry.embeddings()),
            value=[],
            multiselect=True,
            label="Textual inversions",
            info="Each acts where its word stands in the prompt",
            min_width=140,
        )
        loras = gr.Dropdown(
            list(service.registry.loras()),
            value=[],
            multiselect=True,
            allow_custom_value=True,
            label="LoRA",
            info="name, or name:scale",
            min_width=140,
        )
        lora_scale = gr.Slider(-2, 2, 1, step=0.05, label="LoRA scale", min_width=140)
    return {"model": model, "vae": vae, "loras": loras, "lora_scale": lora_scale, "embeddings": embeddings}


def _start() -> Fields:
    image = StartImage(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Start", height=200)
    redrawn = gr.Slider(0.05, 1, 0.6, step=0.05, label="How much is redrawn")
    return {"image": image, "strength": redrawn}

"""The page on which images are made."""

from functools import partial
from typing import Any

import gradio as gr

from t2i_tools.errors import InputError, T2IError
from t2i_tools.imagefile import read_settings
from t2i_tools.ui import layout, view
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.jobs import Job
from t2i_tools.ui.kinds.generate import restored, start_path
from t2i_tools.ui.panel import QUIET, Panel
from t2i_tools.ui.ruler import ruler_html
from t2i_tools.ui.tabs.generate_controls import Fields, choices, controls
from t2i_tools.ui.uploads import keep_start, settings_of

OPENING = 60.0  # seconds that a page's first ruler waits for the model
ACTED = {"entropy_scaling": "entropy scaling", "two_pass": "two passes", "long_prompts": "long prompt"}
ACTED |= {"count_token": "count token", "noise": "learned noise", "image": "from an image"}
EXAMPLE = "seven apples on a blue background"


def generate_tab(desk: Desk, page: gr.Blocks) -> None:
    """Builds and wires the page."""
    with gr.Row():
        with layout.inputs():
            prompt = gr.Textbox(EXAMPLE, label="Prompt", lines=3, placeholder="What to draw", elem_id="prompt")
            ruler = gr.HTML("", elem_id="ruler", padding=False)
            run, cancel = layout.buttons("generate", "Generate")
            with layout.options():
                fields = {"prompt": prompt} | controls(desk)
                png = gr.File(label="Settings from a PNG", file_types=[".png"], height=120)
        with layout.results():
            panel = Panel(desk, "generate", "The images will appear here. Shift+Enter in the prompt starts.")
            gallery = layout.gallery("Images", 2)

    def read(text: str, method: str) -> str:
        return ruler_html(desk.shelf.reader(OPENING), text or "", method or None)

    def restore(file: str | None) -> list[Any]:
        try:
            values = restored(settings_of(desk, file))
        except T2IError as error:
            return [view.complaint(error), *(gr.skip() for _ in fields)]
        return [gr.skip(), *shown_values(desk, values, fields).values()]

    reading = fields["long_prompts"]
    events = [prompt.change, reading.change, page.load]
    gr.on(events, read, [prompt, reading], ruler, trigger_mode="always_last", **QUIET)
    page.load(lambda: choices(desk), None, [fields[n] for n in ("vae", "loras", "long_clip", "count_tokens")], **QUIET)
    png.upload(restore, png, [panel.status, *fields.values()], **QUIET)
    from_page, show = partial(read_fields, desk), partial(captioned, desk)
    panel.connect(page, run, cancel, fields, from_page, [gallery], show, also=[prompt.submit])


def read_fields(desk: Desk, shown: dict[str, Any]) -> dict[str, Any]:
    """From what the controls hold to the values of the kind. Raises InputError."""
    shown = layout.stripped(shown, "steps", "guidance")
    values = {name: value for name, value in shown.items() if name not in ("width", "height", "lora_scale")}
    width, height = shown["width"], shown["height"]
    if bool(width) != bool(height):
        raise InputError("give both width and height, or neither for the model's own size")
    values["size"] = f"{width:.0f}x{height:.0f}" if width else None
    values["image"] = keep_start(desk, shown["image"]) if shown["image"] else None
    values["loras"] = [name if ":" in name else f"{name}:{shown['lora_scale']}" for name in shown["loras"] or ()]
    if not shown["two_pass"]:
        values["two_pass_strength"] = None
    if shown["long_prompts"] != "stretch":
        values["long_clip"] = None
    return values


def shown_values(desk: Desk, values: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """The inverse of `read_fields`, for every field: what a file does not tell is as at the start."""
    width, _, height = (values.get("size") or "x").partition("x")
    shown = {name: values.get(name, field.value) for name, field in fields.items()}
    shown |= {"width": int(width) if width else None, "height": int(height) if height else None, "number": 1}
    shown |= {name: values.get(name) or 0 for name in ("steps", "guidance")}
    texts = ("negative", "scheduler", "native", "entropy_layers", "long_prompts", "long_clip", "vae", "noise")
    shown |= {name: str(values.get(name) or "") for name in texts}
    shown["image"] = str(start_path(desk.output, values["image"])) if values.get("image") else None
    return shown | {"seed": str(values.get("seed", ""))}


def captioned(desk: Desk, job: Job) -> list[gr.Gallery]:
    """The gallery: the job's files with what tells them apart."""
    told = []
    for path in desk.paths(job):
        settings = read_settings(path)
        acted = "".join(f" · {what}" for name, what in ACTED.items() if name in settings)
        told.append((str(path), f"seed {settings.get('seed')}{acted}"))
    return [layout.pictures(told)]

"""The page on which images are made."""

import html
from collections.abc import Mapping
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import gradio as gr

from t2i_tools.errors import T2IError
from t2i_tools.images.metadata import read_settings

from .. import layout, render
from ..errors import FieldError, at_field
from ..identity import page_owner
from ..job_panel import ASKED, LATEST, QUIET, JobPanel
from ..jobs.generate import start_path, values_of_settings
from ..pages.generate_controls import Fields, choices, controls
from ..queue import Job
from ..registry import Registry
from ..ruler import ruler_html, vocabulary_html
from ..service import Service
from ..stage import Figure, stage_html
from ..uploads import file_settings, keep_start
from .size_controls import whole

OPENING = 60.0  # seconds that a page's first ruler waits for the model
ACTED = {"entropy_scaling": "entropy scaling", "two_pass": "two passes", "long_prompts": "long prompt"}
ACTED |= {"count_token": "count token", "noise": "learned noise", "image": "from an image"}
EXAMPLE = "seven apples on a blue background"


def generate_tab(service: Service, page: gr.Blocks) -> None:
    """Builds and wires the page."""
    with gr.Row():
        with layout.inputs():
            prompt = gr.Textbox(EXAMPLE, label="Prompt", lines=3, placeholder="What to draw", elem_id="prompt")
            ruler = gr.HTML("", elem_id="ruler", padding=False)
            run, cancel = layout.buttons("generate", "Generate")
            with layout.options():
                fields = {"prompt": prompt} | controls(service, page)
                png = gr.File(label="Settings from an image", file_types=[".png", ".webp", ".jpg", ".jpeg"], height=120)
        with layout.results():
            panel = JobPanel(service, "generate", "The images will appear here. Shift+Enter in the prompt starts.")
            stage = gr.HTML("", elem_id="generate-stage", label="Images", padding=False)

    def read(text: str, method: str, model: str) -> str:
        read = ruler_html(service.registry.reader(OPENING), text or "", method or None)
        return read + vocabulary_html(model, text or "")

    def restore(request: gr.Request, file: str | None) -> list[Any]:
        try:
            settings, notes = file_settings(service, file)
            values, missing = without_missing(values_of_settings(settings), service.registry.of(page_owner(request)))
        except T2IError as error:
            return [render.complaint(error), *(gr.skip() for _ in fields)]
        for note in [*notes, *missing]:
            gr.Warning(html.escape(note), title="From the image")
        return [gr.skip(), *shown_values(service, values, fields).values()]

    reading, model = fields["long_prompts"], fields["model"]
    events = [prompt.change, reading.change, model.change, page.load]
    gr.on(events, read, [prompt, reading, model], ruler, **LATEST)

    def look(request: gr.Request) -> list[Any]:
        return choices(service, page_owner(request))

    page.load(look, None, [fields[n] for n in ("vae", "loras", "long_clip", "count_tokens", "embeddings")], **QUIET)
    png.upload(restore, png, [panel.status, *fields.values()], **ASKED)
    from_page, show = partial(read_fields, service), partial(staged, service)
    panel.connect(page, run, cancel, fields, from_page, [stage], show, also=[prompt.submit], places={"size": "width"})


def read_fields(service: Service, shown: dict[str, Any]) -> dict[str, Any]:
    """From what the controls hold to the values of the kind. Raises InputError."""
    shown = layout.stripped(shown)
    values = {name: value for name, value in shown.items() if name not in ("width", "height", "lora_scale")}
    values["size"] = size_text(shown["width"], shown["height"])
    with at_field("image"):
        values["image"] = keep_start(service, shown["image"]) if shown["image"] else None
    values["loras"] = [name if ":" in name else f"{name}:{shown['lora_scale']}" for name in shown["loras"] or ()]
    if not shown["two_pass"]:
        values["two_pass_strength"] = None
    if shown["long_prompts"] != "stretch":
        values["long_clip"] = None
    return values


def size_text(width: str, height: str) -> str | None:
    """ "WxH" of what the two boxes hold; None where they are empty. Raises FieldError."""
    if not width and not height:
        return None
    for name, text in (("width", width), ("height", height)):
        if not text:
            raise FieldError(name, "give both width and height, or neither for the model's own size")
        if not whole(text):
            raise FieldError(name, f"{name} {text[:20]!r} is no number of pixels: it takes a whole one from 1 on")
    return f"{width}x{height}"


def shown_values(service: Service, values: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """The inverse of `read_fields`, for every field: what a file does not tell is as at the start."""
    width, _, height = (values.get("size") or "x").partition("x")
    shown = {name: values.get(name, field.value) for name, field in fields.items()}
    shown |= {"width": width, "height": height, "number": 1}
    shown |= {name: str(values.get(name) or "") for name in ("steps", "guidance")}
    texts = ("negative", "scheduler", "native", "entropy_layers", "long_prompts", "long_clip", "vae", "noise")
    shown |= {name: str(values.get(name) or "") for name in texts}
    shown["image"] = str(start_path(service.output, values["image"])) if values.get("image") else None
    shown["model"] = values.get("model") or gr.skip()
    return shown | {"seed": str(values.get("seed", ""))}


def without_missing(values: dict[str, Any], registry: Registry) -> tuple[dict[str, Any], list[str]]:
    """The values without names that this server does not have, and a line on each of those."""
    lists: dict[str, Mapping[str, Any]] = {
        "loras": registry.loras(),
        "count_tokens": registry.tokens(),
        "embeddings": registry.embeddings(),
    }
    single: dict[str, Mapping[str, Any]] = {
        "model": registry.models(),
        "vae": registry.vaes(),
        "long_clip": registry.long_clips(),
    }
    kept, notes = dict(values), []
    for name, known in single.items():
        if (value := values.get(name)) and value not in known:
            del kept[name]
            stays = ": the one that is chosen stays" if name == "model" else ""
            notes.append(f"{name.replace('_', '-')} {value[:60]} is not here{stays}")
    for name, names in lists.items():
        absent = [value for value in values.get(name, ()) if value.partition(":")[0] not in names]
        kept[name] = [value for value in values.get(name, ()) if value not in absent]
        notes += [f"{name.replace('_', ' ').removesuffix('s')} {value[:60]} is not here" for value in absent]
    return kept, notes


def staged(service: Service, job: Job) -> list[Any]:
    """The stage: what the job has made, or while there is nothing of it to be seen, what was made before."""
    progress = service.progress(job)
    if progress and not progress.files:
        return ["" if progress.preview else gr.skip()]
    shown = job if progress else service.latest_result(job)
    objects = [event["objects"] for event in progress.events] if progress else shown.result.get("objects", [])
    figures = [_figure(path, found) for path, found in zip_longest(service.paths(shown), objects) if path]
    return [stage_html(figures, compare=shown.asked.get("entropy_scaling") == "compare")]


def _figure(path: Path, objects: Any) -> Figure:
    settings = read_settings(path)
    acted = "".join(f" · {what}" for name, what in ACTED.items() if name in settings)
    return Figure(path, f"seed {settings.get('seed')}{acted}", objects or ())

"""The page on which images are made."""

import html
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import gradio as gr

from t2i_tools.errors import T2IError
from t2i_tools.images.metadata import read_settings
from t2i_tools.images.promptfile import read_prompts
from t2i_tools.longclip.syntax import has_syntax

from .. import layout
from ..advice import exact_advice
from ..errors import FieldError, at_field
from ..identity import owner_of
from ..job_panel import ASKED, LATEST, QUIET, JobPanel, Updates
from ..jobs.generate import start_path, values_of_settings
from ..pages.generate_controls import AUTO, Fields, choices, controls
from ..queue import Job
from ..registry import Registry
from ..ruler import ruler_html, vocabulary_html
from ..service import Service
from ..stage import Figure, stage_html
from ..uploads import IMAGE_SUFFIXES, file_settings, keep_start, uploaded, without_folders
from .size_controls import SizeControls, whole

OPENING = 60.0  # seconds that a page's first ruler waits for the model
ACTED = {"entropy_scaling": "entropy scaling", "two_pass": "two passes", "long_prompts": "long prompt"}
ACTED |= {
    "deep_shrink": "deep shrink",
    "count_token": "count token",
    "noise": "learned noise",
    "image": "from an image",
}
TOLD = {"size": "size", "seed": "seed", "steps": "steps", "guidance": "guidance", "scheduler": "scheduler"}
SWITCHED = {"negative": "negative prompt", "model": "model", "vae": "VAE", "loras": "LoRA", "noise": "learned noise"}
SWITCHED |= {"entropy_scaling": "entropy scaling", "two_pass": "two passes", "long_prompts": "way to read long prompts"}
SWITCHED |= {"deep_shrink": "deep shrink"}
SWITCHED |= {"count_tokens": "count tokens", "embeddings": "textual inversions", "image": "the image to start from"}
EXAMPLE = "seven apples on a blue background"


def generate_tab(service: Service, page: gr.Blocks) -> JobPanel:
    """Builds and wires the page."""
    with gr.Row():
        with layout.inputs():
            prompt = gr.Textbox(EXAMPLE, label="Prompt", lines=3, placeholder="What to draw", elem_id="prompt")
            ruler = gr.HTML("", elem_id="ruler", padding=False)
            came = gr.HTML("", elem_id="came-back", padding=False)
            run, cancel = layout.buttons("generate", "Generate")
            with layout.options():
                size = SizeControls(service)
                fields = {"prompt": prompt} | controls(service, size)
                with gr.Accordion("Prompts from a file", open=False):
                    kinds = [".txt", ".csv", ".jsonl"]
                    about = "One prompt per line, or a column named prompt; used in place of the prompt above"
                    fields["prompts"] = gr.File(label=about, file_types=kinds, height=150)
                png = gr.File(label="Settings from an image", file_types=list(IMAGE_SUFFIXES), height=150)
        with layout.results():
            panel = JobPanel(service, "generate", "The images will appear here. Ctrl+Enter starts.")
            stage = gr.HTML("", elem_id="generate-stage", label="Images", padding=False)
            panel.place_actions()

    def read(text: str, method: str, model: str) -> str:
        read = ruler_html(service.registry.reader(OPENING), text or "", reading_of(method, [text or ""]))
        return read + vocabulary_html(model, text or "") + exact_advice(text or "")

    def write(owner: str, values: Mapping[str, Any]) -> dict[str, Any]:
        known, missing = without_missing(dict(values), service.registry.of(owner))
        for note in missing:
            gr.Warning(html.escape(note), title="Not on this server")
        return shown_values(service, known, fields)

    def arrive(owner: str, file: Any) -> Updates:
        """What the page shows of a dropped image: its settings, and a line that says what came back."""
        try:
            settings, notes = file_settings(service, file)
            values, missing = without_missing(values_of_settings(settings), service.registry.of(owner))
        except T2IError as error:
            return {came: came_html(file, {}, [str(error)])}
        updates: Updates = {fields[name]: value for name, value in shown_values(service, values, fields).items()}
        return updates | {came: came_html(file, values, [*notes, *missing])}

    def restore(request: gr.Request, file: str | None) -> Updates:
        return arrive(owner_of(request), file) if file else {came: ""}

    panel.arrive, panel.arrivals = arrive, [came, *fields.values()]

    reading, model = fields["long_prompts"], fields["model"]
    events = [prompt.change, reading.change, model.change, page.load]
    gr.on(events, read, [prompt, reading, model], ruler, **LATEST)

    def look(request: gr.Request) -> list[Any]:
        return choices(service, owner_of(request))

    page.load(look, None, [fields[n] for n in ("vae", "loras", "long_clip", "count_tokens", "embeddings")], **QUIET)
    png.upload(restore, png, panel.arrivals, **ASKED)
    from_page, show = partial(read_fields, service), partial(staged, service)
    known: dict[str, Callable[[str], Collection[str]]] = {
        "count_tokens": lambda owner: service.registry.of(owner).tokens()
    }
    known |= {name: partial(_names, service, name) for name in ("vae", "loras", "long_clip", "embeddings")}
    places = {"size": "width"}
    panel.connect(page, run, cancel, fields, from_page, [stage], show, write, [prompt.submit], places, known)
    size.connect(fields["model"], panel.restored)
    return panel


def came_html(file: Any, values: Mapping[str, Any], notes: Sequence[str]) -> str:
    """A line on what came back from an image and what did not."""
    name = Path(str(file.get("path") if isinstance(file, Mapping) else file)).name[:80]
    parts = [f"{words} {values[key]}" for key, words in TOLD.items() if values.get(key) not in (None, "", [], False)]
    parts += [words for key, words in SWITCHED.items() if values.get(key) not in (None, "", [], False, "off")]
    came = f"From {name}: " + ("prompt, " if values.get("prompt") else "") + ", ".join(parts) if values else name
    lost = f" <span class='t2i-lost'>{html.escape('; '.join(notes))}</span>" if notes else ""
    return f"<p class='t2i-hint' role='status'>{html.escape(came.rstrip(', '))}.{lost}</p>"


def read_prompts_file(service: Service, upload: Any) -> list[str]:
    """The prompts of an uploaded file. Raises InputError."""
    path = uploaded(service, upload, [".txt", ".csv", ".jsonl"])
    with at_field("prompts"), without_folders(path):
        rows = [row for _, row in read_prompts(path)]
    if ignored := sorted({name for row in rows for name in row} - {"prompt"}):
        gr.Warning(f"Only the prompts of this file are used, not {', '.join(ignored)}")
    return [row["prompt"] for row in rows]


def read_fields(service: Service, shown: dict[str, Any]) -> dict[str, Any]:
    """From what the controls hold to the values of the kind. Raises InputError."""
    shown = layout.stripped(shown)
    values = {name: value for name, value in shown.items() if name not in ("width", "height", "lora_scale")}
    values["size"] = size_text(shown["width"], shown["height"])
    with at_field("image"):
        values["image"] = keep_start(service, shown["image"]) if shown["image"] else None
    values["prompts"] = read_prompts_file(service, shown["prompts"]) if shown["prompts"] else []
    values["loras"] = [name if ":" in name else f"{name}:{shown['lora_scale']}" for name in shown["loras"] or ()]
    if not shown["two_pass"]:
        values["two_pass_strength"] = None
    if not shown["deep_shrink"]:
        values["deep_shrink_share"] = values["deep_shrink_level"] = None
    texts = [*(values["prompts"] or [shown["prompt"]]), shown["negative"] or ""]
    values["long_prompts"] = reading_of(shown["long_prompts"], texts)
    if shown["long_prompts"] != "stretch":
        values["long_clip"] = None
    return values


def reading_of(chosen: str | None, texts: Sequence[str]) -> str | None:
    """The way in which prompts are read, by what the form says."""
    if chosen != AUTO:
        return chosen or None
    return "chunk" if any(map(has_syntax, texts)) else None


def size_text(width: str, height: str) -> str | None:
    """ "WxH" of what the two boxes hold; None where they are empty. Raises FieldError."""
    if not width and not height:
        return None
    for name, text in (("width", width), ("height", height)):
        if not text:
            raise FieldError(name, "give both width and height, or neither for the model's own size")
        if not whole(text):
            raise FieldError(name, f"{name} {text[:20]!r} is not a number of pixels: use a whole number, 1 or more")
    return f"{width}x{height}"


def shown_values(service: Service, values: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """The inverse of `read_fields`, for every field: what a file does not say is as at the start."""
    width, _, height = (values.get("size") or "x").partition("x")
    shown = {name: field.value if values.get(name) is None else values[name] for name, field in fields.items()}
    shown["prompts"] = None
    shown |= {"width": width, "height": height, "lora_scale": 1, "number": values.get("number", 1)}
    shown |= {name: str(values.get(name) or "") for name in ("steps", "guidance")}
    texts = ("negative", "scheduler", "native", "entropy_layers", "long_clip", "vae", "noise")
    shown |= {name: str(values.get(name) or "") for name in texts}
    words = any(has_syntax(str(values.get(name) or "")) for name in ("prompt", "negative"))
    shown["long_prompts"] = values.get("long_prompts") or ("" if words else AUTO)  # as it was made
    start = start_path(service.output, values["image"]) if values.get("image") else None
    shown["image"] = str(start) if start and start.exists() else None
    shown["model"] = values.get("model") or gr.skip()
    return shown | {"seed": str(values.get("seed", ""))}


def _names(service: Service, name: str, owner: str) -> list[str]:
    """What there is to choose from for a part of the model, and none of it."""
    parts = {"vae": "vaes", "long_clip": "long_clips"}
    return ["", *getattr(service.registry, parts.get(name, name))()]


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

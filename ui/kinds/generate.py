"""Images of a prompt, with the plugins that are chosen."""

import random
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from t2i_tools.cli.generate import image_settings, with_defaults
from t2i_tools.cli.outputs import slug
from t2i_tools.cli.plugins import PluginOptions, plugins_on
from t2i_tools.errors import InputError
from t2i_tools.generation import MAX_SEED, Request, check_request, generate_image
from t2i_tools.imagefile import read_settings, save_image
from t2i_tools.sizes import parse_size
from t2i_tools.ui.options import AppOptions
from t2i_tools.ui.shelf import Choice, Shelf, parse_loras
from t2i_tools.ui.values import Guidance, Name, Prompt, Seed, Steps, Values, check_at_most, check_size

if TYPE_CHECKING:
    from t2i_tools.ui.worker import Bench


class GenerateValues(Values):
    """loras: "name:scale" each. entropy_scaling "compare" makes every image without and with it."""

    prompt: Prompt = ""
    negative: Prompt | None = None
    size: Name | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    seed: Seed | None = None
    number: int = 1
    model: Name = ""
    scheduler: Name | None = None
    loras: list[Name] = []
    entropy_scaling: Literal["off", "on", "compare"] = "off"
    native: Name | None = None

    @property
    def choice(self) -> Choice:
        """The model with its parts."""
        return Choice(self.model, parse_loras(self.loras), self.scheduler)

    def requests(self) -> list[Request]:
        """One an image, seeds going on from the first. Raises InputError."""
        size = self.size and parse_size(self.size)
        return [
            Request(self.prompt, self.seed + index, self.negative, size, steps=self.steps, guidance=self.guidance)
            for index in range(self.number)
        ]

    def settled(self, options: AppOptions, shelf: Shelf) -> "GenerateValues":
        """With a seed drawn where none is given, and checked as far as that goes without the model."""
        check_size(self.size, options.limits)
        check_at_most("steps", self.steps, options.limits.steps)
        check_at_most("number", self.number, options.limits.images)
        if self.number < 1:
            raise InputError(f"number {self.number} is out of range: it takes 1 or more")
        if self.native:
            parse_size(self.native)
        shelf.check(self.choice)
        seed = random.randrange(2**32) if self.seed is None else self.seed
        values = self.model_copy(update={"seed": min(seed, MAX_SEED - self.number + 1)})
        values.requests()
        return values

    def variants(self) -> Iterator[PluginOptions]:
        """The plugins of each image that is made of one request."""
        if self.entropy_scaling != "on":
            yield PluginOptions()
        if self.entropy_scaling != "off":
            yield PluginOptions(entropy_scaling=True, native=self.native)


def run(values: GenerateValues, bench: "Bench") -> None:
    """One file an image and variant, which is not made again when the job is taken up a second time."""
    bench.result = {"files": [], "settings": []}
    todo = [(request, plugins) for request in values.requests() for plugins in values.variants()]
    with bench.pipeline(values.choice) as (pipe, options):
        for index, (request, plugins) in enumerate(todo):
            request = with_defaults(request, pipe, options.model)
            check_request(pipe, request)
            path = bench.folder / f"{index + 1:02}-{slug(request.prompt)}-{request.seed}.png"
            if not path.exists():
                on_step = partial(_tell, bench, index, len(todo))
                with plugins_on(pipe, plugins) as acted:
                    image = generate_image(pipe, request, on_step, bench.previewer(pipe))
                settings = image_settings(pipe, options, request) | acted
                save_image(image, path, settings | {"width": image.width, "height": image.height})
            _finished(bench, path)


def restored(settings: Mapping[str, Any], shelf: Shelf) -> dict[str, Any]:
    """The values that make the image of a file's settings again. Raises InputError for what is not on the shelf."""
    values = {name: settings[name] for name in ("prompt", "negative", "steps", "guidance", "seed") if name in settings}
    if "width" in settings and "height" in settings:
        values["size"] = f"{settings['width']}x{settings['height']}"
    values["scheduler"] = settings.get("scheduler")
    values["model"] = settings.get("model", "")
    values["loras"] = [f"{Path(lora['file']).stem}:{lora['scale']}" for lora in settings.get("lora", ())]
    if scaling := settings.get("entropy_scaling"):
        values |= {"entropy_scaling": "on", "native": scaling.get("native")}
    return values


def _tell(bench: "Bench", index: int, images: int, step: int, steps: int) -> None:
    where = f"image {index + 1} of {images}, " if images > 1 else ""
    bench.live.tell(index * steps + step, images * steps, f"{where}step {step} of {steps}")


def _finished(bench: "Bench", path: Path) -> None:
    bench.live.files.append(path)
    bench.result["files"].append(bench.name(path))
    bench.result["settings"].append(read_settings(path))
    bench.live.version += 1

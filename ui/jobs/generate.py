"""Images of a prompt, with the plugins that are chosen."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from PIL import Image
from pydantic import Field

from t2i_tools.errors import InputError, first_line
from t2i_tools.images.generate import MAX_SEED, Request, check_request
from t2i_tools.images.metadata import read_settings, save_image
from t2i_tools.workflows.open_model import BUNDLED_FORMS
from t2i_tools.workflows.outputs import slug
from t2i_tools.workflows.plugins import PluginOptions, plugins_on, with_plugins
from t2i_tools.workflows.settings import image_settings, with_defaults

from ..errors import FieldError, at_field
from ..learned_noise import draw_from, has_noise
from ..objects import asked_counts, count_objects
from ..options import AppOptions
from ..registry import Choice, Registry, look_up, parse_loras, token_settings, tokens_on
from ..values import (
    Guidance,
    Hash,
    JobValues,
    Name,
    Prompt,
    ScalingStrength,
    Seed,
    Share,
    Steps,
    Strength,
    check_at_most,
    check_prompt,
    check_size,
    size_of,
)

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from ..job_context import JobContext


class GenerateValues(JobValues):
    """Images of a prompt, or of each of `prompts`. loras: "name:scale" each. entropy_scaling: "compare" makes each
    image without and with it. long_clip: weights for long_prompts="stretch". count_tokens: names; "{count}" in the
    prompt stands for a single one, "{class}" for each of several. image: to start from; strength: how much of it is
    redrawn. noise: that the Count page has learned, as a file of its images names it.
    """

    prompt: Prompt = ""
    negative: Prompt | None = None
    size: Name | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    seed: Seed | None = None
    number: int = 1
    model: Name = ""
    vae: Name | None = None
    scheduler: Name | None = None
    loras: Annotated[list[Name], Field(max_length=16)] = []
    entropy_scaling: Literal["off", "on", "compare"] = "off"
    entropy_rule: Name = "sqrt_log"
    entropy_strength: ScalingStrength = 1.0
    entropy_layers: Name | None = None
    native: Name | None = None
    long_prompts: Literal["truncate", "chunk", "stretch"] | None = None
    long_clip: Name | None = None
    count_tokens: Annotated[list[Name], Field(max_length=16)] = []
    embeddings: Annotated[list[Name], Field(max_length=16)] = []
    two_pass: bool = False
    two_pass_strength: Strength | None = None
    deep_shrink: bool = False
    deep_shrink_share: Share | None = None
    deep_shrink_level: int | None = None
    image: Hash | None = None
    strength: Strength = 0.6
    noise: Hash | None = None
    prompts: Annotated[list[Prompt], Field(max_length=10_000)] = []

    @property
    def choice(self) -> Choice:
        """The model with its parts."""
        return Choice(self.model, parse_loras(self.loras), self.vae, self.scheduler)

    def texts(self) -> list[str]:
        """The prompts."""
        return list(self.prompts) or [self.prompt]

    def requests(self) -> list[Request]:
        """One per image, with consecutive seeds for each prompt. Raises InputError."""
        size, first = size_of(self.size), self.seed or 0  # drawn by `validated`
        return [
            Request(prompt, first + index, self.negative, size, steps=self.steps, guidance=self.guidance)
            for prompt in self.texts()
            for index in range(self.number)
        ]

    def planned(self) -> list[Request]:
        """One per image and variant."""
        return self.requests() * (2 if self.entropy_scaling == "compare" else 1)

    def validated(self, options: AppOptions, registry: Registry) -> "GenerateValues":
        """With a seed drawn where none is given, and checked as far as that goes without the model."""
        check_size(self.size, options.limits)
        check_at_most("steps", self.steps, options.limits.steps)
        check_at_most("number", self.number, options.limits.images)
        if self.number < 1:
            raise FieldError("number", f"number {self.number} is out of range: use 1 or more")
        if self.prompts:
            with at_field("prompts"):
                check_at_most("images", len(self.prompts) * self.number, options.limits.items)
        for prompt in self.texts():
            with at_field("prompts" if self.prompts else "prompt"):
                check_prompt(prompt)
        with at_field("native"):
            size_of(self.native)
        if self.deep_shrink and self.two_pass:
            raise FieldError(
                "deep_shrink", "two passes already draw their first steps near the native size: turn one of them off"
            )
        self._check_start(options.output.expanduser().resolve())
        list(self.variants(registry))
        registry.check(self.choice)
        files = self.token_files(registry)
        with at_field("prompts" if self.prompts else "prompt"):
            self.with_token_words(files)
        seed = random.randrange(2**32) if self.seed is None else self.seed
        values = self.model_copy(update={"seed": min(seed, MAX_SEED - self.number + 1)})
        values.requests()
        return values

    def variants(self, registry: Registry) -> Iterator[PluginOptions]:
        """The plugins of each image that one request makes."""
        strength = self.two_pass_strength if self.two_pass else None
        common: dict[str, Any] = {"two_pass": self.two_pass, "two_pass_strength": strength}
        if self.deep_shrink:
            common |= {name: getattr(self, name) for name in ("deep_shrink", "deep_shrink_share", "deep_shrink_level")}
        common |= registry.with_files(
            {"long_prompts": self.long_prompts, "long_clip": self.long_clip, "embedding": self.embeddings or None}
        )
        if self.entropy_scaling != "on":
            yield PluginOptions(native=self.native if self.two_pass or self.deep_shrink else None, **common)
        if self.entropy_scaling != "off":
            names = ("entropy_rule", "entropy_strength", "entropy_layers")
            details: dict[str, Any] = {name: getattr(self, name) for name in names}
            yield PluginOptions(entropy_scaling=True, native=self.native, **details, **common)

    def token_files(self, registry: Registry) -> list[Path]:
        """Where its count tokens are. Raises InputError."""
        known = registry.tokens()
        return [Path(look_up(name, known, "count token")) for name in self.count_tokens]

    def with_token_words(self, files: Sequence[Path]) -> dict[str, str]:
        """Each prompt with the tokens' words where they go. Raises InputError where there is no place for one."""
        from t2i_tools.counting.token import CountToken, check_distinct, fill_tokens

        tokens = list(map(CountToken.load, files))
        check_distinct(tokens, self.count_tokens)
        return {prompt: fill_tokens(prompt, tokens) for prompt in self.texts()}

    def _check_start(self, output: Path) -> None:
        """Raise InputError for what an image cannot start from."""
        if self.image and not start_path(output, self.image).exists():
            raise FieldError("image", "the image to start from is not here: upload it again")
        if self.noise and not has_noise(output, self.noise):
            raise FieldError("noise", "the learned noise is not here: it stays on the server that has learned it")
        if self.image and self.two_pass:
            raise FieldError("two_pass", "two passes make their own image to start from: leave one of the two out")
        if self.noise and (self.image or self.two_pass or self.number > 1):
            raise FieldError(
                "noise", "a learned noise makes one image: leave the image to start from and two passes out"
            )


def run(values: GenerateValues, context: "JobContext") -> None:
    """One file per image and variant, which is not made again when the job is taken up a second time."""
    context.result = {"files": [], "settings": [], "objects": []}
    planned = [(request, plugins) for request in values.requests() for plugins in values.variants(context.registry)]
    tokens = values.token_files(context.registry)
    worded = values.with_token_words(tokens)
    with context.pipeline(values.choice) as (pipe, options), tokens_on(pipe, tokens):
        for index, (request, plugins) in enumerate(planned):
            request = with_defaults(replace(request, prompt=worded[request.prompt]), pipe, options.model)
            check_request(pipe, request)
            path = context.folder / f"{index + 1:02}-{slug(request.prompt)}-{request.seed}.png"
            if not path.exists():
                context.pause()
                report = partial(_report, context, index, len(planned))
                image, acted = _draw(pipe, plugins, request, values, context.output, report)
                settings = image_settings(pipe, options, request) | acted | token_settings(tokens)
                save_image(image, path, settings | {"width": image.width, "height": image.height})
            _keep(context, path, options.model in BUNDLED_FORMS)


def values_of_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values that make the image of a file's settings again. Raises InputError where the app cannot."""
    try:
        return _values_of_settings(settings)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"the settings in this file are damaged: {first_line(error)}") from error


def start_path(output: Path, name: str) -> Path:
    """Where an image to start from is kept."""
    return output / "files" / "starts" / f"{name}.png"


def _draw(
    pipe: "DiffusionPipeline",
    plugins: PluginOptions,
    request: Request,
    values: GenerateValues,
    output: Path,
    on_step: Callable[[int, int], None],
) -> "tuple[Image.Image, dict[str, Any]]":
    if values.noise:
        request = plugins.worded(request)
        with plugins_on(pipe, plugins) as acted:
            image = draw_from(pipe, request, output, values.noise, on_step)
        return image, {**acted, "noise": {"sha256": values.noise}}
    if values.image is None:
        return with_plugins(pipe, plugins, request, on_step)
    from t2i_tools.images.img2img import redraw

    request = plugins.worded(request)
    with Image.open(start_path(output, values.image)) as start, plugins_on(pipe, plugins) as acted:
        image = redraw(pipe, request, start.convert("RGB"), values.strength, on_step)
    return image, {**acted, "image": {"sha256": values.image, "strength": values.strength}}


def _values_of_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    names = ("prompt", "negative", "steps", "guidance", "seed", "vae", "scheduler")
    values = {name: settings[name] for name in names if name in settings} | {"model": settings.get("model", "")}
    compared = "compare" in settings  # by the shell, which puts both in one image
    if "width" in settings and "height" in settings:
        values["size"] = f"{settings['width'] // (2 if compared else 1)}x{settings['height']}"
    values["loras"] = [f"{Path(lora['file']).stem}:{lora['scale']}" for lora in settings.get("lora", ())]
    if scaling := settings.get("entropy_scaling"):
        values |= {"entropy_scaling": "compare" if compared else "on", "native": scaling.get("native")}
        values |= {f"entropy_{name}": scaling[name] for name in ("rule", "strength", "layers") if name in scaling}
    if reading := settings.get("long_prompts"):
        values["long_prompts"] = reading["method"]
        if "long_clip" in reading:
            values["long_clip"] = reading["long_clip"].removesuffix(".safetensors")
    if tokens := settings.get("count_token"):
        values["count_tokens"] = [Path(one["file"]).stem for one in (tokens if isinstance(tokens, list) else [tokens])]
    if embeddings := settings.get("embedding"):
        values["embeddings"] = [Path(one["file"]).stem for one in embeddings]
    if passes := settings.get("two_pass"):
        values |= {"two_pass": True, "two_pass_strength": passes.get("strength")}
    if shrunk := settings.get("deep_shrink"):
        values |= {"deep_shrink": True, "native": shrunk.get("native")}
        values |= {f"deep_shrink_{name}": shrunk[name] for name in ("share", "level") if name in shrunk}
    if start := settings.get("image"):
        values |= {"image": start["sha256"], "strength": start["strength"]}
    return values | _searched(settings)


def _searched(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a search for a count has learned. Raises InputError where a file of the shell's does not hold it."""
    search, noise = settings.get("count") or {}, settings.get("noise")
    if search.get("noise") and not noise:
        raise InputError(
            "this image was made by t2i count from a noise that it has learned, which its PNG does not hold"
        )
    values = {"noise": noise["sha256"]} if noise else {}
    if search.get("tokens") and "count_token" not in settings:
        values["count_tokens"] = [Path(file).stem for file in search["tokens"]]
    return values


def _report(context: "JobContext", index: int, images: int, step: int, steps: int) -> None:
    where = f"image {index + 1} of {images}, " if images > 1 else ""
    context.progress.report(index * steps + step, images * steps, f"{where}step {step} of {steps}")


def _keep(context: "JobContext", path: Path, countable: bool) -> None:
    """Note a finished image. countable: whether its objects are such as the bundled judge knows."""
    context.progress.files.append(path)
    context.result["files"].append(context.name(path))
    settings, objects = read_settings(path), []
    if countable and (asked := asked_counts(settings["prompt"])):
        with Image.open(path) as image:
            objects = count_objects(image, asked)
    context.result["settings"].append(settings)
    context.result["objects"].append(objects)
    context.progress.events.append({"objects": objects})

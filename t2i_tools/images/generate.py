"""Images from requests, with any text-to-image pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t2i_tools.errors import InputError, OutOfMemoryError, UnsupportedModelError, first_line
from t2i_tools.handle import plugin_arguments
from t2i_tools.images.guidance import check_guidance, guidance_arguments, scale_argument
from t2i_tools.images.signature import takes
from t2i_tools.images.sizes import Fit, Size, centre_box, format_size, possible_size
from t2i_tools.models.anatomy import denoiser, execution_device, longest_side, size_multiple
from t2i_tools.models.loading import out_of_memory

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Request:
    """A request says what one image is to be.

    Args:
        prompt: What to draw.
        seed: Of the initial noise, 0 to 2**63 - 1.
        negative: The negative prompt; none by default.
        size: (height, width) in pixels; the pipeline's own by default.
        fit: Where the model cannot make this very size, "crop" (the default) generates the next larger one and cuts the
            middle out of it, "snap" takes the nearest.
        steps: Denoising steps; the pipeline's own number by default.
        guidance: The guidance scale; the pipeline's own by default.

    Raises:
        InputError: A value is out of range, or a text is empty or no valid UTF-8.

    Example:
        >>> request = t2i.Request("two cats", seed=7, size=(128, 192), steps=4)
    """

    prompt: str
    seed: int
    negative: str | None = None
    size: Size | None = None
    fit: Fit = "crop"
    steps: int | None = None
    guidance: float | None = None

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise InputError("the prompt is empty: say what to draw")
        if not all(_encodable(text) for text in (self.prompt, self.negative or "")):
            raise InputError("the prompt is not valid text: it has bytes that are not UTF-8")
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed {self.seed} is out of range: use 0 to {MAX_SEED}")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"steps {self.steps} is out of range: use 1 or more")
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise InputError(f"guidance {self.guidance} is not a finite number")


def check_request(pipe: DiffusionPipeline, request: Request) -> None:
    """Raise UnsupportedModelError or InputError for what this pipeline cannot do, before any time is spent on it."""
    asked = {
        "prompt": request.prompt,
        "negative_prompt": request.negative or None,
        "height": request.size,
        "num_inference_steps": request.steps,
        scale_argument(pipe) or "guidance_scale": request.guidance,
    }
    missing = [name for name, value in asked.items() if value is not None and not takes(pipe, name)]
    if missing:
        raise UnsupportedModelError(f"{type(pipe).__name__} does not take {', '.join(missing)}")
    check_guidance(pipe, request.guidance, request.negative)
    trained = getattr(pipe.scheduler.config, "num_train_timesteps", None)
    if request.steps and trained and request.steps > trained:
        raise InputError(f"steps {request.steps} is more than the {trained} that the model was trained on")
    longest = longest_side(pipe)
    if longest and request.size and max(possible_size(request.size, size_multiple(pipe), request.fit)) > longest:
        raise InputError(
            f"size {format_size(request.size)} is too large: {type(denoiser(pipe)).__name__} has positions for at "
            f"most {longest} pixels a side"
        )


def generate_image(
    pipe: DiffusionPipeline, request: Request, on_step: Callable[[int, int], None] | None = None
) -> Image.Image:
    """Make one image, alone in its batch and from a CPU generator, so that it depends on nothing but the request.

    on_step: called with (steps done, steps in all) where the pipeline reports its steps.
    Raises InputError, UnsupportedModelError or OutOfMemoryError, and ModelError for an image of NaN.
    """
    return generate_images(pipe, [request], on_step)[0]


def generate_images(
    pipe: DiffusionPipeline, requests: Sequence[Request], on_step: Callable[[int, int], None] | None = None
) -> list[Image.Image]:
    """Make the images of one batch, each from a CPU generator of its own.

    An image's last bits depend on how many are in the batch and on its place there, not on what the others show.
    Raises InputError, also for requests that differ in more than prompt, negative prompt and seed;
    UnsupportedModelError or OutOfMemoryError; ModelError for an image of NaN.
    """
    check_batch(pipe, requests)
    return call_pipeline(pipe, requests, call_arguments(pipe, requests, on_step))


def check_batch(pipe: DiffusionPipeline, requests: Sequence[Request]) -> None:
    """Raise InputError or UnsupportedModelError for requests that cannot be made in one call of this pipeline."""
    if len({(r.size, r.fit, r.steps, r.guidance, r.negative is None) for r in requests}) > 1:
        raise InputError("the requests of one batch must agree in size, steps, guidance and having a negative prompt")
    for request in requests:
        check_request(pipe, request)


def call_pipeline(
    pipe: DiffusionPipeline, requests: Sequence[Request], arguments: Mapping[str, Any]
) -> list[Image.Image]:
    """The images of a call with these arguments, cut to the requests' size. Raises what `generate_images` raises."""
    from t2i_tools.images.eight_bits import to_images

    first = requests[0]
    if takes(pipe, "output_type"):
        arguments = {**arguments, "output_type": "np"}
    with call_errors(pipe, requests):
        result = pipe(**arguments)
    images = to_images(made_images(pipe, result))
    check_made_size(pipe, images[0].size, arguments)
    if first.size is None or first.fit == "snap":
        return images
    return [image.crop(centre_box((image.height, image.width), first.size)) for image in images]


def made_images(pipe: DiffusionPipeline, result: Any) -> Any:
    """The images among what a pipeline's call returns. Raises UnsupportedModelError where there are none."""
    made = getattr(result, "images", getattr(result, "image", None))
    if made is None:
        raise UnsupportedModelError(f"{type(pipe).__name__} makes no images")
    return made


def check_made_size(pipe: DiffusionPipeline, size: tuple[int, int], arguments: Mapping[str, Any]) -> None:
    """Raise InputError for an image, (width, height), of another size than asked for: the pipeline has its own."""
    asked = arguments.get("width"), arguments.get("height")
    if None not in asked and size != asked:
        raise InputError(
            f"{type(pipe).__name__} has sizes of its own: asked for {asked[0]}x{asked[1]} pixels, it made "
            f"{size[0]}x{size[1]}; ask for that size, or for none"
        )


def call_arguments(
    pipe: DiffusionPipeline, requests: Sequence[Request], on_step: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """The arguments of the pipeline's call for the requests of one batch; a size only where it takes one.

    With those that plugins need: Lumina's own scaling is off while ours acts.
    """
    import torch

    from t2i_tools.models.compiled import unwrapped

    first = requests[0]
    arguments: dict[str, Any] = {
        "prompt": [r.prompt for r in requests],
        "generator": [torch.Generator("cpu").manual_seed(r.seed) for r in requests],
    }
    if len(requests) == 1:  # not every pipeline takes lists
        arguments = {name: value[0] for name, value in arguments.items()}
    if first.steps is not None:
        arguments["num_inference_steps"] = first.steps
    arguments |= guidance_arguments(pipe, first.guidance, [request.negative for request in requests])
    if first.size is not None and takes(pipe, "height"):
        arguments["height"], arguments["width"] = possible_size(first.size, size_multiple(pipe), first.fit)
        if takes(pipe, "use_resolution_binning"):  # PixArt, Sana and HunyuanDiT would take another size instead
            arguments["use_resolution_binning"] = False
    if on_step is not None and takes(pipe, "callback_on_step_end"):
        arguments["callback_on_step_end"] = _step_callback(on_step)
    return arguments | plugin_arguments(unwrapped(denoiser(pipe)))


@contextmanager
def call_errors(pipe: DiffusionPipeline, requests: Sequence[Request]) -> Iterator[None]:
    """Turns what the pipeline's call raises into OutOfMemoryError or InputError where it is one of these."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        size = format_size(requests[0].size) if requests[0].size else "the model's own size"
        several = f"{len(requests)} at once of " if len(requests) > 1 else ""
        raise OutOfMemoryError(
            f"not enough memory on {execution_device(pipe)} for {several}{size}: "
            "ask for a smaller one, or try --vae-tiling, --offload or --dtype bfloat16"
        ) from error
    except ValueError as error:
        raise InputError(f"{type(pipe).__name__} refuses this request: {first_line(error)}") from error


def _step_callback(on_step: Callable[[int, int], None]) -> Callable[..., dict]:
    def callback(pipe: DiffusionPipeline, step: int, timestep: Any, tensors: dict) -> dict:
        # Image-to-image takes fewer than the scheduler has.
        on_step(step + 1, getattr(pipe, "num_timesteps", None) or len(pipe.scheduler.timesteps))
        return tensors

    return callback


def _encodable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)

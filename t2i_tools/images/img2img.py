"""Two passes: an image near the model's own size, resized, and its details redrawn at the size asked for.

Users know it as "hires fix". It decides what is where at a size that the model knows, and costs the second pass.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from PIL import Image

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.images.generate import Request, call_arguments, call_pipeline, check_batch, generate_images
from t2i_tools.images.signature import call_default, takes
from t2i_tools.images.sizes import Size, possible_size
from t2i_tools.models.anatomy import denoiser, native_size, size_multiple

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

STRENGTH = 0.5


def two_pass(
    pipe: DiffusionPipeline,
    requests: Sequence[Request],
    *,
    strength: float = STRENGTH,
    native: Size | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Image.Image]:
    """Make images in two passes, first near the model's own size, then redrawn at the size asked for ("hires fix").

    The first pass decides what is where, at a size that the model knows; its images are resized, noised again and
    denoised. Requests without a size, or of the native one, take one pass. Plugins on the denoiser act in both,
    but for `pad_policy` and `diffusion_intervention`, which follow the calls of one pipeline: they warn in the second.

    Args:
        pipe: A text-to-image pipeline for which diffusers has an image-to-image pipeline.
        requests: The images of one batch, which differ in prompt, negative prompt and seed alone.
        strength: The share of the steps that the second pass takes, above 0 and up to 1; 0.5 by default. More of it
            keeps less of the first image.
        native: The model's own size, (height, width) in pixels, where its configuration does not say.
        on_step: Called with (steps done, steps in all) in each pass.

    Returns:
        One image per request.

    Raises:
        InputError: The requests do not go together, or the strength leaves the second pass no step.
        UnsupportedModelError: Diffusers has no image-to-image pipeline for this one, or a request asks for what the
            pipeline does not take.
        ModelError: The pipeline fails while it draws.
        OutOfMemoryError: The device has no room for the images.

    Example:
        >>> images = t2i.two_pass(pipe, [t2i.Request("two cats", seed=7, size=(128, 128), steps=4)], native=(64, 64))
    """
    check_batch(pipe, requests)
    size = requests[0].size
    first = size and first_size(pipe, size, native)
    if first is None or first == size:
        return generate_images(pipe, requests, on_step)
    check_strength(strength, requests[0].steps or call_default(pipe, "num_inference_steps"))
    second = image_to_image(pipe)
    drafts = generate_images(pipe, [replace(request, size=first, fit="snap") for request in requests], on_step)
    return _redraw(second, requests, drafts, strength, on_step)


def redraw(
    pipe: DiffusionPipeline,
    request: Request,
    image: Image.Image,
    strength: float,
    on_step: Callable[[int, int], None] | None = None,
) -> Image.Image:
    """Make one image that begins with another: resized to the request's size, noised and denoised.

    strength: the share of the steps that is taken; more of it keeps less. Raises what `two_pass` raises.
    """
    check_batch(pipe, [request])
    check_strength(strength, request.steps or call_default(pipe, "num_inference_steps"))
    request = replace(request, size=request.size or (image.height, image.width))
    return _redraw(image_to_image(pipe), [request], [image], strength, on_step)[0]


def first_size(pipe: DiffusionPipeline, size: Size, native: Size | None = None) -> Size:
    """(height, width) of the native area and, nearly, the shape of `size`. Raises InputError."""
    native = native or native_size(pipe)
    if native is None:
        raise InputError(f"{type(denoiser(pipe)).__name__} does not say at which size it was trained: pass its size")
    scale = math.sqrt(math.prod(native) / math.prod(size))
    near = round(size[0] * scale), round(size[1] * scale)
    return possible_size(near, size_multiple(pipe), "snap")


def check_strength(strength: float, steps: int) -> None:
    """Raise InputError unless the second pass has a step to take."""
    if not 0 < strength <= 1 or int(steps * strength) < 1:
        raise InputError(
            f"strength {strength:g} is out of range: with {steps} steps use {math.ceil(100 / steps) / 100:g} to 1, "
            "so that the second pass has a step"
        )


def image_to_image(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """A pipeline of the same parts that begins with an image. Raises UnsupportedModelError."""
    second = next(filter(None, map(partial(_second_of, pipe), type(pipe).__mro__)), None)
    if second is None:
        raise UnsupportedModelError(f"diffusers has no image-to-image pipeline for {type(pipe).__name__}")
    if not (takes(second, "strength") and takes(second, "image")):
        raise UnsupportedModelError(f"{type(second).__name__} takes no strength: a second pass would ignore the first")
    second.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    return second


def _second_of(pipe: DiffusionPipeline, kind: type) -> DiffusionPipeline | None:
    """The image-to-image pipeline for one of the base classes of a pipeline; None where diffusers has none."""
    from diffusers import AutoPipelineForImage2Image

    if not kind.__module__.startswith("diffusers.pipelines."):
        return None
    stock = copy.copy(pipe)
    stock.__class__ = kind  # diffusers goes by its name, and knows no other subclass
    try:
        return AutoPipelineForImage2Image.from_pipe(stock)
    except ValueError:
        return None


def _redraw(
    second: DiffusionPipeline,
    requests: Sequence[Request],
    images: Sequence[Image.Image],
    strength: float,
    on_step: Callable[[int, int], None] | None,
) -> list[Image.Image]:
    size = requests[0].size or (images[0].height, images[0].width)
    height, width = possible_size(size, size_multiple(second), requests[0].fit)
    resized = [image.resize((width, height), Image.Resampling.LANCZOS) for image in images]
    arguments = call_arguments(second, requests, on_step)
    arguments |= {"image": resized if len(resized) > 1 else resized[0], "strength": strength}
    return call_pipeline(second, requests, arguments)

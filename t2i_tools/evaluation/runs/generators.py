"""The ways to make an image of a prompt that an evaluation compares, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from t2i_tools.entropy import entropy_scaling
from t2i_tools.evaluation.runs.items import Item
from t2i_tools.evaluation.runs.shifting import first_order_solver, shifted_timesteps
from t2i_tools.images.generate import call_arguments, call_pipeline, generate_images
from t2i_tools.images.img2img import two_pass
from t2i_tools.images.signature import call_default
from t2i_tools.longclip import long_prompts
from t2i_tools.models.anatomy import denoiser, native_size
from t2i_tools.shrink import deep_shrink

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

Method: TypeAlias = "Callable[[DiffusionPipeline, Sequence[Item]], list[Image.Image]]"


def plain(pipe: DiffusionPipeline, items: Sequence[Item]) -> list[Image.Image]:
    """The pipeline as it is, all items in one call."""
    return generate_images(pipe, [item.request() for item in items])


def scaled(pipe: DiffusionPipeline, items: Sequence[Item], **options: Any) -> list[Image.Image]:
    """With entropy scaling, which acts at sizes other than the model's own. options: rule, strength."""
    with entropy_scaling(pipe, **options):
        return plain(pipe, items)


def in_two_passes(pipe: DiffusionPipeline, items: Sequence[Item]) -> list[Image.Image]:
    """Generated near the model's own size, resized, and its details redrawn."""
    return two_pass(pipe, [item.request() for item in items])


def shrunk(pipe: DiffusionPipeline, items: Sequence[Item]) -> list[Image.Image]:
    """With deep shrink, which acts above the model's own size."""
    with deep_shrink(pipe):
        return plain(pipe, items)


def with_long_prompts(pipe: DiffusionPipeline, items: Sequence[Item], method: Any) -> list[Image.Image]:
    """With all of prompts that are longer than the text encoder's limit. method: of `long_prompts`."""
    with long_prompts(pipe, method):
        return plain(pipe, items)


def shifted(pipe: DiffusionPipeline, items: Sequence[Item]) -> list[Image.Image]:
    """With as many timesteps, at noises that are higher by the square root of the share of pixels."""
    size, native = items[0].size, native_size(pipe)
    shift = math.sqrt(math.prod(size) / math.prod(native)) if size and native else 1.0
    requests = [item.request() for item in items]
    steps = items[0].steps or call_default(pipe, "num_inference_steps")
    timesteps = shifted_timesteps(pipe.scheduler, steps, shift)
    with first_order_solver(pipe):
        return call_pipeline(pipe, requests, call_arguments(pipe, requests) | {"timesteps": timesteps})


GENERATORS: dict[str, Method] = {
    "plain": plain,
    "entropy_scaling": scaled,
    "entropy_auto": partial(scaled, strength="auto"),
    "entropy_half": partial(scaled, strength=0.5),
    "entropy_log": partial(scaled, rule="log"),  # the same as strength 2
    "entropy_opposite": partial(scaled, strength=-1.0),
    "entropy_extreme": partial(scaled, strength=16.0),
    "two_pass": in_two_passes,
    "deep_shrink": shrunk,
    "shifted": shifted,
    "chunk": partial(with_long_prompts, method="chunk"),
    "stretch": partial(with_long_prompts, method="stretch"),
}


@contextmanager
def denoiser_passes(pipe: DiffusionPipeline) -> Iterator[list[int]]:
    """Collects the batch size of every pass forward through the denoiser."""
    passes: list[int] = []

    def note(module: object, arguments: tuple, named: dict) -> None:
        tensors = [value for value in (*arguments, *named.values()) if getattr(value, "ndim", 0) > 1]
        passes.append(len(tensors[0]) if tensors else 1)

    hook = denoiser(pipe).register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield passes
    finally:
        hook.remove()

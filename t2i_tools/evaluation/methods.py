"""The ways to make an image of a prompt that an evaluation compares, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from t2i_tools.entropy import entropy_scaling
from t2i_tools.evaluation.items import Item
from t2i_tools.generation import generate_images
from t2i_tools.models import denoiser

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

Method: TypeAlias = "Callable[[DiffusionPipeline, Sequence[Item]], list[Image.Image]]"


def plain(pipe: DiffusionPipeline, items: Sequence[Item]) -> list[Image.Image]:
    """The pipeline as it is, all items in one call."""
    return generate_images(pipe, [item.request() for item in items])


def scaled(pipe: DiffusionPipeline, items: Sequence[Item]) -> list[Image.Image]:
    """With entropy scaling, which acts at sizes other than the model's own."""
    with entropy_scaling(pipe):
        return plain(pipe, items)


METHODS: dict[str, Method] = {"plain": plain, "entropy_scaling": scaled}


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

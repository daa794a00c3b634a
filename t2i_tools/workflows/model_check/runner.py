"""Makes the images of a self-check, and compares them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from t2i_tools.errors import T2IError
from t2i_tools.images.generate import Request, call_arguments, check_made_size, check_request, made_images
from t2i_tools.images.sizes import Size, possible_size
from t2i_tools.models.anatomy import native_size, size_multiple
from t2i_tools.models.families import Family, pipeline_family

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# What an image must differ by to be another one, as a multiple of what a repeated call differs by.
FLOOR_FACTOR = 3.0


@dataclass(frozen=True)
class Trace:
    """What plugins may leave behind in a pipeline: hooks, and entries in its tokenizers."""

    hooks: int
    words: tuple[int, ...]


class Runner:
    """Makes images of one pipeline with fixed settings.

    Args:
        pipe: The pipeline.
        request: The prompt, seed, steps and guidance that every image has unless a call says otherwise.
        native: The size the model was trained at, (height, width) in pixels, where it does not say.
    """

    def __init__(self, pipe: DiffusionPipeline, request: Request, native: Size | None = None) -> None:
        self.pipe = pipe
        self.native = native or native_size(pipe)
        self.request = replace(request, size=self.native)
        self.floor = 0.0
        self.family = _family(pipe)
        own = None if self.family is None else self.family.own_scaling
        self._own_scaling_off: dict[str, Any] = {} if own is None else dict(own.off)

    def image(self, prompt: str | None = None, **changes: Any) -> np.ndarray:
        """One image, (H, W, 3) float in [0, 1], of the request with some fields changed."""
        request = replace(self.request, **{"prompt": prompt or self.request.prompt, **changes})
        check_request(self.pipe, request)
        return self._call(call_arguments(self.pipe, [request]))

    def image_of(self, embeds: dict[str, Any]) -> np.ndarray:
        """One image of text embeddings in the place of the prompt."""
        arguments = call_arguments(self.pipe, [self.request])
        return self._call({name: value for name, value in arguments.items() if name != "prompt"} | embeds)

    def measure_floor(self) -> np.ndarray:
        """Make the plain image twice; how much the two differ is the floor below which two images are the same."""
        first, second = self.image(), self.image()
        self.floor = distance(first, second)
        return first

    def same(self, one: np.ndarray, other: np.ndarray) -> bool:
        """Whether two images are equal: to the bit, or as nearly as a repeated call is on this machine."""
        return distance(one, other) <= FLOOR_FACTOR * self.floor

    def other_sizes(self) -> Iterator[Size]:
        """Sizes near the native one that the model can make, the nearest first."""
        if self.native is None or (self.family is not None and self.family.own_sizes):
            return
        multiple = size_multiple(self.pipe)
        height, width = self.native
        for size in ((3 * height // 2, width), (2 * height, width), (height, width // 2), (4 * height, 2 * width)):
            possible = possible_size(size, multiple, "snap")
            with suppress(T2IError):
                check_request(self.pipe, replace(self.request, size=possible))
                if possible != self.native:
                    yield possible

    def trace(self) -> Trace:
        """What is in the pipeline now."""
        modules = {
            id(module): module
            for part in self.pipe.components.values()
            if isinstance(part, torch.nn.Module)
            for module in part.modules()
        }
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules.values())
        named = sorted(self.pipe.components.items())
        tokenizers = [part for name, part in named if "tokenizer" in name and part is not None]
        words = tuple(len(getattr(part, "tokenizer", part)) for part in tokenizers)  # a processor has one
        return Trace(hooks, words)

    def paired_cost(self, plugin: Callable[[], AbstractContextManager], pairs: int, **changes: Any) -> dict[str, float]:
        """Time, and on CUDA peak memory, with a plugin over those without: medians of the ratios of pairs."""
        ratios: dict[str, list[float]] = {"time": [], "memory": []}
        for pair in range(pairs):
            contexts = (nullcontext, plugin) if pair % 2 == 0 else (plugin, nullcontext)
            costs = {}
            for context in contexts:
                with context():
                    costs[context is plugin] = self._cost(changes)
            for index, name in enumerate(("time", "memory")):
                if costs[False][index]:
                    ratios[name].append(costs[True][index] / costs[False][index])
        return {name: float(np.median(values)) for name, values in ratios.items() if values}

    def _cost(self, changes: dict[str, Any]) -> tuple[float, int]:
        on_cuda = torch.cuda.is_available() and torch.device(self.pipe.device).type == "cuda"
        if on_cuda:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        self.image(**changes)
        seconds = time.perf_counter() - start
        return seconds, torch.cuda.max_memory_allocated() if on_cuda else 0

    def _call(self, arguments: dict[str, Any]) -> np.ndarray:
        result = self.pipe(**{**arguments, **self._own_scaling_off}, output_type="np")
        image = np.asarray(made_images(self.pipe, result)[0], dtype=np.float32)
        check_made_size(self.pipe, (image.shape[1], image.shape[0]), arguments)
        return image


def _family(pipe: DiffusionPipeline) -> Family | None:
    try:
        return pipeline_family(pipe)
    except T2IError:
        return None


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The mean absolute difference of two images; infinite where their sizes differ, nan where one is not finite."""
    if one.shape != other.shape:
        return float("inf")
    return float(np.abs(one.astype(np.float64) - other).mean())

"""The self-check of a model: every plugin tried on the user's own weights (`t2i doctor --model X --try`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from t2i_tools.errors import InputError, T2IError
from t2i_tools.images.generate import Request
from t2i_tools.images.guidance import default_guidance
from t2i_tools.images.sizes import format_size
from t2i_tools.models.anatomy import denoiser, execution_device
from t2i_tools.models.families import pipeline_folder
from t2i_tools.workflows.model_check import checks, counts
from t2i_tools.workflows.model_check.card import Check, ModelCard
from t2i_tools.workflows.model_check.runner import Runner

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.detectors import Counter

__all__ = ["Check", "ModelCard", "check_model"]


def check_model(
    pipe: DiffusionPipeline,
    *,
    prompt: str = "a photo of two cats",
    steps: int = 4,
    guidance: float | None = None,
    native: tuple[int, int] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    counter: Counter | None = None,
    label: str = "cat",
    pairs: int = 3,
    on_check: Callable[[Check], object] | None = None,
) -> ModelCard:
    """Try every plugin on a pipeline and say what works on it.

    Args:
        pipe: A text-to-image pipeline of diffusers, on the device where it is to be used.
        prompt: The prompt of the images that are compared; "a photo of two cats" by default.
        steps: Denoising steps per image; 4 by default. Few are enough to see whether a plugin acts; counts want the
            usual number.
        guidance: Guidance scale; the pipeline's default if None.
        native: The size the model was trained at, (height, width) in pixels, where it does not say.
        seeds: Seeds of the images that a counter counts, one series of number words per seed; (0, 1, 2) by
            default.
        counter: A detector that knows `label`; without one nothing is counted.
        label: The class of the objects that are counted, singular; "cat" by default.
        pairs: Pairs of images by which the cost of entropy scaling is measured; 3 by default.
        on_check: Called with each `Check` as it is done.

    Returns:
        A `ModelCard`; `card.failed` lists the faults, `print(card)` shows a table, `to_html()` gives a page.

    Raises:
        InputError: There is no seed.
        T2IError: The pipeline cannot make a plain image with these settings.

    Example:
        >>> card = t2i.check_model(pipe, counter=t2i.load_bundled_counter(), label="cat")  # doctest: +SKIP
        >>> print(card)  # doctest: +SKIP
    """
    if not seeds:
        raise InputError("seeds is empty: pass at least one")
    request = Request(prompt, seeds[0], steps=steps, guidance=guidance)
    runner = Runner(pipe, request, native)
    card = ModelCard(_describe(pipe, runner), _settings(pipe, request, seeds))
    card.images["plain"] = plain = runner.measure_floor()
    for check in _all_checks(runner, plain, counter, label, seeds, pairs):
        card.checks.append(check)
        if on_check is not None:
            on_check(check)
    for size in list(runner.other_sizes())[:1]:
        card.images[f"plain, {format_size(size)}"] = runner.image(size=size)
        card.images |= _scaled_image(runner, size)
    return card


def _all_checks(
    runner: Runner, plain: Any, counter: Counter | None, label: str, seeds: Sequence[int], pairs: int
) -> Iterator[Check]:
    yield from checks.finite(runner, plain)
    parts: dict[str, Callable[[], Iterator[Check]]] = {
        "entropy scaling": partial(checks.check_entropy, runner, pairs),
        "deep shrink": partial(checks.check_deep_shrink, runner, pairs),
        "long prompts": partial(checks.check_long_prompts, runner),
        "padding": partial(checks.check_padding, runner),
        "count token": partial(checks.check_count_token, runner),
    }
    if counter is None:
        yield Check("counts", "detector", "skipped", "no detector was given: pass one to see what the model counts")
    else:
        parts["counts"] = partial(counts.check_counts, runner, counter, label, seeds)
        parts["twice the size"] = partial(counts.check_larger, runner, counter, label, seeds)
    for plugin, run in parts.items():
        yield from checks.refused(plugin, run)


def _scaled_image(runner: Runner, size: tuple[int, int]) -> dict[str, Any]:
    from t2i_tools.entropy import entropy_scaling

    try:
        with entropy_scaling(runner.pipe, native=runner.native):
            return {f"entropy scaling, {format_size(size)}": runner.image(size=size)}
    except T2IError:  # a check has said why
        return {}


def _describe(pipe: DiffusionPipeline, runner: Runner) -> dict[str, Any]:
    import diffusers
    import transformers

    model = denoiser(pipe)
    try:
        name = pipeline_folder(pipe)
    except T2IError:
        name = "unknown"
    return {
        "pipeline": type(pipe).__name__,
        "denoiser": type(model).__name__,
        "family": name,
        "native size": runner.native and format_size(runner.native),
        "device": str(execution_device(pipe)),
        "dtype": str(model.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }


def _settings(pipe: DiffusionPipeline, request: Request, seeds: Sequence[int]) -> dict[str, Any]:
    guidance = request.guidance if request.guidance is not None else default_guidance(pipe, request.negative)
    return {"prompt": request.prompt, "steps": request.steps, "guidance": guidance, "seeds": list(seeds)}

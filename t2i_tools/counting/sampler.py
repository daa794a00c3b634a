"""Images with a graph back to the text, from a diffusers pipeline as it is.

A pipeline's call runs under `torch.no_grad`. Hooks on its parts switch the gradient on for the text encoders, for a few
timesteps and for the VAE, and off for the other timesteps; the end of the call restores what was. So the memory does
not depend on the number of steps, and no pipeline is copied.

Between timesteps the gradient is always on. What the denoiser said in an early step reaches the picture through the
scheduler's sums alone, past the later steps, which count as constant: the gradient of x_0 in

    x_{t-1} = a_t x_t + b_t v_t,    v_t = denoiser(x_t, text) for the chosen t, a constant for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from t2i_tools.counting.compute import Compute
from t2i_tools.counting.early_look import Look, TrialEnded, looking
from t2i_tools.errors import UnsupportedModelError
from t2i_tools.images.generate import Request, call_arguments, call_errors
from t2i_tools.images.signature import takes
from t2i_tools.images.sizes import centre_box
from t2i_tools.models.anatomy import denoiser, execution_device, text_encoders
from t2i_tools.models.calls import batch_rows, timestep
from t2i_tools.models.compiled import around_calls
from t2i_tools.models.running_image import CallEnded, replaced_step

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Sampler:
    """Draws images of one kind: size, steps and guidance of `request`, prompt and seeds as they come.

    grad_steps: how many timesteps have a graph; grad_where: which, see `has_graph`. checkpointing: activations are
    computed again in the backward pass instead of kept. vae: another one for images with a graph, for instance an
    `AutoencoderTiny`.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        request: Request,
        *,
        grad_steps: int = 1,
        grad_where: str = "first",
        checkpointing: bool = False,
        vae: nn.Module | None = None,
    ) -> None:
        self.pipe, self.request, self.grad_steps, self.grad_where = pipe, request, grad_steps, grad_where
        self.checkpointing, self.vae = checkpointing, vae
        self.compute = Compute()
        self.image_passes = 0  # denoiser passes of the latest image
        self._graph = Compute()  # what a backward pass of the latest images would take
        self._shape: torch.Size | None = None

    def draw(
        self,
        prompt: str,
        seeds: Sequence[int],
        latents: torch.Tensor | None = None,
        gradient: bool = False,
        look: Look | None = None,
    ) -> torch.Tensor:
        """Draw one image per seed, in one batch: (B, 3, H, W) float32 in [0, 1].

        An image that the pipeline's safety checker flags is black, with a graph as without.

        Args:
            prompt: what to draw.
            seeds: B seeds.
            latents: (B, ...) initial noise of standard deviation 1 instead of the seeds' own.
            gradient: record a graph.
            look: at the images half-way; those returned are the predicted ones where it ends the call.
        """
        requests = [replace(self.request, prompt=prompt, seed=seed) for seed in seeds]
        arguments = call_arguments(self.pipe, requests) | {"output_type": "pt"}
        if latents is not None:
            arguments["latents"] = latents.to(execution_device(self.pipe), denoiser(self.pipe).dtype)
        before, self._graph = self.compute.denoiser, Compute()
        with ExitStack() as stack:
            stack.enter_context(call_errors(self.pipe, requests))
            stack.enter_context(counted(self.pipe, self.compute, self._graph))
            if gradient:
                checker = stack.enter_context(without_checker(self.pipe))
                stack.enter_context(with_vae(self.pipe, self.vae))
                stack.enter_context(recording(self.pipe, self.grad_steps, self.grad_where))
                if self.checkpointing:
                    stack.enter_context(checkpointed(self.pipe))
            images = self._call(arguments, look)
        if look is None or not look.ended:
            self.image_passes = (self.compute.denoiser - before) // len(requests)
            self.compute.vae += len(requests)
        self._graph.vae_backward = len(requests) if gradient else 0
        images = torch.as_tensor(images).float()
        if gradient and checker is not None:
            images = blackened(images, flagged(self.pipe, images))
        return self._cut(images)

    def _call(self, arguments: dict[str, Any], look: Look | None) -> Any:
        """Call the pipeline; a look sees its images cut and checked as they are delivered."""
        if look is None:
            return self.pipe(**arguments).images
        seen: list[torch.Tensor] = []

        def on_images(images: torch.Tensor) -> bool:
            self.compute.vae += len(images)
            seen.append(blackened(images, flagged(self.pipe, images)))
            return look.on_images(self._cut(seen[0]))

        watched = Look(on_images, look.at)
        try:
            with looking(self.pipe, watched):
                return self.pipe(**arguments).images
        except TrialEnded:
            return seen[0]
        finally:
            look.cost, look.ended = watched.cost, watched.ended

    def backward(self, loss: torch.Tensor) -> None:
        """Send a loss back through the latest images, and count what that takes."""
        loss.backward()
        for name in ("backward", "vae_backward"):
            setattr(self.compute, name, getattr(self.compute, name) + getattr(self._graph, name))
        self.compute.recomputed += self._graph.backward if self.checkpointing else 0

    def noise(self, seeds: Sequence[int]) -> torch.Tensor:
        """Return the initial noise (B, ...) float32 that the pipeline itself draws for these seeds.

        The first call reads it from the scheduler's first step, whatever its packing or precision. If it equals torch's
        noise of that shape, the noise of later seeds is drawn without a call.

        Raises:
            UnsupportedModelError: the pipeline takes no `latents`.
        """
        if not takes(self.pipe, "latents"):
            raise UnsupportedModelError(
                f"{type(self.pipe).__name__} takes no latents: choose a method without noise, such as bisection"
            )
        if self._shape is not None:
            return drawn_noise(self._shape, seeds)
        noise = self._first_sample(seeds)
        plain = drawn_noise(noise[:1].shape, seeds)
        if torch.allclose(noise, plain, rtol=0, atol=1e-5):
            self._shape = noise[:1].shape
            return plain
        return noise

    @torch.no_grad()
    def _first_sample(self, seeds: Sequence[int]) -> torch.Tensor:
        """What the pipeline hands its scheduler's first step, of standard deviation 1."""
        requests = [replace(self.request, seed=seed) for seed in seeds]
        scheduler, seen = self.pipe.scheduler, []

        def step(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            seen.append(sample.float().cpu() / float(getattr(scheduler, "init_noise_sigma", 1.0)))
            raise CallEnded

        with (
            counted(self.pipe, self.compute, Compute()),
            call_errors(self.pipe, requests),
            suppress(CallEnded),
            replaced_step(self.pipe, step),
        ):
            self.pipe(**call_arguments(self.pipe, requests), output_type="latent")
        if not seen:
            raise UnsupportedModelError(
                f"{type(self.pipe).__name__} does not call its scheduler's step, so its noise cannot be read: choose a "
                "method without noise, such as bisection"
            )
        return seen[0]

    def _cut(self, images: torch.Tensor) -> torch.Tensor:
        if self.request.size is None or self.request.fit == "snap":
            return images
        height, width = images.shape[-2:]
        left, top, right, bottom = centre_box((height, width), self.request.size)
        return images[..., top:bottom, left:right]


def drawn_noise(shape: torch.Size, seeds: Sequence[int]) -> torch.Tensor:
    """Noise of a shape (1, ...) for each seed."""
    return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@contextmanager
def recording(pipe: DiffusionPipeline, steps: int, where: str) -> Iterator[None]:
    """While it lasts, a call of the pipeline records a graph: of the text, of `steps` timesteps, of the VAE.

    Timesteps are counted, not calls: true guidance calls twice.
    """
    model = denoiser(pipe)
    seen: list[float] = []

    def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        time = timestep(module, args, kwargs)
        if not seen or seen[-1] != time:
            seen.append(time)
        total = len(torch.unique_consecutive(torch.as_tensor(pipe.scheduler.timesteps)))
        torch.set_grad_enabled(has_graph(len(seen) - 1, total, steps, where))

    def enable(*_: Any) -> None:
        torch.set_grad_enabled(True)

    with ExitStack() as stack:
        stack.enter_context(around_calls(model, before, enable))
        for part in text_encoders(pipe):
            stack.enter_context(around_calls(part.encoder, enable))
        yield


def has_graph(index: int, total: int, steps: int, where: str) -> bool:
    """Whether timestep `index` of `total` has a graph: one of the "first", "last" or "spread" `steps`, or "all"."""
    if where == "all":
        return True
    if where == "spread":
        return index in {i * total // steps for i in range(steps)}
    return index < steps if where == "first" else index >= total - steps


@contextmanager
def counted(pipe: DiffusionPipeline, compute: Compute, graph: Compute) -> Iterator[None]:
    """Adds the rows of each batch that goes through the denoiser to `compute`, and those with a graph to `graph`."""

    def note(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        rows = batch_rows(module, args, kwargs)
        output = output[0] if isinstance(output, tuple) else output.sample
        output = output if isinstance(output, torch.Tensor) else output[0]
        compute.denoiser += rows
        graph.backward += rows if output.requires_grad else 0

    before = compute.denoiser
    with around_calls(denoiser(pipe), after=note):
        yield
    if compute.denoiser == before:
        raise UnsupportedModelError(
            f"the calls of {type(denoiser(pipe)).__name__} could not be counted, as its hooks did not run: load the "
            "pipeline again"
        )


@contextmanager
def frozen(pipe: DiffusionPipeline) -> Iterator[None]:
    """No parameter of the pipeline asks for a gradient, so that none is computed but the token's."""
    modules = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    asking = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


@contextmanager
def checkpointed(pipe: DiffusionPipeline) -> Iterator[None]:
    """Gradient checkpointing in denoiser and VAE, where they know it."""
    changed = []
    parts = (part for part in (denoiser(pipe), getattr(pipe, "vae", None)) if part is not None)
    for part in parts:
        if getattr(part, "_supports_gradient_checkpointing", False) and not part.is_gradient_checkpointing:
            part.enable_gradient_checkpointing()
            changed.append(part)
    try:
        yield
    finally:
        for part in changed:
            part.disable_gradient_checkpointing()


@contextmanager
def without_checker(pipe: DiffusionPipeline) -> Iterator[nn.Module | None]:
    """The safety checker set aside: in a call it takes arrays, which have no graph. See `flagged`.

    Raises:
        UnsupportedModelError: the pipeline has a checker and no method to ask it later.
    """
    checker = getattr(pipe, "safety_checker", None)
    if checker is None:
        yield None
        return
    if not hasattr(pipe, "run_safety_checker"):
        raise UnsupportedModelError(
            f"{type(pipe).__name__} checks images by a safety checker in a way that a gradient cannot pass: "
            "choose a method without a gradient, such as bisection or best_of"
        )
    pipe.safety_checker = None
    try:
        yield checker
    finally:
        pipe.safety_checker = checker


@contextmanager
def with_vae(pipe: DiffusionPipeline, vae: nn.Module | None) -> Iterator[None]:
    """The pipeline's VAE exchanged for another one, where there is one."""
    if vae is None:
        yield
        return
    before, pipe.vae = pipe.vae, vae
    try:
        yield
    finally:
        pipe.vae = before


@torch.no_grad()
def flagged(pipe: DiffusionPipeline, images: torch.Tensor) -> list[bool]:
    """Ask the pipeline's safety checker about images (B, 3, H, W) in [0, 1]: one answer per image."""
    if getattr(pipe, "safety_checker", None) is None:
        return [False] * len(images)
    device, dtype = execution_device(pipe), denoiser(pipe).dtype
    _, flags = pipe.run_safety_checker((2 * images - 1).to(device, dtype), device, dtype)
    return [bool(flag) for flag in flags]


def blackened(images: torch.Tensor, flags: Sequence[bool]) -> torch.Tensor:
    """Return the images (B, 3, H, W) with the flagged ones black, as a pipeline delivers them; their gradient is 0."""
    keep = torch.tensor([not flag for flag in flags], device=images.device)[:, None, None, None]
    return torch.where(keep, images, torch.zeros_like(images))

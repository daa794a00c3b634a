"""Pictures with a graph back to the text, from a diffusers pipeline as it is.

A pipeline's call runs under `torch.no_grad`. Hooks on its parts switch the gradient on for the text encoders, for a few
timesteps and for the VAE, and off for the other timesteps; the end of the call restores what was. So the memory does
not depend on the number of steps, and no pipeline is copied.

Between timesteps the gradient is always on. What the denoiser said in an early step reaches the picture through the
scheduler's sums alone, past the later steps, which count as constant: the gradient of x_0 in

    x_{t-1} = a_t x_t + b_t v_t,    v_t = denoiser(x_t, text) for the chosen t, a constant for the others.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from t2i_tools.counting.compute import Compute
from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.generation import Request, call_arguments, call_errors, takes
from t2i_tools.models import denoiser, execution_device, text_encoders
from t2i_tools.sizes import centre_box

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


WHERE = ("first", "last", "spread")


class Sampler:
    """Draws pictures of one kind: size, steps and guidance of `request`, prompt and seeds as they come.

    grad_steps: how many timesteps have a graph; grad_where: which, see `has_graph`. checkpointing: activations are
    computed again in the backward pass instead of kept. vae: another one for pictures with a graph, for instance an
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
        if grad_steps < 1:
            raise InputError(f"grad_steps {grad_steps} is out of range: it takes 1 or more")
        if grad_where not in WHERE:
            raise InputError(f"unknown grad_where {grad_where!r}: choose {', '.join(WHERE)}")
        self.pipe, self.request, self.grad_steps, self.grad_where = pipe, request, grad_steps, grad_where
        self.checkpointing, self.vae = checkpointing, vae
        self.compute = Compute()
        self.rows = 0  # through the denoiser for the latest picture
        self._form: torch.Size | None = None

    def draw(
        self, prompt: str, seeds: Sequence[int], latents: torch.Tensor | None = None, gradient: bool = False
    ) -> torch.Tensor:
        """(B, 3, H, W) float32 in [0, 1], one picture a seed, in one batch.

        latents: (B, ...) initial noise of standard deviation 1 instead of the seeds' own.
        """
        requests = [replace(self.request, prompt=prompt, seed=seed) for seed in seeds]
        arguments = call_arguments(self.pipe, requests) | {"output_type": "pt"}
        if latents is not None:
            arguments["latents"] = latents.to(execution_device(self.pipe), denoiser(self.pipe).dtype)
        before = self.compute.denoiser
        with ExitStack() as stack:
            stack.enter_context(call_errors(self.pipe, requests))
            stack.enter_context(counted(self.pipe, self.compute, self.checkpointing and gradient))
            if gradient:
                stack.enter_context(without_checker(self.pipe, self.vae))
                stack.enter_context(recording(self.pipe, self.grad_steps, self.grad_where))
                if self.checkpointing:
                    stack.enter_context(checkpointed(self.pipe))
            images = self.pipe(**arguments).images
        self.rows = (self.compute.denoiser - before) // len(requests)
        self.compute.vae += len(requests)
        self.compute.vae_backward += len(requests) if gradient else 0
        return self._cut(torch.as_tensor(images).float())

    def noise(self, seeds: Sequence[int]) -> torch.Tensor:
        """(B, ...) float32: the initial noise that the pipeline draws for these seeds, whose form one step tells.

        Raises UnsupportedModelError where a pipeline takes no `latents`.
        """
        if not takes(self.pipe, "latents"):
            raise UnsupportedModelError(f"{type(self.pipe).__name__} takes no latents: optimise the token instead")
        if self._form is None:
            request = replace(self.request, seed=seeds[0], steps=1)
            with counted(self.pipe, self.compute, False), call_errors(self.pipe, [request]):
                latents = self.pipe(**call_arguments(self.pipe, [request]), output_type="latent").images
            self._form = latents[:1].shape
        return torch.cat([torch.randn(self._form, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    def _cut(self, images: torch.Tensor) -> torch.Tensor:
        if self.request.size is None or self.request.fit == "snap":
            return images
        left, top, right, bottom = centre_box(tuple(images.shape[-2:]), self.request.size)
        return images[..., top:bottom, left:right]


@contextmanager
def recording(pipe: DiffusionPipeline, steps: int, where: str) -> Iterator[None]:
    """While it lasts, a call of the pipeline records a graph: of the text, of `steps` timesteps, of the VAE.

    Timesteps are counted, not calls: true guidance calls twice.
    """
    model, seen = denoiser(pipe), []

    def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        time = timestep(module, args, kwargs)
        if not seen or seen[-1] != time:
            seen.append(time)
        total = len(torch.unique_consecutive(torch.as_tensor(pipe.scheduler.timesteps)))
        torch.set_grad_enabled(has_graph(len(seen) - 1, total, steps, where))

    def enable(*_: Any) -> None:
        torch.set_grad_enabled(True)

    hooks = [model.register_forward_pre_hook(before, with_kwargs=True), model.register_forward_hook(enable)]
    hooks += [part.encoder.register_forward_pre_hook(enable) for part in text_encoders(pipe)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def has_graph(index: int, total: int, steps: int, where: str) -> bool:
    """Whether timestep `index` of `total` is one of the `steps` with a graph: the "first", the "last" or "spread"."""
    if where == "spread":
        return index in {i * total // steps for i in range(steps)}
    return index < steps if where == "first" else index >= total - steps


@contextmanager
def counted(pipe: DiffusionPipeline, compute: Compute, checkpointing: bool) -> Iterator[None]:
    """Adds the rows that go through the denoiser; with a graph they will go back through it as well."""

    def note(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        tensors = [value for value in (*args, *kwargs.values()) if getattr(value, "ndim", 0) > 1]
        rows = len(tensors[0]) if tensors else 1
        output = output[0] if isinstance(output, tuple) else output.sample
        output = output if isinstance(output, torch.Tensor) else output[0]
        compute.denoiser += rows
        if output.requires_grad:
            compute.backward += rows
            compute.recomputed += rows if checkpointing else 0

    hook = denoiser(pipe).register_forward_hook(note, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def frozen(pipe: DiffusionPipeline) -> Iterator[None]:
    """Nothing in the pipeline asks for a gradient, so that none is computed but the token's."""
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
    for part in (denoiser(pipe), getattr(pipe, "vae", None)):
        if getattr(part, "_supports_gradient_checkpointing", False) and not part.is_gradient_checkpointing:
            part.enable_gradient_checkpointing()
            changed.append(part)
    try:
        yield
    finally:
        for part in changed:
            part.disable_gradient_checkpointing()


@contextmanager
def without_checker(pipe: DiffusionPipeline, vae: nn.Module | None) -> Iterator[None]:
    """The safety checker, which takes arrays, set aside, and the VAE exchanged for the preview's where there is one."""
    changes = {"safety_checker": None} if getattr(pipe, "safety_checker", None) is not None else {}
    changes |= {"vae": vae} if vae is not None else {}
    before = {name: getattr(pipe, name) for name in changes}
    for name, value in changes.items():
        setattr(pipe, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(pipe, name, value)


def timestep(model: nn.Module, args: tuple, kwargs: dict) -> float:
    """The timestep that a denoiser is called with."""
    names = list(inspect.signature(type(model).forward).parameters)[1:]
    arguments = {**dict(zip(names, args, strict=False)), **kwargs}
    time = arguments["timestep"] if "timestep" in arguments else arguments["t"]
    return float(time.flatten()[0]) if isinstance(time, torch.Tensor) else float(time)

"""One call of a denoiser, whatever its family: what it was given, which step it is, where its attention looks."""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.handle import Handle
from t2i_tools.models.compiled import unwrapped
from t2i_tools.models.families import AttentionLayout, Family, find_family, find_layout

Grid: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class DenoiserCall:
    """What a denoiser was called with. arguments: all of its forward's, by name."""

    model: nn.Module
    family: Family
    layout: AttentionLayout
    arguments: Mapping[str, Any]

    @cached_property
    def grid(self) -> Grid:
        """Tokens of the generated image, (rows, columns); (1, N) where packed. Raises UnsupportedModelError."""
        if self.family.grid is not None:
            return self.family.grid(self.model, self.arguments)
        images = self.arguments[self.family.image]
        image = images if isinstance(images, torch.Tensor) else images[0]
        if not isinstance(image, torch.Tensor):
            raise UnsupportedModelError(f"{type(self.model).__name__} was given several images at once: give one")
        if self.family.packed or (isinstance(images, torch.Tensor) and image.ndim == 3):  # (B, N, C)
            return 1, (image.shape[1] - self.references) // self.layers
        side = token_side(self.model)
        height, width = image.shape[-2:]
        return height // side, width // side

    @cached_property
    def references(self) -> int:
        """Tokens of reference images, which stand beside the generated one and are as many at every size of it."""
        return 0 if self.family.references is None else self.family.references(self.model, self.arguments)

    @property
    def layers(self) -> int:
        """How many images of one size are generated together."""
        return 1 if self.family.layers is None else self.family.layers(self.model, self.arguments)

    @property
    def image_tokens(self) -> int:
        """Tokens of the generated image with what they are padded up to."""
        return self.padded(self.layers * math.prod(self.grid))

    @cached_property
    def texts(self) -> list[torch.Tensor]:
        """The text of each item of the batch, (L, d). Raises UnsupportedModelError."""
        texts = self.arguments.get(self.family.text)
        if texts is None or not all(isinstance(text, torch.Tensor) for text in texts):
            raise UnsupportedModelError(
                f"{type(self.model).__name__} was called without text, or with several images at once"
            )
        return list(texts)

    @property
    def text_length(self) -> int:
        """Rows of the longest text of the batch with what they are padded up to."""
        if self.family.block_rows is not None:
            return self.family.block_rows(self.model, self.arguments)
        return self.padded(max(map(len, self.texts)))

    @property
    def cached(self) -> bool:
        """Whether the keys of the text are those of an earlier call, and no block has it."""
        return bool(
            self.family.text_cached and self.arguments.get(self.family.text_cached[0]) == self.family.text_cached[1]
        )

    @cached_property
    def seen_text(self) -> int:
        """Rows of the longest text of the batch, without what a mask hides; 0 without text."""
        if self.family.text_tokens is not None:
            return self.family.text_tokens(self.model, self.arguments)
        texts = self.arguments.get(self.family.text)
        if texts is None:
            return 0
        longest = max(map(len, texts))
        mask = self.arguments.get(self.layout.mask) if self.layout.mask else None
        if not isinstance(mask, torch.Tensor) or mask.is_floating_point():  # Chroma's is added, and hides nothing
            return longest
        return int((mask[:, :longest] > 0).sum(1).max())

    @property
    def extra_text(self) -> int:
        """Tokens that stand beside the text: one says to a union of ControlNets what its image shows."""
        return 1 if getattr(self.model.config, "num_mode", None) else 0

    @property
    def time(self) -> float:
        """The timestep."""
        return _number(self.arguments[self.family.time])

    def padded(self, tokens: int) -> int:
        """Tokens of a stream with what they are padded up to."""
        return -(-tokens // self.layout.multiple) * self.layout.multiple


def read_call(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> DenoiserCall:
    """Read the arguments of a denoiser's or ControlNet's forward. Raises UnsupportedModelError."""
    return DenoiserCall(model, find_family(model), find_layout(model), call_arguments(model, args, kwargs))


def call_arguments(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a module's forward, by name."""
    return {**dict(zip(parameters(type(unwrapped(module)).forward), args, strict=False)), **kwargs}


def batch_rows(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """The batch size of a call of a denoiser; for one without a record, that of its first argument."""
    model = unwrapped(model)
    try:
        name = find_family(model).image
    except UnsupportedModelError:
        name = parameters(type(model).forward)[0]
    return len(call_arguments(model, args, kwargs)[name])


def timestep(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """The timestep that a denoiser is called with, also one of which there is no record."""
    arguments = call_arguments(model, args, kwargs)
    return _number(next(arguments[name] for name in ("timestep", "t", "timesteps") if name in arguments))


def token_side(model: nn.Module) -> int:
    """Latents along one side of a token."""
    if find_family(model).packed:
        return 1
    patch = getattr(model.config, "patch_size", None) or find_layout(model).patch
    return patch if isinstance(patch, int) else patch[-1]


@cache
def parameters(forward: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the arguments of a class's forward."""
    return tuple(inspect.signature(forward).parameters)[1:]


class StepClock:
    """Numbers the denoising steps by the timesteps that a denoiser is called with.

    The same timestep again is the same step (guidance may call twice). A new image begins where the pipeline has set
    its scheduler's timesteps anew; without a pipeline, at a timestep that goes back.
    """

    def __init__(self, pipe: Any = None) -> None:
        self._pipe = weakref.ref(pipe) if hasattr(pipe, "scheduler") else lambda: None  # copied with the denoiser
        self._timesteps = self._current_timesteps()
        self.reset()

    def reset(self) -> None:
        """Begin a new image."""
        self.step = 0
        self._time: float | None = None
        self._rises: bool | None = None

    def tick(self, time: float) -> int:
        """The number of the step, from 0."""
        timesteps = self._current_timesteps()
        if timesteps is not self._timesteps:
            self._timesteps = timesteps
            self.reset()
        if self._time is not None and time != self._time:
            rises = time > self._time
            back = self._rises is not None and rises != self._rises
            self.step, self._rises = (0, None) if back else (self.step + 1, rises)
        self._time = time
        return self.step

    def _current_timesteps(self) -> Any:
        return getattr(getattr(self._pipe(), "scheduler", None), "timesteps", None)


@dataclass(frozen=True)
class Attention:
    """What torch's attention was called with. query: (B, heads, Q, d). key: (B, heads, N, d).

    mask: (B, heads, Q, N), bool (True is seen) or added to the logits. scale: of the logits.
    """

    query: torch.Tensor
    key: torch.Tensor
    mask: torch.Tensor | None
    scale: float

    @classmethod
    def of(
        cls,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Attention:
        """From the arguments of `torch.nn.functional.scaled_dot_product_attention`."""
        if key.shape[-3] != query.shape[-3]:  # grouped queries
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        shape = (*query.shape[:-1], key.shape[-2])
        if is_causal:
            attn_mask = torch.ones(shape[-2:], dtype=torch.bool, device=query.device).tril()
        mask = None if attn_mask is None else attn_mask.expand(shape)
        return cls(query, key, mask, query.shape[-1] ** -0.5 if scale is None else scale)

    def weights(self, queries: torch.Tensor, items: slice | Sequence[int] = slice(None)) -> torch.Tensor:
        """softmax(scale q k^T + mask) of chosen queries.

        Args:
            queries: (r,) their positions.
            items: of the batch; all by default.

        Returns:
            (b, heads, r, N) float32.
        """
        queries = queries.to(self.query.device)
        logits = self.query[items][..., queries, :].float() @ self.key[items].float().mT * self.scale
        if self.mask is not None:
            mask = self.mask[items][..., queries, :]
            logits = logits.masked_fill(~mask, -math.inf) if mask.dtype is torch.bool else logits + mask
        return logits.softmax(-1)


def spread(tokens: int, number: int, first: int = 0) -> torch.Tensor:
    """(min(number, tokens),) positions, evenly spread over `tokens` from `first` on."""
    return first + torch.linspace(0, tokens - 1, min(number, tokens)).round().long()


class AttentionWatcher(TorchFunctionMode):
    """Looks on at every call of torch's attention in some modules of a denoiser, and changes nothing.

    see: called with (the place that was given with the module, the denoiser's call, what attention was called with).
    The softmax is seen on the native backend only, and not in compiled code.
    """

    def __init__(self, model: nn.Module, see: Callable[[Any, DenoiserCall, Attention], None]) -> None:
        super().__init__()
        self.model, self.see = model, see
        self.call: DenoiserCall | None = None
        self._place: Any = None
        self._seen = False
        self._watching = ExitStack()

    def attach(self, handle: Handle, places: Iterable[tuple[nn.Module, str, Any]]) -> None:
        """Watch modules until the handle ends. places: (module, its name, what `see` is to get)."""
        for module, name, place in places:
            handle.on_remove(module.register_forward_pre_hook(partial(self.enter, place)).remove)
            handle.on_remove(module.register_forward_hook(partial(self.leave, name)).remove)
        handle.on_remove(self.model.register_forward_pre_hook(self.before_call, with_kwargs=True).remove)
        handle.on_remove(self.model.register_forward_hook(self.after_call, always_call=True).remove)

    def before_call(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Root pre-hook."""
        self.call = read_call(model, args, kwargs)
        self._watching.enter_context(self)

    def after_call(self, model: nn.Module, args: tuple, output: Any) -> None:
        """Root hook, called after an exception too."""
        self._watching.close()
        self._place = self.call = None

    def enter(self, place: Any, module: nn.Module, args: tuple) -> None:
        """Pre-hook of an attention, which a ControlNet may run as well."""
        self._place, self._seen = place if self.call else None, False

    def leave(self, name: str, module: nn.Module, args: tuple, output: Any) -> None:
        """Hook of an attention."""
        place, self._place = self._place, None
        if place is not None and not self._seen:
            raise UnsupportedModelError(
                f"the attention backend of {name} does not show its softmax: measure with the native one, by "
                'set_attention_backend("native") or set_attn_processor(AttnProcessor2_0())'
            )

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is F.scaled_dot_product_attention and self._place is not None and self.call is not None:
            self._seen = True
            self.see(self._place, self.call, Attention.of(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _number(time: Any) -> float:
    return float(time.flatten()[0]) if isinstance(time, torch.Tensor) else float(time)

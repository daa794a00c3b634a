"""A look at an image while it is made, whoever makes it: what the denoiser believes at this step, decoded."""

import base64
import io
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from t2i_tools.models.anatomy import denoiser

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

log = logging.getLogger("t2i_tools.ui")
SHARE = 0.08  # of the time, at most
PAUSE = 0.4  # seconds between two: a page looks no sooner
SIDE = 384


@contextmanager
def previewed(pipe: "DiffusionPipeline", show: Callable[[Image.Image], None]) -> Iterator[None]:
    """While it lasts, `show` gets an image after as many denoising steps as a fixed share of the time allows."""
    start, spent, latest = time.perf_counter(), 0.0, float("-inf")

    def look(model: torch.nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        nonlocal spent, latest
        now = time.perf_counter()
        if spent > SHARE * (now - start) or now - latest < PAUSE:
            return
        latest = now
        try:
            if (clean := estimate(pipe, args, kwargs, output)) is not None:
                show(decode(pipe, clean))
        except Exception:  # of a model whose like was not tried: its images must not fail for want of a preview
            log.exception("no preview of %s", type(pipe).__name__)
            hook.remove()
        spent += time.perf_counter() - now

    hook = denoiser(pipe).register_forward_hook(look, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def estimate(pipe: "DiffusionPipeline", args: tuple, kwargs: dict, output: Any) -> torch.Tensor | None:
    """x0 as the denoiser predicts it, (1, C, h, w), from its call; None where latents are packed or learned variance.

    Whatever the sampler, a denoiser sees x_t = a x0 + s e with the a and s of its training at time t; flow matching
    has a = 1 - s.
    """
    named = dict(zip(("sample", "timestep"), args, strict=False)) | kwargs
    x, t = named.get("sample", named.get("hidden_states")), named.get("timestep")
    y = output[0] if isinstance(output, tuple) else output.sample
    if not torch.is_tensor(x) or x.ndim != 4 or y.shape != x.shape or t is None:
        return None
    x, y = x[-1:].float(), y[-1:].float()  # the one with the prompt, where there are two
    config = pipe.scheduler.config
    t = float(torch.as_tensor(t).flatten()[-1])
    if (alphas := getattr(pipe.scheduler, "alphas_cumprod", None)) is None:
        return x - t / config.num_train_timesteps * y
    a = float(alphas[min(round(t), len(alphas) - 1)]) ** 0.5
    s = (1 - a * a) ** 0.5
    match config.get("prediction_type", "epsilon"):
        case "v_prediction":
            return a * x - s * y
        case "sample":
            return y
        case _:
            return (x - s * y) / a


@torch.no_grad()
def decode(pipe: "DiffusionPipeline", latents: torch.Tensor) -> Image.Image:
    """The image that the VAE sees in latents (1, C, h, w)."""
    config = pipe.vae.config
    latents = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0)
    decoded = pipe.vae.decode(latents.to(pipe.vae.dtype), return_dict=False)[0]
    return pipe.image_processor.postprocess(decoded.detach())[0]


def data_url(image: Image.Image, side: int = SIDE) -> str:
    """The image as a URL that holds it, with sides of at most so many pixels."""
    small, buffer = image.copy(), io.BytesIO()
    small.thumbnail((side, side))
    small.save(buffer, format="WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()

"""The bundled model: a small Stable Diffusion of emoji scenes, its CLIPs, detector and judges (see MODEL_CARD.md)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPModel, CLIPTokenizer

    from t2i_tools.detectors.heatmap import HeatmapCounter
    from t2i_tools.detectors.yolo import YoloCounter

WEIGHTS = Path(__file__).with_name("weights")
SIZES = Path(__file__).with_name("sizes.json")  # evidence for `t2i advise`, written by examples/evaluate_sizes.py
LONG_CLIP = WEIGHTS / "clip_long"
DEFAULT_STEPS = 20
DEFAULT_GUIDANCE = 3.0


def load_default(
    *, device: "torch.device | str" = "cpu", dtype: "torch.dtype | None" = None
) -> "StableDiffusionPipeline":
    """The bundled text-to-image pipeline: 128x128, 16x16x8 latents, 77 tokens; float32 unless `dtype` says otherwise.

    Every part is a stock diffusers or transformers class, so `save_pretrained` writes a folder that plain diffusers
    loads. Trained by `examples/train_default/`.
    """
    import torch
    from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    dtype = dtype or torch.float32
    with _quiet_transformers():
        text_encoder = CLIPTextModel.from_pretrained(WEIGHTS / "clip", dtype=dtype)
    pipe = StableDiffusionPipeline(
        vae=AutoencoderTiny.from_pretrained(WEIGHTS / "vae", dtype=dtype),
        text_encoder=text_encoder,
        tokenizer=CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(WEIGHTS / "unet", dtype=dtype),
        scheduler=DDIMScheduler.from_pretrained(WEIGHTS / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipe.to(device)


def load_default_clip(*, device: "torch.device | str" = "cpu") -> "tuple[CLIPModel, CLIPTokenizer]":
    """The evaluation's CLIP and the tokenizer: it never conditioned, steered or sat in a loss.

    Images go in as (B, 3, 128, 128) in [-1, 1].
    """
    import torch
    from transformers import CLIPModel, CLIPTokenizer

    clip = CLIPModel.from_pretrained(WEIGHTS / "clip_score", dtype=torch.float32)
    return clip.eval().to(device), CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")


def load_default_long_clip(*, device: "torch.device | str" = "cpu") -> "tuple[CLIPModel, CLIPTokenizer]":
    """The CLIP whose text encoder conditions the bundled model, stretched to 248 tokens and tuned on long captions.

    For `long_prompts(pipe, "stretch", weights=LONG_CLIP)`. Images go in as (B, 3, 128, 128) in [-1, 1]. Trained by
    `examples/train_long_clip.py`.
    """
    import torch
    from transformers import CLIPModel, CLIPTokenizer

    clip = CLIPModel.from_pretrained(LONG_CLIP, dtype=torch.float32)
    length = clip.config.text_config.max_position_embeddings
    return clip.eval().to(device), CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer", model_max_length=length)


def load_default_counter() -> "YoloCounter":
    """The detector that an optimiser may use: YOLO11n on emoji scenes (needs the extra `count`)."""
    from t2i_tools.detectors.yolo import YoloCounter

    return YoloCounter.load(WEIGHTS / "detector" / "model.safetensors")


def load_default_judge(*, second: bool = False) -> "HeatmapCounter":
    """The judge, which evaluates and never takes part in an optimisation; `second`: one trained to differ from it."""
    from t2i_tools.detectors.heatmap import HeatmapCounter

    return HeatmapCounter.load(WEIGHTS / ("judge_strong" if second else "judge") / "model.safetensors")


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """The file holds a whole CLIP, and transformers would list all that a text encoder leaves of it."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)

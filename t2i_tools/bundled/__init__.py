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
    from t2i_tools.metrics import ClipScorer

# 55 MB in git are not moved for a name: the next weights will lie beside this file.
WEIGHTS = Path(__file__).parents[1] / "default" / "weights"
SIZES = Path(__file__).with_name(
    "sizes.json"
)  # evidence for `t2i advise`, written by examples/evaluations/sizes/run.py
LONG_CLIP = WEIGHTS / "clip_long"
BUNDLED_STEPS = 20
BUNDLED_SIZE = (128, 128)  # (height, width) in pixels
IN_PLUS_MINUS_ONE = (0.5,) * 3  # mean and std that bring [0, 1] to [-1, 1]
BUNDLED_GUIDANCE = 3.0
FEW_STEPS, FEW_STEPS_GUIDANCE = 4, 1.0
FEW_STEPS_LORA = Path(__file__).with_name("few_steps.safetensors")


def bundled_defaults(*, few_steps: bool = False) -> tuple[int, float]:
    """Steps and guidance scale that the bundled model, or its four-step form, is made for."""
    return (FEW_STEPS, FEW_STEPS_GUIDANCE) if few_steps else (BUNDLED_STEPS, BUNDLED_GUIDANCE)


def load_bundled(
    *, device: "torch.device | str" = "cpu", dtype: "torch.dtype | None" = None, few_steps: bool = False
) -> "StableDiffusionPipeline":
    """Open the bundled text-to-image pipeline: 128x128 pixels, 16x16x8 latents, prompts of 77 tokens.

    Every part is a stock class of diffusers or transformers, so `save_pretrained` writes a folder that plain diffusers
    loads. Trained by `examples/training/bundled/`.

    Args:
        device: Where it computes; "cpu" by default.
        dtype: Its precision; float32 by default.
        few_steps: Whether to load the four-step form: a LoRA, distilled after Salimans and Ho (ICLR 2022), is merged
            into the UNet. Call it with 4 steps and a guidance scale of 1. Needs the extra `lora`. False by default.

    Returns:
        The pipeline.

    Raises:
        UnsupportedModelError: few_steps is set and the extra `lora` is not installed.

    Example:
        >>> image = t2i.load_bundled()("two cats", num_inference_steps=2).images[0]
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
    if few_steps:
        from t2i_tools.models.parts import use_loras

        use_loras(pipe, [(FEW_STEPS_LORA, 1.0)])
        pipe.fuse_lora()  # as if the UNet had been trained so: plugins and other LoRAs see its usual layers
        pipe.unload_lora_weights()
    return pipe.to(device)


def load_bundled_clip(*, device: "torch.device | str" = "cpu") -> "ClipScorer":
    """Open the evaluation's CLIP, which never conditioned, steered or sat in a loss.

    Args:
        device: Where it computes; "cpu" by default.

    Returns:
        The scorer, for images and texts of the bundled model.

    Example:
        >>> scores = t2i.load_bundled_clip().score(pipe("two cats").images, ["two cats"])
    """
    import torch
    from transformers import CLIPModel, CLIPTokenizer

    from t2i_tools.metrics import ClipScorer

    clip = CLIPModel.from_pretrained(WEIGHTS / "clip_score", dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    return ClipScorer(clip.to(device), tokenizer, mean=IN_PLUS_MINUS_ONE, std=IN_PLUS_MINUS_ONE)


def load_bundled_long_clip(*, device: "torch.device | str" = "cpu") -> "tuple[CLIPModel, CLIPTokenizer]":
    """Open the CLIP whose text encoder conditions the bundled model, stretched to 248 tokens and tuned.

    `long_prompts(pipe, weights=...)` takes it. Trained by `examples/training/long_clip.py`.

    Args:
        device: Where it computes; "cpu" by default.

    Returns:
        The model, which takes images (B, 3, 128, 128) in [-1, 1], and its tokenizer.

    Example:
        >>> clip, tokenizer = t2i.load_bundled_long_clip()
        >>> tokenizer.model_max_length
        248
    """
    import torch
    from transformers import CLIPModel, CLIPTokenizer

    clip = CLIPModel.from_pretrained(LONG_CLIP, dtype=torch.float32)
    length = clip.config.text_config.max_position_embeddings
    return clip.eval().to(device), CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer", model_max_length=length)


def load_bundled_counter() -> "YoloCounter":
    """Open the detector that a search may use: YOLO11n on emoji scenes (needs the extra `count`).

    Returns:
        A counter with a gradient, for images of the bundled model.

    Raises:
        UnsupportedModelError: The extra is missing.

    Example:
        >>> "cat" in t2i.load_bundled_counter().labels
        True
    """
    from t2i_tools.detectors.heatmap import IMAGE_SIZE
    from t2i_tools.detectors.yolo import YoloCounter

    return YoloCounter.load(WEIGHTS / "detector" / "model.safetensors", image_size=IMAGE_SIZE)


def load_bundled_judge(*, second: bool = False) -> "HeatmapCounter":
    """Open the judge, which evaluates and never takes part in a search.

    Args:
        second: Open the judge that was trained to differ from the first; False by default.

    Returns:
        A counter, for images of the bundled model.

    Example:
        >>> found = t2i.load_bundled_judge().detect(pipe("two cats").images, "cat")
    """
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

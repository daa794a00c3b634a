"""What the plugins cost at the true size of released models: time and peak memory, on over off.

    python examples/benchmarks/true_sizes.py sd15 --size 512x768 --pairs 5
    python examples/benchmarks/true_sizes.py sdxl flux --device cuda --dtype bfloat16 --xformers --pairs 20

The weights are random in the released configurations: speed and memory do not depend on them. Off and on alternate,
and the median of the ratios is printed with a bootstrap interval. On a CPU, time and peak memory are those of the
process (the peak is reset before each call, on Linux), on CUDA they are the clock's and torch's. Latents are made, not
images: the VAE sees no plugin.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_median import median_of

import t2i_tools as t2i
from t2i_tools.counting.token import start_token
from t2i_tools.images.sizes import parse_size
from t2i_tools.models.anatomy import denoiser

PROMPT = "a photo of seven apples on a wooden table"
LONG_PROMPT = ", ".join([PROMPT] * 12)  # two windows of 77 and more
SD_BLOCKS = {
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}


def clip_encoder(projection: bool = False, **config: Any) -> Any:
    """A CLIP text encoder of a released size."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    ids = {"vocab_size": 49408, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(CLIPTextConfig(**ids, **config))


def clip_l(projection: bool = False) -> Any:
    """The CLIP ViT-L/14 of Stable Diffusion 1, SDXL, SD3 and Flux."""
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    return clip_encoder(projection, **sizes, projection_dim=768)


def clip_g() -> Any:
    """The OpenCLIP bigG/14 of SDXL and SD3."""
    sizes = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
    return clip_encoder(True, **sizes, projection_dim=1280, hidden_act="gelu")


def tokenizer() -> Any:
    """The bundled tokenizer: shorter than the released vocabulary, and read at the same cost."""
    return t2i.load_bundled().tokenizer


def vae(channels: int = 4) -> Any:
    """A small VAE, of which only the configuration is read: latents are compared."""
    from diffusers import AutoencoderKL

    types = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return AutoencoderKL(block_out_channels=(8,) * 4, norm_num_groups=2, latent_channels=channels, **types)


def stable_diffusion(text_encoder: Any, **unet: Any) -> Any:
    """A Stable Diffusion pipeline around a UNet."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    model = UNet2DConditionModel(**SD_BLOCKS, **unet)
    return StableDiffusionPipeline(vae(), text_encoder, tokenizer(), model, DDIMScheduler(), **parts)


def sd15() -> Any:
    """Stable Diffusion 1.5: 860 million parameters in the UNet, 512x512."""
    return stable_diffusion(clip_l(), sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def sd21() -> Any:
    """Stable Diffusion 2.1: 866 million, 768x768."""
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
    heads = {"attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
    return stable_diffusion(clip_encoder(**sizes, hidden_act="gelu"), sample_size=96, cross_attention_dim=1024, **heads)


def sdxl() -> Any:
    """SDXL: 2.6 billion, 1024x1024."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    encoders = (clip_l(), clip_g(), tokenizer(), tokenizer())
    return StableDiffusionXLPipeline(vae(), *encoders, model, EulerDiscreteScheduler())


def sd3() -> Any:
    """SD3 medium without its T5: 2 billion, 1024x1024."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    model = SD3Transformer2DModel(
        sample_size=128,
        num_layers=24,
        num_attention_heads=24,
        attention_head_dim=64,
        caption_projection_dim=1536,
        joint_attention_dim=4096,
        pooled_projection_dim=2048,
        pos_embed_max_size=192,
        out_channels=16,
    )
    encoders = (clip_l(True), tokenizer(), clip_g(), tokenizer(), None, None)
    return StableDiffusion3Pipeline(model, FlowMatchEulerDiscreteScheduler(), vae(16), *encoders)


def flux() -> Any:
    """Flux dev: 12 billion, 1024x1024; its texts are random embeddings, its CLIP and T5 are left out."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    model = FluxTransformer2DModel(guidance_embeds=True)
    return FluxPipeline(FlowMatchEulerDiscreteScheduler(), vae(16), None, None, None, None, model)


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "sd15": (sd15, "512x768"),
    "sd21": (sd21, "768x1152"),
    "sdxl": (sdxl, "1024x1536"),
    "sd3": (sd3, "1024x1536"),
    "flux": (flux, "1024x1536"),
}


def plugins(pipe: Any) -> Iterator[tuple[str, Callable[[], AbstractContextManager], str, str]]:
    """Name, plugin, and the prompts without and with it."""
    yield "entropy scaling", lambda: t2i.entropy_scaling(pipe), PROMPT, PROMPT
    if getattr(pipe, "text_encoder", None) is None:
        return
    token = start_token(pipe, 7, "apple", start="seven")
    yield "count token", lambda: t2i.count_token(pipe, token), PROMPT, PROMPT.replace("seven", token.word)
    yield "long prompts, chunk", lambda: t2i.long_prompts(pipe, "chunk"), LONG_PROMPT, LONG_PROMPT
    yield "long prompts, stretch", lambda: t2i.long_prompts(pipe, "stretch"), LONG_PROMPT, LONG_PROMPT


def text_of(pipe: Any, prompt: str) -> dict[str, Any]:
    """The prompt, or random embeddings where the pipeline has no text encoder."""
    if getattr(pipe, "text_encoder", None) is not None:
        return {"prompt": prompt}
    like = denoiser(pipe)
    rows = torch.randn(1, 512, 4096, generator=torch.Generator().manual_seed(0)).to(like.device, like.dtype)
    return {"prompt_embeds": rows, "pooled_prompt_embeds": rows[:, 0, :768]}


def one_call(pipe: Any, prompt: str, size: tuple[int, int], steps: int) -> tuple[float, float]:
    """Seconds and peak memory in MiB of one call."""
    cuda = denoiser(pipe).device.type == "cuda"
    reset_peak(cuda)
    clock = time.perf_counter if cuda else time.process_time
    start = clock()
    pipe(
        **text_of(pipe, prompt),
        height=size[0],
        width=size[1],
        num_inference_steps=steps,
        guidance_scale=1.0,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
    )
    if cuda:
        torch.cuda.synchronize()
    return clock() - start, peak(cuda)


def reset_peak(cuda: bool) -> None:
    """Let the peak begin anew."""
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak(cuda: bool) -> float:
    """MiB."""
    if cuda:
        return torch.cuda.max_memory_allocated() / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measure(pipe: Any, size: tuple[int, int], steps: int, pairs: int) -> Iterator[dict[str, Any]]:
    """One row per plugin."""
    one_call(pipe, PROMPT, size, steps)
    for name, plugin, plain, prompt in plugins(pipe):
        costs: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for pair in range(pairs):
            arms = ((False, nullcontext, plain), (True, plugin, prompt))
            for on, context, text in arms[:: 1 if pair % 2 else -1]:
                with context():
                    costs[on].append(one_call(pipe, text, size, steps))
        ratios = np.array(costs[True]) / np.array(costs[False])
        row: dict[str, Any] = {"plugin": name, "pairs": pairs, "seconds off": float(np.median(costs[False], axis=0)[0])}
        row["time"], row["memory"] = (median_of(ratios[:, column]) for column in range(2))
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=MODELS)
    parser.add_argument("--size", help="WxH; half as large again as the native size by default")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--xformers", action="store_true")
    options = parser.parse_args()
    for name in options.models:
        build, size = MODELS[name]
        torch.manual_seed(0)
        pipe = build().to(options.device, getattr(torch, options.dtype))
        pipe.set_progress_bar_config(disable=True)
        if options.xformers:
            pipe.enable_xformers_memory_efficient_attention()
        for row in measure(pipe, parse_size(options.size or size), options.steps, options.pairs):
            print(json.dumps({"model": name, "size": options.size or size, **row}), flush=True)


if __name__ == "__main__":
    main()

"""Four small models for the padding probes, alike in all but two things: {frozen encoder, encoder trained jointly} x
{cross-attention UNet, MM-DiT}.

`python examples/training/bundled/padding.py --cell unet-frozen` and so on for unet-joint, mmdit-frozen and mmdit-joint.
Scenes of 64x64 with one to three objects of six classes; 8x8 latents of the bundled VAE; the same scenes, captions,
noise, objective, steps and batches in every cell, 2.3 to 2.6 M parameters. The encoders start from the bundled CLIP;
text has 32 positions, unmasked. The pooled vector is zero: whatever is known of the prompt is in the rows of its text.
Each cell's weights go, as halves, to `padding_weights/`; a diffusers folder of these, WORK/padding-CELL, is what
`examples/evaluations/padding/run.py --model` reads. `--unpack 1` makes that folder of the weights that are shipped.
"""

import time
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import WEIGHTS, Checkpoint, arguments, learning_rate, stack
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    DiffusionPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils.logging import set_verbosity_error

from t2i_tools.bundled.scenes import COLOURS, LABELS, Scene, held_out, scene
from t2i_tools.files import replacing

CELLS = ("unet-frozen", "unet-joint", "mmdit-frozen", "mmdit-joint")
# 28 MB in git are not moved for a name.
SHIPPED = Path(__file__).parents[2] / "train_default" / "padding_weights"
CLASSES = LABELS[:6]
SIZE, TOKENS, POOLED = 64, 32, 8


def small_scene(seed: int, split: str = "train") -> Scene:
    """One to three objects of one of six classes on a named background."""
    rng = np.random.default_rng([seed, 6])
    colour = str(rng.choice(list(COLOURS)))
    label = str(rng.choice([name for name in CLASSES if not held_out(name, colour)]))
    count = int(rng.integers(1, 4))
    return scene(seed, size=(SIZE, SIZE), split=split, kind="counts", label=label, count=count, colour=colour)


def build_encoder() -> CLIPTextModelWithProjection:
    """The bundled text encoder at the first 32 positions, with a pooled vector that is always zero."""
    config = CLIPTextConfig.from_pretrained(WEIGHTS / "clip")
    config.max_position_embeddings, config.projection_dim = TOKENS, POOLED
    encoder = CLIPTextModelWithProjection(config)
    whole = CLIPTextModelWithProjection.from_pretrained(WEIGHTS / "clip", dtype=torch.float32).state_dict()
    whole = {name: value[:TOKENS] if "position_embedding" in name else value for name, value in whole.items()}
    encoder.load_state_dict({**whole, "text_projection.weight": torch.zeros(POOLED, config.hidden_size)}, strict=False)
    encoder.text_projection.requires_grad_(False)
    return encoder.eval()


def build_denoiser(kind: str) -> nn.Module:
    """Reads rows of text of width 256."""
    if kind == "mmdit":
        return SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=8,
            out_channels=8,
            num_layers=4,
            attention_head_dim=32,
            num_attention_heads=4,
            joint_attention_dim=256,
            caption_projection_dim=128,
            pooled_projection_dim=2 * POOLED,
            pos_embed_max_size=8,
        )
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        block_out_channels=(48, 96),
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        attention_head_dim=(2, 3),
        cross_attention_dim=256,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=POOLED + 6 * 8,
    )


def build_pipeline(cell: str) -> DiffusionPipeline:
    """An SDXL or an SD3 pipeline; both read the last layer but one of two CLIPs, side by side."""
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer", model_max_length=TOKENS)
    parts = {"text_encoder": build_encoder(), "text_encoder_2": build_encoder()}
    parts |= {"tokenizer": tokenizer, "tokenizer_2": tokenizer}
    parts["vae"] = AutoencoderTiny.from_pretrained(WEIGHTS / "vae", dtype=torch.float32)
    parts["scheduler"] = DDIMScheduler.from_pretrained(WEIGHTS / "scheduler")
    if cell.startswith("unet"):
        return StableDiffusionXLPipeline(unet=build_denoiser("unet"), force_zeros_for_empty_prompt=False, **parts)
    return StableDiffusion3Pipeline(transformer=build_denoiser("mmdit"), text_encoder_3=None, tokenizer_3=None, **parts)


def trained_parts(pipe: DiffusionPipeline, cell: str) -> dict[str, nn.Module]:
    """What training changes: the denoiser, and in a joint cell both text encoders."""
    parts = {"denoiser": pipe.unet if hasattr(pipe, "unet") else pipe.transformer}
    if cell.endswith("joint"):
        parts |= {"text_encoder": pipe.text_encoder, "text_encoder_2": pipe.text_encoder_2}
    return parts


def pack(pipe: DiffusionPipeline, cell: str, file: Path) -> None:
    """Writes the trained parts, as halves."""
    parts = trained_parts(pipe, cell).items()
    tensors = {f"{part}.{key}": value.half() for part, model in parts for key, value in model.state_dict().items()}
    with replacing(file) as beside:
        save_file({key: value.contiguous() for key, value in tensors.items()}, beside)


def unpack(cell: str, file: Path, folder: Path) -> None:
    """Makes a diffusers folder of a cell's packed weights."""
    pipe, tensors = build_pipeline(cell), load_file(file)
    for part, model in trained_parts(pipe, cell).items():
        prefix = f"{part}."
        model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    pipe.save_pretrained(folder)


def velocity(pipe: DiffusionPipeline, noisy: torch.Tensor, timesteps: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """What the denoiser predicts, called as the pipeline calls it. noisy: (B, 8, 8, 8), ids: (B, 32)."""
    encoders = (pipe.text_encoder, pipe.text_encoder_2)
    rows = torch.cat([e(ids, output_hidden_states=True).hidden_states[-2] for e in encoders], dim=-1)
    batch = len(noisy)
    if hasattr(pipe, "unet"):
        added = {"text_embeds": rows.new_zeros(batch, POOLED), "time_ids": rows.new_tensor([[64, 64, 0, 0, 64, 64.0]])}
        added["time_ids"] = added["time_ids"].expand(batch, -1)
        return pipe.unet(noisy, timesteps, rows, added_cond_kwargs=added).sample
    rows = torch.cat([rows, rows.new_zeros(batch, 1, rows.shape[2])], dim=1)  # one row of T5, which is absent
    pooled = rows.new_zeros(batch, 2 * POOLED)
    return pipe.transformer(noisy, rows, pooled, timesteps).sample


@torch.no_grad()
def load_data(pipe: DiffusionPipeline, scenes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (n, 8, 8, 8) and token ids (n, 32) of the training scenes."""
    with ProcessPoolExecutor() as pool:
        drawn = list(pool.map(small_scene, range(3_000_000, 3_000_000 + scenes), chunksize=256))
    latents = [pipe.vae.encode(part.float() / 127.5 - 1).latents for part in stack(drawn).split(64)]
    read = {"padding": "max_length", "truncation": True, "max_length": TOKENS, "return_tensors": "pt"}
    return torch.cat(latents), pipe.tokenizer([s.caption for s in drawn], **read).input_ids


def main() -> None:
    settings = {"cell": CELLS[0], "batch": 64, "scenes": 12_000, "lr": 1e-3, "seed": 0, "save_every": 100, "unpack": 0}
    options = arguments("padding", steps=2000, **settings)
    if options.cell not in CELLS:
        raise SystemExit(f"unknown cell {options.cell!r}: one of {', '.join(CELLS)}")
    set_verbosity_error()  # of the bundled CLIP only the text encoder is read
    name = options.cell + (f"-{options.seed}" if options.seed else "")
    packed = SHIPPED / f"{name}.safetensors"
    if not options.unpack:
        options.checkpoint = options.work / f"padding-{name}.safetensors"
        pack(train(options), options.cell, packed)
    unpack(options.cell, packed, options.work / f"padding-{name}")


def train(options: Namespace) -> DiffusionPipeline:
    """The pipeline of a cell after all steps; it goes on from the checkpoint."""
    torch.manual_seed(options.seed)
    pipe = build_pipeline(options.cell)
    trained = trained_parts(pipe, options.cell)
    trained["denoiser"].train()
    if not options.cell.endswith("joint"):
        pipe.text_encoder.requires_grad_(False)
        pipe.text_encoder_2.requires_grad_(False)
    parameters = [p for p in chain(*(model.parameters() for model in trained.values())) if p.requires_grad]
    size = sum(p.numel() for p in trained["denoiser"].parameters())
    print(options.cell, size, "parameters of the denoiser", flush=True)
    optimizer = torch.optim.AdamW(parameters, options.lr, betas=(0.9, 0.99), weight_decay=0.01)
    checkpoint = Checkpoint(options.checkpoint, trained, optimizer)
    first = checkpoint.load()
    latents, ids = load_data(pipe, options.scenes)
    empty = pipe.tokenizer("", padding="max_length", max_length=TOKENS, return_tensors="pt").input_ids
    started, total = time.time(), 0.0
    for step in range(first, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.lr)
        generator = torch.Generator().manual_seed(step)  # the same scenes, noise and steps in every cell
        chosen = torch.randint(len(latents), (options.batch,), generator=generator)
        text = torch.where(torch.rand(options.batch, 1, generator=generator) < 0.1, empty, ids[chosen])
        noise = torch.randn(latents[chosen].shape, generator=generator)
        timesteps = (torch.rand(options.batch, generator=generator) ** 0.6 * 1000).long().clamp(max=999)
        noisy = pipe.scheduler.add_noise(latents[chosen], noise, timesteps)
        target = pipe.scheduler.get_velocity(latents[chosen], noise, timesteps)
        loss = F.mse_loss(velocity(pipe, noisy, timesteps, text), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        total += loss.item()
        if (step + 1) % options.save_every == 0 or step + 1 == options.steps:
            checkpoint.save(step + 1, loss=total / options.save_every, seconds=time.time() - started)
            total = 0.0
    return pipe


if __name__ == "__main__":
    main()

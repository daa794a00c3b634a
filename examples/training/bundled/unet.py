"""Stage 4: the UNet, v-prediction with zero terminal SNR, on 64x64 scenes first (`--size 64`), then on 128x128.

Beside the denoising loss, a linear head reads the class of every latent cell from the decoder's features: where which
object goes is what a denoiser learns last, and a cross-entropy teaches it sooner. The head is thrown away.
Without a checkpoint, `--init t2i_tools/default/weights/unet` goes on from what is shipped.
On CPU, two processes of one thread each are faster than one of two: `OMP_NUM_THREADS=1 torchrun --nproc-per-node 2`,
which together see twice `--batch` a step.
"""

import time
from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from common import WEIGHTS, Checkpoint, arguments
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import nn

from t2i_tools.bundled.scenes import LABELS

CHANNELS = (64, 128, 256)


def build_unet() -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        attention_head_dim=tuple(width // 32 for width in CHANNELS),  # diffusers reads it as the number of heads
        cross_attention_dim=128,
        norm_num_groups=16,
    )
    return unet.to(memory_format=torch.channels_last)


def build_scheduler() -> DDIMScheduler:
    """SD's betas: a third of the steps lie where number and places are decided (SNR 0.0025 to 0.16), not a fifth."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,  # trailing does not read it, but the pipeline warns of any other
        clip_sample=False,
    )


class Student(nn.Module):
    """The UNet and the head that reads cells from its second up block, (B, 1 + classes, h, w)."""

    def __init__(self, unet: UNet2DConditionModel):
        super().__init__()
        self.unet = unet
        self.head = nn.Conv2d(CHANNELS[1], 1 + len(LABELS), 1)
        unet.up_blocks[1].register_forward_hook(self._keep)

    def _keep(self, module, args, features):
        self.features = features

    def forward(self, noisy, timesteps, states):
        velocity = self.unet(noisy, timesteps, states).sample
        return velocity, self.head(self.features)


def rate(step: int, options) -> float:
    """Warm-up, plateau, and a linear cool-down over the last `cooldown` steps."""
    left = (options.steps - step) / options.cooldown if options.cooldown else 1.0
    return options.lr * min(1.0, (step + 1) / 200, left)


def layouts(cells: torch.Tensor) -> torch.Tensor:
    """The numbers of the scenes with three classes and more, which only layouts have; cells (n, h, w)."""
    present = torch.stack([(cells == 1 + index).flatten(1).any(1) for index in range(len(LABELS))])
    return (present.sum(0) >= 3).nonzero()[:, 0]


def drawn_times(quantiles: torch.Tensor, early: float, late: float) -> torch.Tensor:
    """Timesteps from 0 to 999 at quantiles of Kumaraswamy's distribution; quantiles (n,) in [0, 1).

    early, late: its shape. (5/3, 1) puts two thirds above the middle, (6, 3) four fifths where number and places are
    decided, between the timesteps 590 and 905.
    """
    return (1000 * (1 - (1 - quantiles) ** (1 / late)) ** (1 / early)).long().clamp(max=999)


def batch(data: dict[str, torch.Tensor], size: int, share: float, generator: torch.Generator, device: torch.device):
    """Latents, text states (10 % of them the empty caption's, number 0) and cells of `size` random scenes.

    share: of them that are drawn from the layouts.
    """
    chosen = torch.randint(len(data["latents"]), (size,), generator=generator)
    placed = data["layouts"][torch.randint(len(data["layouts"]), (round(share * size),), generator=generator)]
    chosen[: len(placed)] = placed
    chosen = chosen[torch.randperm(size, generator=generator)]  # a place in the batch is a range of timesteps
    captions = data["captions"][chosen]
    captions[torch.rand(size, generator=generator) < 0.1] = 0
    latents = data["latents"][chosen].float().contiguous(memory_format=torch.channels_last)
    states = data["states"][captions].float()
    return latents.to(device), states.to(device), data["cells"][chosen].long().to(device)


def main() -> None:
    settings = {"size": 128, "batch": 32, "lr": 8e-4, "cooldown": 0, "cells": 0.4, "save_every": 100, "init": ""}
    options = arguments("unet", steps=100_000, layouts=0.0, early=5 / 3, late=1.0, **settings)
    # Without cpu=, every rank of a machine without accelerator takes itself for the only one.
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    torch.manual_seed(0)
    scheduler = build_scheduler()
    student = Student(build_unet())
    if options.init:
        student.unet.load_state_dict(load_file(Path(options.init) / "diffusion_pytorch_model.safetensors"))
    ema = deepcopy(student.unet).requires_grad_(False)
    optimizer = torch.optim.AdamW(student.parameters(), options.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    checkpoint = Checkpoint(options.checkpoint, {"student": student, "ema": ema}, optimizer)
    first = checkpoint.load()
    model, optimizer = accelerator.prepare(student, optimizer)
    ema.to(accelerator.device)
    data = load_file(options.work / f"latents-{options.size}.safetensors")
    data["layouts"] = layouts(data["cells"])
    started, total = time.time(), torch.zeros(2)
    for step in range(first, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, options)
        generator = torch.Generator().manual_seed(step * accelerator.num_processes + accelerator.process_index)
        latents, states, cells = batch(data, options.batch, options.layouts, generator, accelerator.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        spread = (torch.arange(options.batch) + torch.rand(options.batch, generator=generator)) / options.batch
        timesteps = drawn_times(spread, options.early, options.late).to(latents.device)  # stratified: less variance
        noisy = scheduler.add_noise(latents, noise, timesteps)
        velocity, logits = model(noisy, timesteps, states)
        denoising = F.mse_loss(velocity, scheduler.get_velocity(latents, noise, timesteps))
        placing = F.cross_entropy(logits, cells)
        accelerator.backward(denoising + options.cells * placing)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay = min(0.999, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(student.unet.parameters()), 1 - decay)
        total += torch.tensor([denoising.item(), placing.item()])
        if ((step + 1) % options.save_every == 0 or step + 1 == options.steps) and accelerator.is_main_process:
            mean, total = total / options.save_every, torch.zeros(2)
            checkpoint.save(step + 1, loss=mean[0].item(), cells=mean[1].item(), seconds=time.time() - started)
    if accelerator.is_main_process:
        ema.half().save_pretrained(WEIGHTS / "unet")
        scheduler.save_pretrained(WEIGHTS / "scheduler")


if __name__ == "__main__":
    main()

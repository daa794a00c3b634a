"""Stage 1: AutoencoderTiny, 8x, 8 white latent channels; its decoder learns to forgive noise in them.

White latents (a covariance penalty) and a decoder that repairs noisy ones make the UNet's task easier: in a plain
autoencoder most of the variance lies in the background's brightness.
"""

import json
import time

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from common import WEIGHTS, Checkpoint, arguments, draw_scenes, learning_rate, stack
from diffusers import AutoencoderTiny

BATCH, CROP = 32, 64


def build() -> AutoencoderTiny:
    channels = (32, 32, 32, 32)
    vae = AutoencoderTiny(
        latent_channels=8,
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        num_encoder_blocks=(0, 1, 1, 2),
        num_decoder_blocks=(2, 1, 1, 0),
    )
    for module in vae.modules():
        if type(module).__name__ == "AutoencoderTinyBlock":
            with torch.no_grad():
                module.conv[-1].weight.mul_(0.1)
    return vae.to(memory_format=torch.channels_last)


def reconstruction_loss(decoded: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """MSE + 0.2 L1 + 0.1 L1 of the differences between neighbours; images in [-1, 1]."""
    error = decoded - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.square().mean() + 0.2 * error.abs().mean() + 0.1 * edges


def whiteness_loss(latents: torch.Tensor) -> torch.Tensor:
    """Squared distance of the channels' mean from 0 and of their covariance from the identity."""
    flat = latents.movedim(1, -1).flatten(0, -2)
    mean = flat.mean(0)
    covariance = (flat - mean).T @ (flat - mean) / len(flat)
    return mean.square().sum() + (covariance - torch.eye(len(mean), device=flat.device)).square().sum()


def crops(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """BATCH crops on the 8 px grid, (B, 3, CROP, CROP) in [-1, 1]."""
    chosen = torch.randint(len(images), (BATCH,), generator=generator)
    corners = torch.randint((128 - CROP) // 8 + 1, (BATCH, 2), generator=generator) * 8
    cut = [images[i, :, y : y + CROP, x : x + CROP] for i, (y, x) in zip(chosen, corners.tolist(), strict=True)]
    return torch.stack(cut).contiguous(memory_format=torch.channels_last).float() / 127.5 - 1


def main() -> None:
    options = arguments("vae", steps=3300, scenes=20_000, lr=2e-3)
    accelerator = Accelerator()
    vae = build()
    optimizer = torch.optim.AdamW(vae.parameters(), options.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    checkpoint = Checkpoint(options.checkpoint, {"vae": vae}, optimizer)
    first = checkpoint.load()
    encoder, decoder, optimizer = accelerator.prepare(vae.encoder, vae.decoder, optimizer)
    images = stack(draw_scenes(0, options.scenes))
    started = time.time()
    for step in range(first, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.lr)
        batch = crops(images, torch.Generator().manual_seed(step)).to(accelerator.device)
        latents = encoder(batch)
        level = 0.5 * torch.rand(len(batch), 1, 1, 1, device=batch.device)
        decoded = decoder(latents + level * torch.randn_like(latents))
        reconstruction, whiteness = reconstruction_loss(decoded, batch), whiteness_loss(latents)
        accelerator.backward(reconstruction + 0.01 * whiteness)
        accelerator.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0 or step + 1 == options.steps:
            with torch.no_grad():
                error = F.mse_loss(decoder(encoder(batch)), batch) / 4
            psnr = -10 * error.log10().item()
            figures = {"loss": reconstruction.item(), "white": whiteness.item(), "psnr": psnr}
            checkpoint.save(step + 1, **figures, seconds=time.time() - started)
    vae.save_pretrained(WEIGHTS / "vae")
    config = WEIGHTS / "vae" / "config.json"  # diffusers writes a key there that it warns of when it reads it
    kept = {key: value for key, value in json.loads(config.read_text()).items() if key != "block_out_channels"}
    config.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()

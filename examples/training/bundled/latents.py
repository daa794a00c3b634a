"""Stage 3: what the UNet reads, computed once: latents, text states and the class of every latent cell."""

import numpy as np
import torch
from accelerate import Accelerator
from common import WEIGHTS, arguments, draw_scenes, stack
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from t2i_tools.bundled.scenes import LABELS, Scene


def cells(scene: Scene) -> np.ndarray:
    """(H / 8, W / 8) uint8: 0 for background, else 1 + the class whose box holds the cell's centre."""
    height, width = scene.image.shape[:2]
    grid = np.zeros((height // 8, width // 8), dtype=np.uint8)
    for label, (left, top, right, bottom) in zip(scene.labels, scene.boxes, strict=True):
        rows = slice(*(int(np.ceil((edge - 4) / 8)) for edge in (top, bottom)))
        columns = slice(*(int(np.ceil((edge - 4) / 8)) for edge in (left, right)))
        grid[rows, columns] = 1 + LABELS.index(label)
    return grid


@torch.inference_mode()
def main() -> None:
    options = arguments("latents", steps=0, scenes=40_000, size=128, first=1_000_000, edition=1)
    device = Accelerator().device
    vae = AutoencoderTiny.from_pretrained(WEIGHTS / "vae").to(device, memory_format=torch.channels_last)
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(WEIGHTS / "clip", dtype=torch.float32).to(device)
    kinds = {} if options.size >= 96 else {"kind": "counts"}
    scenes = draw_scenes(
        options.first, options.scenes, size=(options.size, options.size), edition=options.edition, **kinds
    )
    latents = []
    for start in range(0, len(scenes), 64):
        part = stack(scenes[start : start + 64]).to(device).float() / 127.5 - 1
        latents.append(vae.encode(part).latents.half().cpu())
    texts = list(dict.fromkeys(["", *(s.caption for s in scenes)]))  # many scenes share a caption; the empty one is 0
    states = []
    for start in range(0, len(texts), 64):
        tokens = tokenizer(texts[start : start + 64], padding="max_length", truncation=True, return_tensors="pt")
        states.append(encoder(tokens.input_ids.to(device)).last_hidden_state.half().cpu())
    index = {text: i for i, text in enumerate(texts)}
    tensors = {
        "latents": torch.cat(latents).contiguous(),
        "states": torch.cat(states),
        "captions": torch.tensor([index[s.caption] for s in scenes]),
        "cells": torch.from_numpy(np.stack([cells(s) for s in scenes])),
    }
    save_file(tensors, options.work / f"latents-{options.size}.safetensors")
    flat = tensors["latents"].float().movedim(1, -1).flatten(0, -2)
    print("latents' mean", flat.mean(0).tolist(), "standard deviation", flat.std(0).tolist())


if __name__ == "__main__":
    main()

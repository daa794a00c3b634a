"""Tunes a CLIP on long captions as Long-CLIP does: positions stretched to 248, primary component matching.

    python examples/training/long_clip.py OUTPUT --lock-images --anchor 50 --steps 1000    the bundled CLIP and scenes
    python examples/training/long_clip.py OUTPUT --clip FOLDER --pictures FOLDER    any CLIPModel and its tokenizer

FOLDER of pictures holds captions.jsonl, one {"file": ..., "long": ..., "short": ...} a line; without "short" it is the
first sentence. OUTPUT is a CLIPModel with its tokenizer, ready for `long_prompts(pipe, "stretch", weights=OUTPUT)`.
A run that was stopped goes on from OUTPUT/state.safetensors; `accelerate launch` spreads it over devices.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from bundled.common import WEIGHTS, Checkpoint, learning_rate, stack
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from t2i_tools.bundled.scenes import long_caption, scene
from t2i_tools.longclip import stretch_clip
from t2i_tools.longclip.tuning import LOSSES, FrozenRows, Objective, first_sentence

Batch = tuple[torch.Tensor, list[str], list[str]]


def scenes(batch: int, rng: np.random.Generator) -> Batch:
    """Scenes of the train split: any, or every other time of ten objects or more, which tell one another apart."""
    full = rng.random() < 0.5
    kinds = [{"kind": "layouts", "count": int(rng.integers(10, 13))} if full else {} for _ in range(batch)]
    drawn = [scene(int(rng.integers(10**9, 2 * 10**9)), **kind) for kind in kinds]
    return stack(drawn).float() / 127.5 - 1, [long_caption(s) for s in drawn], [s.caption for s in drawn]


class Pictures:
    """A folder of pictures with captions.jsonl."""

    def __init__(self, folder: Path, processor: CLIPImageProcessor) -> None:
        self.folder, self.processor = folder, processor
        self.rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines() if line.strip()]

    def __call__(self, batch: int, rng: np.random.Generator) -> Batch:
        chosen = [self.rows[i] for i in rng.choice(len(self.rows), batch, replace=False)]
        pictures = [Image.open(self.folder / row["file"]).convert("RGB") for row in chosen]
        pixels = self.processor(pictures, return_tensors="pt").pixel_values
        short = [row.get("short") or first_sentence(row["long"]) for row in chosen]
        return pixels, [row["long"] for row in chosen], short


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--clip", type=Path, default=WEIGHTS / "clip")
    parser.add_argument("--tokenizer", type=Path, help="the CLIP's own folder by default")
    parser.add_argument("--pictures", type=Path, help="the bundled scenes by default")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64, help="more than 34, or there are no lesser components")
    parser.add_argument("--lr", type=float, default=5e-4, help="the paper's: 1e-6 at batch 2048, for OpenAI's weights")
    parser.add_argument("--loss", choices=LOSSES, default="pcm")
    parser.add_argument("--anchor", type=float, default=10.0, help="0 is the paper's")
    parser.add_argument(
        "--lock-images", action="store_true", help="train the text tower alone (Zhai et al., CVPR 2022)"
    )
    parser.add_argument("--half", action="store_true", help="write float16")
    parser.add_argument("--ratio", type=int, default=4, help="1: keep 77 positions")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    options.output.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator()
    clip = CLIPModel.from_pretrained(options.clip, dtype=torch.float32)
    before = CLIPModel.from_pretrained(options.clip, dtype=torch.float32).requires_grad_(False)
    bundled = options.clip == WEIGHTS / "clip"
    tokenizer = CLIPTokenizer.from_pretrained(options.tokenizer or (WEIGHTS / "tokenizer" if bundled else options.clip))
    if options.ratio > 1:
        stretch_clip(clip, tokenizer, ratio=options.ratio)
    for image_tower in (clip.vision_model, clip.visual_projection) if options.lock_images else ():
        image_tower.requires_grad_(False)
    draw = Pictures(options.pictures, CLIPImageProcessor.from_pretrained(options.clip)) if options.pictures else scenes
    frozen = FrozenRows(clip)
    optimizer = torch.optim.AdamW(clip.parameters(), options.lr, betas=(0.9, 0.98), weight_decay=0.01)
    checkpoint = Checkpoint(options.output / "state.safetensors", {"clip": clip}, optimizer)
    first = checkpoint.load()
    objective = Objective(clip, tokenizer, options.loss, anchor=options.anchor, before=before)
    objective, optimizer = accelerator.prepare(objective, optimizer)

    started = time.process_time()
    for step in range(first, options.steps):
        rng = np.random.default_rng([options.seed, step, accelerator.process_index])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.lr, warmup=min(100, options.steps // 10))
        pixels, long, short = draw(options.batch, rng)
        loss = objective(pixels.to(accelerator.device), long, short)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(clip.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        frozen.restore()
        if accelerator.is_main_process and ((step + 1) % 25 == 0 or step + 1 == options.steps):
            checkpoint.save(step + 1, loss=loss.item(), seconds=time.process_time() - started)
    if accelerator.is_main_process:
        (clip.half() if options.half else clip).save_pretrained(options.output)
        tokenizer.save_pretrained(options.output)


if __name__ == "__main__":
    main()

"""Stage 6: the judges, heatmap networks on scenes that the detector never saw, in places off its grid.

`--name judge_strong --seed 1 --strong 1` trains the second judge: other scenes, and pictures spoilt twice as much,
mirrored and resized. `--vae 0.3` shows three scenes in ten as the VAE rebuilds them.
"""

import time

import torch
from accelerate import Accelerator
from common import WEIGHTS, Checkpoint, arguments, learning_rate
from detection import Pictures, flip, load_pictures, resize, shift, spoil, tune

from t2i_tools.bundled.scenes import LABELS
from t2i_tools.detectors.heatmap import HeatmapCounter, HeatmapNet
from t2i_tools.detectors.heatmap_loss import build_targets, heatmap_loss

SIDES = (96, 112, 128, 144, 160)


def augment(pictures: Pictures, strong: bool, generator: torch.Generator) -> Pictures:
    """Moved off the grid and lightly spoilt; strongly: also mirrored, at one of SIDES, and spoilt twice as much."""
    pictures = shift(pictures, 8, generator)
    if strong:
        draw = torch.randint(2 * len(SIDES), (), generator=generator).item()
        pictures = resize(flip(pictures) if draw % 2 else pictures, SIDES[draw // 2])
    return Pictures(spoil(pictures.images, 2.0 if strong else 1.0, generator), pictures.boxes, pictures.labels)


def main() -> None:
    options = arguments(
        "judge",
        steps=6000,
        name="judge",
        seed=0,
        strong=0,
        scenes=20_000,
        first=3_000_000,
        batch=32,
        lr=1e-3,
        vae=0.0,
        output=WEIGHTS,
    )
    options.checkpoint = options.work / f"{options.name}.safetensors"
    options.first += 1_000_000 * options.seed
    torch.manual_seed(options.seed)
    accelerator = Accelerator()
    net = HeatmapNet(len(LABELS)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), options.lr, betas=(0.9, 0.99), weight_decay=0.01)
    checkpoint = Checkpoint(options.checkpoint, {"judge": net}, optimizer)
    first = checkpoint.load()
    model, optimizer = accelerator.prepare(net, optimizer)
    pictures = load_pictures(options)
    started = time.time()
    for step in range(first, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.lr)
        generator = torch.Generator().manual_seed(options.seed * 1_000_000 + step)
        batch = augment(pictures.draw(options.batch, generator), bool(options.strong), generator)
        images = batch.images.contiguous(memory_format=torch.channels_last).to(accelerator.device)
        targets = build_targets(batch.boxes, batch.labels, len(LABELS), images.shape[-2:])
        loss = heatmap_loss(model(images), type(targets)(*(t.to(accelerator.device) for t in targets)))
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0 or step + 1 == options.steps:
            checkpoint.save(step + 1, loss=loss.item(), seconds=time.time() - started)
    counter = HeatmapCounter(net.cpu(), LABELS)
    print(tune(counter, options.first))
    counter.save(options.output / options.name / "model.safetensors")


if __name__ == "__main__":
    main()

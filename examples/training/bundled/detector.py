"""Stage 5: the detector that counts are optimised against, ultralytics' yolo11n by its yaml's name in our own loop.

`--vae 0.3` shows three scenes in ten as the VAE rebuilds them. No `.pt` is written or read.
"""

import time
from types import SimpleNamespace

import torch
from accelerate import Accelerator
from common import WEIGHTS, Checkpoint, arguments, learning_rate
from detection import Pictures, load_pictures, shift, spoil, tune
from torchvision.ops import box_convert
from ultralytics.utils.loss import v8DetectionLoss

from t2i_tools.bundled.scenes import LABELS
from t2i_tools.detectors.yolo import YoloCounter, build_yolo

ARCHITECTURE = "yolo11n.yaml"
GAINS = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)  # ultralytics' own


def to_batch(pictures: Pictures) -> dict[str, torch.Tensor]:
    """What ultralytics' loss reads: boxes as x, y, width, height in shares of the side."""
    side = pictures.images.shape[-1]
    counts = torch.tensor([len(b) for b in pictures.boxes])
    return {
        "batch_idx": torch.repeat_interleave(counts),
        "cls": torch.cat(pictures.labels).float(),
        "bboxes": box_convert(torch.cat(pictures.boxes), "xyxy", "cxcywh") / side,
    }


def main() -> None:
    options = arguments(
        "detector",
        steps=5000,
        scenes=20_000,
        first=2_000_000,
        batch=32,
        lr=1e-3,
        vae=0.0,
        output=WEIGHTS / "detector",
    )
    torch.manual_seed(0)
    accelerator = Accelerator()
    net, _ = build_yolo(ARCHITECTURE, len(LABELS))
    net.to(memory_format=torch.channels_last).args = GAINS
    decay = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in net.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, options.lr, betas=(0.9, 0.99))
    checkpoint = Checkpoint(options.checkpoint, {"detector": net}, optimizer)
    first = checkpoint.load()
    model, optimizer = accelerator.prepare(net, optimizer)
    criterion = v8DetectionLoss(net)
    pictures = load_pictures(options)
    started = time.time()
    for step in range(first, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.lr)
        generator = torch.Generator().manual_seed(step)
        batch = shift(pictures.draw(options.batch, generator), 8, generator)
        images = spoil(batch.images, 1.0, generator).contiguous(memory_format=torch.channels_last)
        losses, parts = criterion(model(images.to(accelerator.device)), to_batch(batch))
        accelerator.backward(losses.sum() / options.batch)
        accelerator.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0 or step + 1 == options.steps:
            figures = {name: value.item() for name, value in parts.items()}
            checkpoint.save(step + 1, **figures, seconds=time.time() - started)
    counter = YoloCounter(net.cpu(), LABELS, architecture=ARCHITECTURE)
    print(tune(counter, options.first))
    counter.save(options.output / "model.safetensors")


if __name__ == "__main__":
    main()

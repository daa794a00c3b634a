"""What the detector's and the judges' trainings share: pictures with boxes, ways to spoil them, the threshold."""

from argparse import Namespace
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from common import WEIGHTS, draw_scenes, stack
from diffusers import AutoencoderTiny
from torchvision.transforms.functional import gaussian_blur

from t2i_tools.bundled.scenes import LABELS, Scene
from t2i_tools.detectors import Counter


@dataclass(frozen=True)
class Pictures:
    """images: (n, 3, H, W), uint8, or float in [0, 1]. Per picture, boxes: (k, 4) xyxy in pixels; labels: (k,)."""

    images: torch.Tensor
    boxes: list[torch.Tensor]
    labels: list[torch.Tensor]

    def draw(self, size: int, generator: torch.Generator) -> "Pictures":
        """`size` of them at random, as floats."""
        chosen = torch.randint(len(self.images), (size,), generator=generator)
        rows = chosen.tolist()
        images = self.images[chosen].float() / 255
        return Pictures(images, [self.boxes[i] for i in rows], [self.labels[i] for i in rows])


def load_pictures(options: Namespace) -> Pictures:
    """`options.scenes` scenes from number `options.first` on, the share `options.vae` of them rebuilt by the VAE."""
    scenes = draw_scenes(options.first, options.scenes)
    images = stack(scenes)
    count = round(options.vae * len(scenes))
    if count:
        images[:count] = rebuild(images[:count], torch.Generator().manual_seed(options.first))
    boxes = [torch.from_numpy(s.boxes) for s in scenes]
    return Pictures(images, boxes, [class_indices(s) for s in scenes])


def class_indices(scene: Scene) -> torch.Tensor:
    """(k,) integers."""
    return torch.tensor([LABELS.index(name) for name in scene.labels])


@torch.inference_mode()
def rebuild(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """uint8 pictures through the bundled VAE, their latents a little noisy, as a UNet's are."""
    vae = AutoencoderTiny.from_pretrained(WEIGHTS / "vae", dtype=torch.float32)
    rebuilt = []
    for part in images.split(64):
        latents = vae.encode(part.float() / 127.5 - 1).latents
        level = 0.3 * torch.rand(len(part), 1, 1, 1, generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        rebuilt.append(vae.decode(latents + level * noise).sample.add(1).mul(127.5).round().clamp(0, 255).byte())
    return torch.cat(rebuilt)


def shift(pictures: Pictures, most: int, generator: torch.Generator) -> Pictures:
    """Each picture moved by up to `most` px in x and y, its border repeated; boxes are cut at the edges."""
    height, width = pictures.images.shape[-2:]
    wide = F.pad(pictures.images, (most,) * 4, mode="replicate")
    moves = torch.randint(-most, most + 1, (len(wide), 2), generator=generator)
    images = torch.stack(
        [
            image[:, most - y : most - y + height, most - x : most - x + width]
            for image, (x, y) in zip(wide, moves.tolist(), strict=True)
        ]
    )
    edge = torch.tensor([width, height, width, height])
    moved = [(b + m.repeat(2)).clamp(min=0).minimum(edge) for b, m in zip(pictures.boxes, moves, strict=True)]
    return replace(pictures, images=images, boxes=moved)


def flip(pictures: Pictures) -> Pictures:
    """Left to right, the whole batch."""
    width = pictures.images.shape[-1]
    mirror = torch.tensor([width, 0, width, 0])
    boxes = [mirror + b[:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1]) for b in pictures.boxes]
    return replace(pictures, images=pictures.images.flip(-1), boxes=boxes)


def resize(pictures: Pictures, side: int) -> Pictures:
    """The whole batch at side x side px."""
    scale = side / pictures.images.shape[-1]
    images = F.interpolate(pictures.images, size=(side, side), mode="bilinear", antialias=True)
    return replace(pictures, images=images, boxes=[b * scale for b in pictures.boxes])


def spoil(images: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Contrast, brightness and tint of each picture changed, half of them blurred, all a little noisy; in [0, 1]."""

    def uniform(*shape: int) -> torch.Tensor:
        return strength * (2 * torch.rand(shape, generator=generator) - 1)

    count = len(images)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * (1 + 0.2 * uniform(count, 1, 1, 1)) + mean
    images = images + 0.06 * uniform(count, 1, 1, 1) + 0.04 * uniform(count, 3, 1, 1)
    blurred = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    sigma = 0.3 + 0.5 * strength * torch.rand((), generator=generator).item()
    images = torch.where(blurred, gaussian_blur(images, 5, sigma), images)
    noise = 0.03 * uniform(count, 1, 1, 1) * torch.randn(images.shape, generator=generator)
    return (images + noise).clamp(0, 1)


def tune(counter: Counter, first: int, count: int = 500) -> dict[str, float]:
    """Sets the counter's threshold to the one that counts most of `count` scenes of the dev split exactly."""
    scenes = draw_scenes(first, count, split="dev")
    counter.threshold = 0.1
    found = [one for part in stack(scenes).split(50) for one in counter.detect(part.float() / 255)]
    exact = {
        t / 100: sum(int((d.scores > t / 100).sum()) == len(s.labels) for d, s in zip(found, scenes, strict=True))
        / count
        for t in range(10, 80, 5)
    }
    best = [t for t, share in exact.items() if share == max(exact.values())]
    counter.threshold = best[len(best) // 2]
    return {"threshold": counter.threshold, "exact": exact[counter.threshold]}

"""Does the judge count as a person does? 120 images, ten of each count asked for, counted by eye blind to both.

`python eye.py sheets FOLDER` draws the images in shuffled order, numbered, twelve a sheet. Write the objects you see,
of any kind, to eye_counts.json as {"unet": fingerprint, "counts": [...]}; `python eye.py compare` then adds the
agreement to the card.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from card import FIGURES, write_card
from common import WEIGHTS
from evaluate import generate, share
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file
from torchmetrics.functional import cohen_kappa

from t2i_tools.bundled import load_bundled_judge
from t2i_tools.bundled.scenes import LABELS, count_phrase

COUNTS = Path(__file__).with_name("eye_counts.json")
SIDE = 224


def fingerprint() -> float:
    """Ties the list of counts to the UNet whose images were counted."""
    tensors = load_file(WEIGHTS / "unet" / "diffusion_pytorch_model.safetensors")
    return round(sum(value.double().abs().sum().item() for value in tensors.values()), 3)


def draw() -> torch.Tensor:
    """The 120 images in the order in which they are shown, (120, 3, 128, 128)."""
    order = np.random.default_rng(120).permutation(120)
    prompts = [f"a picture of {count_phrase(LABELS[i % 12], 1 + i // 10)}" for i in range(120)]
    return generate(prompts, first_seed=700_000)[torch.from_numpy(order)]


def sheets(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    images, font = draw(), ImageFont.load_default(18)
    for start in range(0, 120, 12):
        sheet = Image.new("RGB", (4 * (SIDE + 8), 3 * (SIDE + 30)), "white")
        for k, image in enumerate(images[start : start + 12]):
            pixels = image.mul(255).round().byte().permute(1, 2, 0).numpy()
            corner = (k % 4 * (SIDE + 8), k // 4 * (SIDE + 30))
            sheet.paste(Image.fromarray(pixels).resize((SIDE, SIDE)), (corner[0], corner[1] + 22))
            ImageDraw.Draw(sheet).text(corner, str(start + k), fill="black", font=font)
        sheet.save(folder / f"sheet-{start:03d}.png")


def compare() -> dict:
    """Cohen's kappa of judge and eye, the share within one, and the confusion (eye's count -> judge's counts)."""
    noted = json.loads(COUNTS.read_text())
    if noted["unet"] != fingerprint():
        raise SystemExit("eye_counts.json was counted on images of another UNet: draw the sheets and count again")
    eye = torch.tensor(noted["counts"])
    judged = torch.tensor([d.count for d in load_bundled_judge().detect(draw())])
    most = int(max(eye.max(), judged.max())) + 1
    return {
        "within one": share(((eye - judged).abs() <= 1).tolist()),
        "equal": share((eye == judged).tolist()),
        "kappa": cohen_kappa(judged, eye, task="multiclass", num_classes=most).item(),
        "confusion": {str(k): sorted(judged[eye == k].tolist()) for k in eye.unique().tolist()},
    }


if __name__ == "__main__":
    if sys.argv[1] == "sheets":
        sheets(Path(sys.argv[2]))
        print("fingerprint", fingerprint())
    else:
        figures = json.loads(FIGURES.read_text())
        figures["eye"] = compare()
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
        write_card(figures)
        print(figures["eye"])

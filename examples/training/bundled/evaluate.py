"""Measures the bundled model on the test split; `card.py` writes the table of its model card.

`python examples/training/bundled/evaluate.py [STAGE ...]`: stages are vae, clip, detectors, counts, newcomer, layouts,
few_steps, speed, all by default. Every stage's figures are kept in figures.json beside the card, so that one can be
measured again alone. A candidate's UNet is measured by `candidate.py` instead, on other seeds, and written nowhere.
"""

import json
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from card import FIGURES, write_card
from common import draw_scenes, stack
from diffusers import StableDiffusionPipeline
from torchmetrics.detection import MeanAveragePrecision
from transformers import CLIPModel, CLIPTokenizer

from t2i_tools.bundled import (
    WEIGHTS,
    bundled_defaults,
    load_bundled,
    load_bundled_counter,
    load_bundled_judge,
)
from t2i_tools.bundled.scenes import COLOURS, LABELS, Scene, count_phrase, place_of, plural
from t2i_tools.images.number_words import number_word
from t2i_tools.metrics import cluster_bootstrap, wilson

BATCH = 25
WORDINGS = (  # what a newcomer tries
    "{word} {objects}",
    "{digit} {objects}",
    "{Word} {objects}, {colour} background.",
    "{a_colour} background with {word} {objects}",
    "a photo of {word} {objects}",
    "A photo of {word} {objects} on {a_colour} background.",
)


class Form(NamedTuple):
    """A pipeline, and the steps and guidance scale that its images are made with."""

    pipe: StableDiffusionPipeline
    steps: int
    guidance: float


def shipped(few_steps: bool = False) -> Form:
    """The bundled model, or its four-step form, with the settings it is made for."""
    return Form(load_bundled(few_steps=few_steps), *bundled_defaults(few_steps=few_steps))


def share(hits: list[bool]) -> dict:
    """A proportion with its 95 % Wilson interval."""
    interval = wilson(sum(hits), len(hits))
    return {"value": interval.estimate, "low": interval.low, "high": interval.high, "n": interval.n}


def pixels(scenes: list[Scene]) -> torch.Tensor:
    """(n, 3, H, W) in [0, 1]."""
    return stack(scenes).float() / 255


@torch.inference_mode()
def measure_vae(n: int = 500) -> dict:
    """PSNR of reconstructions, and the detector's exact counts on them against the originals."""
    vae, counter = load_bundled().vae, load_bundled_counter()
    scenes = draw_scenes(0, n, split="test")
    images = pixels(scenes)
    rebuilt = torch.cat([vae(part * 2 - 1).sample / 2 + 0.5 for part in images.split(50)]).clamp(0, 1)
    psnr = -10 * (rebuilt - images).square().mean(dim=(1, 2, 3)).log10()
    exact = {
        name: share([found.count == len(s.labels) for found, s in zip(counter.detect(batch), scenes, strict=True)])
        for name, batch in (("originals", images), ("reconstructions", rebuilt))
    }
    return {"psnr": {"value": psnr.mean().item(), "sem": (psnr.std() / n**0.5).item(), "n": n}, "exact": exact}


@torch.inference_mode()
def measure_clip(batches: int = 20) -> dict:
    """Image-to-text R@1 in batches of 100 distinct captions, for the pipeline's CLIP and the evaluation's."""
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    scenes = list({s.caption: s for s in draw_scenes(10_000, 150 * batches, split="test")}.values())
    figures = {}
    for name in ("clip", "clip_score"):
        clip = CLIPModel.from_pretrained(WEIGHTS / name, dtype=torch.float32).eval()
        hits = []
        for start in range(0, 100 * batches, 100):
            part = scenes[start : start + 100]
            tokens = tokenizer([s.caption for s in part], padding=True, truncation=True, return_tensors="pt")
            logits = clip(pixel_values=pixels(part) * 2 - 1, **tokens).logits_per_image
            hits += (logits.argmax(1) == torch.arange(100)).tolist()
        figures[name] = share(hits)
    return figures


@torch.inference_mode()
def measure_detectors(n: int = 1000) -> dict:
    """Exact count and right classes on unseen scenes, and mAP at IoU 0.5."""
    scenes = draw_scenes(20_000, n, split="test")
    images = pixels(scenes)
    truth = [
        {"boxes": torch.from_numpy(s.boxes), "labels": torch.tensor([LABELS.index(name) for name in s.labels])}
        for s in scenes
    ]
    counters = {
        "detector": load_bundled_counter(),
        "judge": load_bundled_judge(),
        "second judge": load_bundled_judge(second=True),
    }
    figures = {}
    for name, counter in counters.items():
        found = [d for part in images.split(50) for d in counter.detect(part)]
        metric = MeanAveragePrecision(iou_thresholds=[0.5])
        predicted = [
            {"boxes": d.boxes, "scores": d.scores, "labels": torch.tensor([LABELS.index(x) for x in d.labels]).long()}
            for d in found
        ]
        metric.update(predicted, truth)
        figures[name] = {
            "exact": share([d.count == len(s.labels) for d, s in zip(found, scenes, strict=True)]),
            "classes": share([set(d.labels) == set(s.labels) for d, s in zip(found, scenes, strict=True)]),
            "map50": {"value": metric.compute()["map_50"].item(), "n": n},
        }
    return figures


def generate(prompts: list[str], first_seed: int, form: Form | None = None) -> torch.Tensor:
    """One image a prompt, (n, 3, 128, 128) in [0, 1]; seeds count up from `first_seed`. form: the shipped model's."""
    pipe, steps, guidance = form or shipped()
    pipe.set_progress_bar_config(disable=True)
    images = []
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        generators = [torch.Generator().manual_seed(first_seed + start + i) for i in range(len(part))]
        settings = {"num_inference_steps": steps, "guidance_scale": guidance, "output_type": "pt"}
        images.append(pipe(part, generator=generators, **settings).images)
        print(f"{start + len(part)} of {len(prompts)} images", flush=True)
    return torch.cat(images)


def nearest_colour(image: torch.Tensor, boxes: torch.Tensor) -> str:
    """The named background nearest to the median colour outside the boxes; image (3, H, W) in [0, 1]."""
    outside = torch.ones(image.shape[1:], dtype=torch.bool)
    for left, top, right, bottom in boxes.round().int().tolist():
        outside[max(top, 0) : bottom, max(left, 0) : right] = False
    median = image[:, outside].median(dim=1).values.numpy() * 255
    return min(COLOURS, key=lambda name: np.square(median - COLOURS[name]).sum())


def measure_counts(n: int = 600, first_seed: int = 500_000) -> dict:
    """One-class prompts, every count from 1 to 12 equally often; all that is said is what the judge sees."""
    judge, rng = load_bundled_judge(), np.random.default_rng([2, 600])
    counts, labels = [1 + i % 12 for i in range(n)], [LABELS[i // 12 % len(LABELS)] for i in range(n)]
    colours = [str(rng.choice(list(COLOURS))) if rng.random() < 0.6 else None for _ in range(n)]
    prompts = [
        f"a picture of {count_phrase(label, k)}" + (f" with a {colour} background" if colour else "")
        for label, k, colour in zip(labels, counts, colours, strict=True)
    ]
    images = generate(prompts, first_seed)
    found = [d for part in images.split(50) for d in judge.detect(part)]
    exact = [d.of(label).count == d.count == k for d, label, k in zip(found, labels, counts, strict=True)]
    return {
        "class": share([d.of(label).count * 2 > d.count for d, label in zip(found, labels, strict=True)]),
        "exact 1-3": share([hit for hit, k in zip(exact, counts, strict=True) if k <= 3]),
        "exact": {str(k): share([hit for hit, m in zip(exact, counts, strict=True) if m == k]) for k in range(1, 13)},
        "colour": share(
            [
                nearest_colour(image, d.boxes) == colour
                for image, d, colour in zip(images, found, colours, strict=True)
                if colour
            ]
        ),
    }


class Wish(NamedTuple):
    """A newcomer's prompt and what it asks for. one: it says "one". colour: of the background, where it names it."""

    prompt: str
    label: str
    count: int
    one: bool
    colour: str | None


def newcomer_wishes(n: int, seed: int = 0) -> list[Wish]:
    """n prompts for one to three objects; in 216 each wording asks once for each number of each object."""
    rng, wishes = np.random.default_rng([2, 432, seed]), []
    for i in range(n):
        wording, count, label = WORDINGS[i % 6], 1 + i // 6 % 3, LABELS[i // 18 % len(LABELS)]
        colour, word = str(rng.choice(list(COLOURS))), number_word(count)
        a_colour = f"{'an' if colour[0] in 'aeiou' else 'a'} {colour}"
        fields = {"word": word, "Word": word.capitalize(), "digit": count, "colour": colour, "a_colour": a_colour}
        prompt = wording.format(objects=label if count == 1 else plural(label), **fields)
        wishes.append(Wish(prompt, label, count, "one " in prompt.lower(), colour if "colour" in wording else None))
    return wishes


def measure_newcomer(n: int = 432, first_seed: int = 900_000, form: Form | None = None) -> dict:
    """The wordings that a newcomer tries, for one to three objects, as the judge sees them."""
    figures = newcomer(n, first_seed, form)
    del figures["hits"]
    return figures


def newcomer(n: int, first_seed: int, form: Form | None = None) -> dict:
    """The same with what became of each prompt, under "hits"."""
    judge, wishes = load_bundled_judge(), newcomer_wishes(n, first_seed)
    images = generate([wish.prompt for wish in wishes], first_seed, form)
    found = [d for part in images.split(50) for d in judge.detect(part)]
    exact = [d.of(w.label).count == d.count == w.count for d, w in zip(found, wishes, strict=True)]
    colours = [
        nearest_colour(image, d.boxes) == w.colour
        for image, d, w in zip(images, found, wishes, strict=True)
        if w.colour
    ]
    return {
        "class": share([d.of(w.label).count * 2 > d.count for d, w in zip(found, wishes, strict=True)]),
        "exact 1-3": share(exact),
        "exact": {
            str(k): share([hit for hit, w in zip(exact, wishes, strict=True) if w.count == k]) for k in (1, 2, 3)
        },
        "one": share([hit for hit, w in zip(exact, wishes, strict=True) if w.one]),
        "colour": share(colours),
        "hits": exact,
    }


def measure_layouts(n: int = 200, first_seed: int = 600_000, form: Form | None = None, split: str = "test") -> dict:
    """Prompts that name the places of 3 to 6 objects: recall of the right class at the right place."""
    judge, tokenizer = load_bundled_judge(), CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    scenes = [
        s
        for count in range(3, 7)
        for s in draw_scenes(30_000 + 1000 * count, n // 4, split=split, kind="layouts", count=count)
    ]
    assert all(len(tokenizer(s.caption).input_ids) <= 77 for s in scenes), "a prompt is cut"
    images = generate([s.caption for s in scenes], first_seed, form)
    found = [d for part in images.split(50) for d in judge.detect(part)]
    hits = []
    for s, d in zip(scenes, found, strict=True):
        seen = {(label, place_of(box, (128, 128))) for label, box in zip(d.labels, d.boxes.numpy(), strict=True)}
        hits += [(label, place_of(box, (128, 128))) in seen for label, box in zip(s.labels, s.boxes, strict=True)]
    return {"recall": share(hits), "prompts": len(scenes)}


def spread(form: Form, prompts: int = 20, seeds: int = 6, *, first_seed: int) -> np.ndarray:
    """How far a prompt's images lie apart over seeds, (prompts,): root mean square of the pixels, mean over pairs."""
    wishes = newcomer_wishes(prompts, first_seed)
    images = generate([wish.prompt for wish in wishes for _ in range(seeds)], first_seed, form)
    flat = images.flatten(1).view(prompts, seeds, -1)
    apart = torch.cdist(flat, flat) / flat.shape[-1] ** 0.5
    return (apart.sum((1, 2)) / (seeds * (seeds - 1))).numpy()


def pair_seconds(forms: tuple[Form, Form], pairs: int = 10) -> list[float]:
    """Seconds of the first form's image over those of the second one's, alternating."""
    ratios = []
    for seed in range(pairs + 1):
        seconds = []
        for pipe, steps, guidance in forms:
            started, generator = time.perf_counter(), torch.Generator().manual_seed(seed)
            pipe("seven apples", num_inference_steps=steps, guidance_scale=guidance, generator=generator)
            seconds.append(time.perf_counter() - started)
        ratios.append(seconds[0] / seconds[1])
    return ratios[1:]  # the first pair warms up


def measure_few_steps(n: int = 432, first_seed: int = 955_000, layouts: int = 200) -> dict:
    """The four-step form, the model at four steps without it, and the model as it is used, on the same fresh seeds."""
    whole, few = shipped(), shipped(few_steps=True)
    forms = {"four-step form": few, "model at 4 steps": whole._replace(steps=few.steps), "model": whole}
    figures: dict[str, Any] = {name: newcomer(n, first_seed, form) for name, form in forms.items()}
    hits = {name: np.array(figure.pop("hits"), float) for name, figure in figures.items()}
    for name in ("four-step form", "model"):
        figures[name]["layouts"] = measure_layouts(layouts, first_seed + 20_000, forms[name])["recall"]
    for name in ("model at 4 steps", "model"):
        gain = cluster_bootstrap(hits["four-step form"] - hits[name], np.arange(n))
        figures[f"gain over {name}"] = {"value": gain.estimate, "low": gain.low, "high": gain.high, "n": n}
    ratios = spread(few, first_seed=first_seed + 10_000) / spread(whole, first_seed=first_seed + 10_000)
    apart = cluster_bootstrap(ratios, np.arange(len(ratios)))
    figures["spread"] = {"value": apart.estimate, "low": apart.low, "high": apart.high, "n": len(ratios)}
    figures["seconds"] = {"value": float(np.median(seconds := pair_seconds((few, whole)))), "n": len(seconds)}
    return figures


def measure_speed(repeats: int = 5) -> dict:
    """Median seconds: sampling in this process, 20 steps with guidance; and all of `t2i generate` from the shell."""
    pipe = load_bundled()
    pipe.set_progress_bar_config(disable=True)
    sampling, shell = [], []
    for seed in range(repeats + 1):
        started = time.perf_counter()
        pipe("seven apples", num_inference_steps=20, guidance_scale=3.0, generator=torch.Generator().manual_seed(seed))
        sampling.append(time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(repeats):
            started = time.perf_counter()
            words = ["generate", "seven apples", "--seed", str(seed), "--output", f"{folder}/{seed}.png", "--quiet"]
            subprocess.run([sys.executable, "-m", "t2i_tools", *words], check=True)
            shell.append(time.perf_counter() - started)
    figures = {"sampling": sampling[1:], "shell": shell}  # the first call warms up
    return {name: {"value": float(np.median(times)), "n": repeats} for name, times in figures.items()}


STAGES = {
    "vae": measure_vae,
    "clip": measure_clip,
    "detectors": measure_detectors,
    "counts": measure_counts,
    "newcomer": measure_newcomer,
    "layouts": measure_layouts,
    "few_steps": measure_few_steps,
    "speed": measure_speed,
}


if __name__ == "__main__":
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for stage in sys.argv[1:] or STAGES:
        figures[stage] = STAGES[stage]()
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
        print(stage, json.dumps(figures[stage]))
    write_card(figures)

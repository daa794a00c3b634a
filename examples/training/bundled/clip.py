"""Stage 2: the two CLIP models, contrastive, each image against its own hard negative too.

`--name clip` becomes the pipeline's frozen text encoder. The contrast shapes one vector a caption, while a denoiser
reads the states of all tokens: `--read 1` adds a small reader that must tell from them what stands where and how often
(as SigLIP 2, arXiv 2502.14786, decodes locations beside its contrast) and is thrown away afterwards. Which object a
place belongs to is found late and all at once, hence the first `--texts` steps are the reader's alone, without images.
`--name clip_score --seed 1 --width 160` is the evaluation's: it never conditions, steers or sits in a loss.
`--init FOLDER` goes on from what is there.
"""

import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from common import WEIGHTS, Checkpoint, arguments, draw_scenes, learning_rate, stack
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from t2i_tools.bundled.scenes import COLOURS, COLUMNS, LABELS, MAX_COUNT, ROWS, WIDE_COLUMNS, Scene, caption, phrase

PLACES = tuple(dict.fromkeys(phrase((row, column)) for row in ROWS for column in (*COLUMNS, *WIDE_COLUMNS)))
UNKNOWN = -100  # what cross_entropy leaves out


def build(width: int, tokenizer: CLIPTokenizer) -> CLIPModel:
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 4, "num_attention_heads": 4}
    vision = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={**text, "vocab_size": len(tokenizer), "max_position_embeddings": 77, "projection_dim": 128, **ids},
        vision_config={**vision, "image_size": 128, "patch_size": 16, "projection_dim": 128},
        projection_dim=128,
        **ids,
    )
    return CLIPModel(config)


def counterfeit(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same scene with one untruth: another count, another class, another background, or two places swapped."""
    labels = list(scene.labels)
    others = [name for name in LABELS if name not in labels] or list(LABELS)
    what = (
        rng.choice(["count", "count", "label", "colour"]) if scene.kind != "layouts" else rng.choice(["swap", "label"])
    )
    if what == "colour":
        return replace(scene, colour=str(rng.choice([name for name in COLOURS if name != scene.colour])))
    if what == "count":
        wrong = max(1, min(12, labels.count(labels[0]) + int(rng.choice([-2, -1, 1, 2]))))
        return replace(scene, labels=tuple([labels[0]] * wrong + [name for name in labels if name != labels[0]]))
    if what == "swap" and len(set(labels)) > 1:
        return replace(scene, labels=tuple(labels[1:] + labels[:1]))
    wrong = labels[rng.integers(len(labels))] if scene.kind != "layouts" else None
    index = int(rng.integers(len(labels)))
    return replace(
        scene,
        labels=tuple(
            str(rng.choice(others)) if (name == wrong if wrong else i == index) else name
            for i, name in enumerate(labels)
        ),
    )


def contrastive_loss(images, texts, negatives, same, scale):
    """Symmetric InfoNCE; `negatives` are more columns for the images, `same` masks texts equal to another's."""
    logits = scale * images @ torch.cat([texts, negatives]).T
    logits = logits.masked_fill(same, -1e4)
    target = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, : len(texts)].T, target)) / 2


class Reader(nn.Module):
    """One cross-attention, as each of a denoiser's: a question for every place (which class), class (how many) and the
    background (which colour). states (B, tokens, width), padding (B, tokens) true where nothing is to be read
    -> logits (B, questions, answers), answer 0 is "none"."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.questions = nn.Parameter(torch.randn(len(PLACES) + len(LABELS) + 1, width) / 2)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.answer = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 1 + MAX_COUNT))

    def forward(self, states: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        questions = self.questions.expand(len(states), -1, -1)
        found, _ = self.attention(questions, states, states, key_padding_mask=padding, need_weights=False)
        return self.answer(questions + found)


def answers(scene: Scene, text: str) -> list[int]:
    """What the reader should find in a scene's caption; UNKNOWN where the caption does not say."""
    places, counts = [UNKNOWN] * len(PLACES), [scene.labels.count(label) for label in LABELS]
    if scene.kind == "layouts":
        named = dict(zip(scene.places, scene.labels, strict=True))
        places = [1 + LABELS.index(named[place]) if place in named else 0 for place in PLACES]
    if {"some", "many"} & set(text.split()):
        counts = [UNKNOWN if count else 0 for count in counts]
    colour = 1 + list(COLOURS).index(scene.colour) if f"{scene.colour} background" in text else 0
    return [*places, *counts, colour]


def relabelled(scene: Scene, rng: np.random.Generator) -> Scene:
    """Other objects at the same places, told but not drawn."""
    return replace(scene, labels=tuple(str(name) for name in rng.choice(LABELS, len(scene.labels))))


class Pool:
    """The scenes that steps draw from. kinds: indices of those without layouts, and with."""

    def __init__(self, scenes: list[Scene]) -> None:
        self.scenes, self.images = scenes, stack(scenes)
        self.kinds = [[i for i, s in enumerate(scenes) if (s.kind == "layouts") == layout] for layout in (False, True)]
        self.short = [i for i in self.kinds[1] if len(scenes[i].labels) <= 6]

    def placed(self, rng: np.random.Generator) -> list[Scene]:
        """Scenes without images, for the reader: places are the slowest to learn, and texts are cheap."""
        return [relabelled(self.scenes[i], rng) for i in rng.choice(self.short, 64)]

    def pairs(self, batch: int, rng: np.random.Generator) -> tuple[list[Scene], torch.Tensor]:
        """n scenes followed by their n counterfeits, and the images (n, 3, H, W) uint8 of the true ones."""
        layouts = int(rng.random() < 0.25)
        size = batch // (1 + layouts)  # their captions are four times as long
        chosen = rng.choice(self.kinds[layouts], size, replace=False)
        told = [self.scenes[i] for i in chosen] + [counterfeit(self.scenes[i], rng) for i in chosen]
        return told, self.images[chosen]


class Captions:
    """One caption a scene, as CLIP reads it: texts, mask (B, tokens), the states and the pooled vectors of `output`."""

    def __init__(
        self, clip: CLIPModel, tokenizer: CLIPTokenizer, scenes: list[Scene], rng: np.random.Generator
    ) -> None:
        self.scenes, self.texts = scenes, [caption(scene, rng) for scene in scenes]
        tokens = tokenizer(self.texts, padding=True, truncation=True, return_tensors="pt").to(clip.device)
        self.mask, self.longest = tokens.attention_mask, tokenizer.model_max_length
        self.output = clip.get_text_features(**tokens)


def reading_loss(reader: Reader, captions: Captions) -> torch.Tensor:
    """What the reader does not find in the states of all tokens."""
    expected = [answers(scene, text) for scene, text in zip(captions.scenes, captions.texts, strict=True)]
    expected = torch.tensor(expected)
    expected[captions.mask.cpu().sum(1) == captions.longest] = UNKNOWN  # may be cut
    logits = reader(captions.output.last_hidden_state, captions.mask == 0)
    return F.cross_entropy(logits.transpose(1, 2), expected.to(logits.device))


def pair_loss(clip: CLIPModel, captions: Captions, images: torch.Tensor) -> torch.Tensor:
    """The contrast of n images with n captions, after which come the n counterfeits'."""
    n = len(images)
    pixels = (images.to(clip.device).float() / 127.5) - 1
    seen = F.normalize(clip.get_image_features(pixels).pooler_output, dim=-1)
    read = F.normalize(captions.output.pooler_output, dim=-1)
    same = [[i != j and a == b for j, b in enumerate(captions.texts)] for i, a in enumerate(captions.texts[:n])]
    scale = clip.logit_scale.exp().clamp(max=100)
    return contrastive_loss(seen, read[:n], read[n:], torch.tensor(same, device=read.device), scale)


def step_losses(
    student: nn.ModuleDict, tokenizer: CLIPTokenizer, pool: Pool, options: Namespace, step: int
) -> dict[str, torch.Tensor]:
    """All of one step, which draws by its own number."""
    clip, reader = student["clip"], student["reader"]
    rng, losses = np.random.default_rng([options.seed, step]), {}
    if options.read:
        losses["places"] = options.read * reading_loss(reader, Captions(clip, tokenizer, pool.placed(rng), rng))
    if step >= options.texts:
        told, images = pool.pairs(options.batch, rng)
        captions = Captions(clip, tokenizer, told, rng)
        losses["contrast"] = pair_loss(clip, captions, images)
        if options.read:
            losses["reading"] = options.read * reading_loss(reader, captions)
    return losses


def parameter_groups(clip: CLIPModel, reader: Reader) -> list[dict]:
    """For the optimiser. faster: of the learning rate."""
    return [
        {"params": [p for p in clip.parameters() if p.ndim > 1], "weight_decay": 0.02, "faster": 1.0},
        {"params": [p for p in clip.parameters() if p.ndim <= 1], "weight_decay": 0.0, "faster": 1.0},
        {"params": list(reader.parameters()), "weight_decay": 0.0, "faster": 4.0},
    ]


def save(clip: CLIPModel, folder: Path) -> None:
    """In half precision, with how pictures are prepared."""
    clip.half().save_pretrained(folder)
    half_range = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    CLIPImageProcessor(size={"shortest_edge": 128}, crop_size=128, **half_range).save_pretrained(folder)


def main() -> None:
    options = arguments(
        "clip", steps=1000, name="clip", seed=0, width=128, scenes=30_000, batch=96, lr=1e-3, read=0.0, texts=0, init=""
    )
    options.checkpoint = options.work / f"{options.name}.safetensors"
    torch.manual_seed(options.seed)
    accelerator = Accelerator()
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    there = options.init and CLIPModel.from_pretrained(options.init, dtype=torch.float32)
    student = nn.ModuleDict({"clip": there or build(options.width, tokenizer), "reader": Reader(options.width)})
    optimizer = torch.optim.AdamW(parameter_groups(**student), lr=options.lr, betas=(0.9, 0.98))
    checkpoint = Checkpoint(options.checkpoint, dict(student.items()), optimizer)
    first = checkpoint.load()
    student, optimizer = accelerator.prepare(student, optimizer)
    pool = Pool(draw_scenes(100_000 * (options.seed + 1), options.scenes))
    started = time.time()
    for step in range(first, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["faster"] * learning_rate(step, options.steps, options.lr)
        losses = step_losses(student, tokenizer, pool, options, step)
        accelerator.backward(sum(losses.values()))
        accelerator.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0 or step + 1 == options.steps:
            figures = {name: loss.item() for name, loss in losses.items()}
            checkpoint.save(step + 1, **figures, seconds=time.time() - started)
    save(accelerator.unwrap_model(student["clip"]), WEIGHTS / options.name)


if __name__ == "__main__":
    main()

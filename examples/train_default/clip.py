"""Stage 2: the two CLIP models, contrastive, each image against its own hard negative too.

`--name clip` becomes the pipeline's frozen text encoder. The contrast shapes one vector a caption, while a denoiser
reads the states of all tokens: `--read 1` adds a small reader that must tell from them what stands where and how often
(as SigLIP 2, arXiv 2502.14786, decodes locations beside its contrast) and is thrown away afterwards. Which object a
place belongs to is found late and all at once, hence the first `--texts` steps are the reader's alone, without images.
`--name clip_score --seed 1 --width 160` is the evaluation's: it never conditions, steers or sits in a loss.
`--init FOLDER` goes on from what is there.
"""

import time
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from common import WEIGHTS, Checkpoint, arguments, draw_scenes, learning_rate, stack
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from t2i_tools.default.scenes import COLOURS, COLUMNS, LABELS, MAX_COUNT, ROWS, WIDE_COLUMNS, Scene, caption, phrase

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


def main() -> None:
    options = arguments(
        "clip", steps=1000, name="clip", seed=0, width=128, scenes=30_000, batch=96, lr=1e-3, read=0.0, texts=0, init=""
    )
    options.checkpoint = options.work / f"{options.name}.safetensors"
    torch.manual_seed(options.seed)
    accelerator = Accelerator()
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    clip = (
        CLIPModel.from_pretrained(options.init, dtype=torch.float32)
        if options.init
        else build(options.width, tokenizer)
    )
    student = nn.ModuleDict({"clip": clip, "reader": Reader(options.width)})
    groups = [
        {"params": [p for p in clip.parameters() if p.ndim > 1], "weight_decay": 0.02, "faster": 1.0},
        {"params": [p for p in clip.parameters() if p.ndim <= 1], "weight_decay": 0.0, "faster": 1.0},
        {"params": list(student["reader"].parameters()), "weight_decay": 0.0, "faster": 4.0},
    ]
    optimizer = torch.optim.AdamW(groups, options.lr, betas=(0.9, 0.98))
    checkpoint = Checkpoint(options.checkpoint, dict(student.items()), optimizer)
    first = checkpoint.load()
    student, optimizer = accelerator.prepare(student, optimizer)
    clip, reader = student["clip"], student["reader"]
    scenes = draw_scenes(100_000 * (options.seed + 1), options.scenes)
    images = stack(scenes)
    kinds = [[i for i, s in enumerate(scenes) if (s.kind == "layouts") == layout] for layout in (False, True)]
    short = [i for i in kinds[1] if len(scenes[i].labels) <= 6]

    def encode(told: list[Scene]):
        texts = [caption(scene, rng) for scene in told]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(accelerator.device)
        return texts, tokens.attention_mask, clip.get_text_features(**tokens)

    def read_loss(told: list[Scene], texts: list[str], mask: torch.Tensor, output) -> torch.Tensor:
        expected = torch.tensor([answers(scene, text) for scene, text in zip(told, texts, strict=True)])
        expected[mask.cpu().sum(1) == tokenizer.model_max_length] = UNKNOWN  # may be cut
        logits = reader(output.last_hidden_state, mask == 0)
        return options.read * F.cross_entropy(logits.transpose(1, 2), expected.to(logits.device))

    started = time.time()
    for step in range(first, options.steps):
        rng = np.random.default_rng([options.seed, step])
        for group in optimizer.param_groups:
            group["lr"] = group["faster"] * learning_rate(step, options.steps, options.lr)
        losses = {}
        if options.read:  # places are the slowest to learn, and texts are cheap
            placed = [relabelled(scenes[i], rng) for i in rng.choice(short, 64)]
            losses["places"] = read_loss(placed, *encode(placed))
        if step >= options.texts:
            layouts = int(rng.random() < 0.25)
            size = options.batch // (1 + layouts)  # their captions are four times as long
            chosen = rng.choice(kinds[layouts], size, replace=False)
            told = [scenes[i] for i in chosen] + [counterfeit(scenes[i], rng) for i in chosen]
            texts, mask, output = encode(told)
            pixels = (images[chosen].to(accelerator.device).float() / 127.5) - 1
            seen = F.normalize(clip.get_image_features(pixels).pooler_output, dim=-1)
            read = F.normalize(output.pooler_output, dim=-1)
            same = torch.tensor([[i != j and a == b for j, b in enumerate(texts)] for i, a in enumerate(texts[:size])])
            scale = clip.logit_scale.exp().clamp(max=100)
            losses["contrast"] = contrastive_loss(seen, read[:size], read[size:], same.to(read.device), scale)
            if options.read:
                losses["reading"] = read_loss(told, texts, mask, output)
        accelerator.backward(sum(losses.values()))
        accelerator.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0 or step + 1 == options.steps:
            figures = {name: loss.item() for name, loss in losses.items()}
            checkpoint.save(step + 1, **figures, seconds=time.time() - started)
    clip = accelerator.unwrap_model(clip)
    clip.half().save_pretrained(WEIGHTS / options.name)
    half_range = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    CLIPImageProcessor(size={"shortest_edge": 128}, crop_size=128, **half_range).save_pretrained(WEIGHTS / options.name)


if __name__ == "__main__":
    main()

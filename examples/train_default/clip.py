"""Stage 2: the two CLIP models, contrastive, each image against its own hard negative too.

`--name clip` becomes the pipeline's frozen text encoder. `--name clip_score --seed 1 --width 160` is the evaluation's:
it never conditions, steers or sits in a loss.
"""

import time
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from common import WEIGHTS, Checkpoint, arguments, draw_scenes, learning_rate, stack
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from t2i_tools.default.scenes import COLOURS, LABELS, Scene, caption


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


def main() -> None:
    options = arguments("clip", steps=1000, name="clip", seed=0, width=128, scenes=30_000, batch=96, lr=1e-3)
    options.checkpoint = options.work / f"{options.name}.safetensors"
    torch.manual_seed(options.seed)
    accelerator = Accelerator()
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    clip = build(options.width, tokenizer)
    decay = [p for p in clip.parameters() if p.ndim > 1]
    plain = [p for p in clip.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, options.lr, betas=(0.9, 0.98))
    checkpoint = Checkpoint(options.checkpoint, {"clip": clip}, optimizer)
    first = checkpoint.load()
    clip, optimizer = accelerator.prepare(clip, optimizer)
    scenes = draw_scenes(100_000 * (options.seed + 1), options.scenes)
    images = stack(scenes)
    kinds = [[i for i, s in enumerate(scenes) if (s.kind == "layouts") == layout] for layout in (False, True)]

    def encode(texts: list[str]) -> torch.Tensor:
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(accelerator.device)
        return F.normalize(clip.get_text_features(**tokens).pooler_output, dim=-1)

    started = time.time()
    for step in range(first, options.steps):
        rng = np.random.default_rng([options.seed, step])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.lr)
        layouts = rng.random() < 0.25
        half = options.batch // (2 if layouts else 1)  # their captions are four times as long
        chosen = rng.choice(kinds[int(layouts)], half, replace=False)
        texts = [caption(scenes[i], rng) for i in chosen]
        texts += [caption(counterfeit(scenes[i], rng), rng) for i in chosen]
        same = np.array([[a == b for b in texts] for a in texts[:half]])
        np.fill_diagonal(same, False)
        pixels = (images[chosen].to(accelerator.device).float() / 127.5) - 1
        seen = F.normalize(clip.get_image_features(pixels).pooler_output, dim=-1)
        read = encode(texts)
        scale = clip.logit_scale.exp().clamp(max=100)
        loss = contrastive_loss(seen, read[:half], read[half:], torch.from_numpy(same).to(read.device), scale)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(clip.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0 or step + 1 == options.steps:
            right = (seen @ read[:half].T).argmax(1) == torch.arange(half, device=read.device)
            checkpoint.save(step + 1, loss=loss.item(), top1=right.float().mean().item(), seconds=time.time() - started)
    clip = accelerator.unwrap_model(clip)
    clip.half().save_pretrained(WEIGHTS / options.name)
    half_range = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    CLIPImageProcessor(size={"shortest_edge": 128}, crop_size=128, **half_range).save_pretrained(WEIGHTS / options.name)


if __name__ == "__main__":
    main()

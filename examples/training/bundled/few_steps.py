"""Stage 5: the four-step form, a LoRA of the UNet that goes in four passes where the model itself goes forty.

    python few_steps.py draw --trajectories 4000     # the model's own images, kept as shards in WORK/few_steps
    python few_steps.py train --steps 3000           # while it still draws, if need be: it reads what is there
    python few_steps.py train --init LORA --lr 5e-4  # continues from an existing LoRA instead of starting from scratch

Drawing goes along the model's own path in twelve guided steps and keeps the latents at the start of every third:
that is where four steps will stand. Training asks each of the four steps to end where those three ended, without
guidance, in the velocity that leads there (progressive distillation in one go, Salimans and Ho, ICLR 2022); half of a
batch is for the first one, where number and places are decided. An image is taken for what is found in it: of five
apples that the detector finds for "four apples" the caption says five, in a newcomer's wordings and with the background
that is there, so that the number in the text counts for more than it does in the model itself; an image with an object
nobody asked for is left out. Half of the images are drawn in fours, from the same noise and with the same caption but
for its number: the noise says nothing of the number then. The judges take no part. Both commands go on where they were
killed.
"""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import Checkpoint, arguments, learning_rate, states_of
from diffusers import DDIMScheduler, StableDiffusionPipeline
from evaluate import nearest_colour
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from t2i_tools.bundled import BUNDLED_GUIDANCE, load_bundled, load_bundled_counter
from t2i_tools.bundled.scenes import MAX_COUNT, Scene, caption, newcomer_caption, scene

STEPS = 4
WITHIN = 3  # steps of the model in one of the four
SHARES = (4, 2, 1, 1)  # of a batch, for each of the four steps
SHARD = 32
GROUP = 4  # of every eight training examples, those that share one noise
FIRST_SEED = 20_000_000  # of the noise; neither dev's nor test's images
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
CONVOLUTIONS = ["conv1", "conv2", "conv_shortcut", "time_emb_proj"]


def wish(index: int) -> tuple[Scene, str, int]:
    """Training wish number `index`: its scene, a caption that the model knows, and the seed of its noise.

    Of every eight, four share the noise and ask for one to four of the same object; of the others, half ask for one to
    three.
    """
    number = index % 8
    together = number < GROUP
    seed = FIRST_SEED + (index - number if together else index)
    rng = np.random.default_rng([5, seed])
    few = {"kind": "counts", "count": int(rng.integers(1, 4))} if together or rng.random() < 0.5 else {}
    drawn = scene(seed, **few)
    if together:
        drawn = replace(drawn, labels=drawn.labels[:1] * (number + 1))
    return drawn, caption(drawn, rng), seed


def found_caption(drawn: Scene, labels: Sequence[str], colour: str, index: int) -> str | None:
    """What a newcomer would say of the objects and background found for this wish; None for what nobody asked for."""
    wanted, found = Counter(drawn.labels), Counter(labels)
    if set(wanted) != set(found) or len(labels) > MAX_COUNT or (drawn.kind == "layouts" and wanted != found):
        return None
    drawn = replace(drawn, colour=colour)
    if drawn.kind != "layouts":
        drawn = replace(drawn, labels=tuple(label for label in wanted for _ in range(found[label])))
    return newcomer_caption(drawn, np.random.default_rng([6, index]))


def trajectory(pipe: StableDiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
    """The latents before each of the four steps and at the end, (n, 5, 8, 16, 16)."""
    noise = [torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    latents = torch.stack(noise).contiguous(memory_format=torch.channels_last)
    states = torch.cat([states_of(pipe, [""] * len(prompts)), states_of(pipe, prompts)])
    pipe.scheduler.set_timesteps(STEPS * WITHIN)
    kept = [latents]
    for number, timestep in enumerate(pipe.scheduler.timesteps, start=1):
        free, led = pipe.unet(torch.cat([latents] * 2), timestep, states).sample.chunk(2)
        latents = pipe.scheduler.step(free + BUNDLED_GUIDANCE * (led - free), timestep, latents).prev_sample
        if number % WITHIN == 0:
            kept.append(latents)
    return torch.stack(kept, dim=1)


@torch.inference_mode()
def draw(folder: Path, total: int) -> None:
    """Write the shards that are missing: latents, and the text states of what was found in each image."""
    pipe, counter = load_bundled(), load_bundled_counter()
    pipe.unet.to(memory_format=torch.channels_last)
    folder.mkdir(exist_ok=True)
    for shard in range(-(-total // SHARD)):
        path = folder / f"{shard:04}.safetensors"
        if path.exists():
            continue
        indices = range(shard * SHARD, (shard + 1) * SHARD)
        wishes, prompts, seeds = zip(*map(wish, indices), strict=True)
        path_taken = trajectory(pipe, prompts, seeds)
        images = (pipe.vae.decode(path_taken[:, -1]).sample / 2 + 0.5).clamp(0, 1)
        captions = [
            found_caption(wished, found.labels, nearest_colour(image, found.boxes), index)
            for wished, found, image, index in zip(wishes, counter.detect(images), images, indices, strict=True)
        ]
        kept = [place for place, text in enumerate(captions) if text]
        tensors = {
            "latents": path_taken[kept].half(),
            "states": states_of(pipe, [captions[place] for place in kept]).half(),
        }
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
        print(f"{shard}: {len(kept)} of {SHARD} kept, such as {captions[kept[0]]!r}", flush=True)


def load_shards(folder: Path) -> dict[str, torch.Tensor]:
    """All that is drawn by now."""
    shards = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    return {name: torch.cat([shard[name] for shard in shards]) for name in ("latents", "states")}


def levels(scheduler: DDIMScheduler) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Timesteps (4,), and the signal's and the noise's share before each step and at the end, (5,)."""
    scheduler.set_timesteps(STEPS)
    signal = torch.cat([scheduler.alphas_cumprod[scheduler.timesteps], scheduler.final_alpha_cumprod[None]])
    return scheduler.timesteps, signal.sqrt(), (1 - signal).sqrt()


def velocity_between(before: torch.Tensor, after: torch.Tensor, signal: torch.Tensor, noise: torch.Tensor):
    """The velocity with which one DDIM step leads from `before` to `after`; signal, noise: (2, n, 1, 1, 1).

    With x0 = a x - s v and eps = s x + a v (Salimans and Ho, 2022, appendix D), x' = a' x0 + s' eps is linear in v.
    """
    stay = signal[0] * signal[1] + noise[0] * noise[1]
    return (after - stay * before) / (signal[0] * noise[1] - noise[0] * signal[1])


def train(options) -> None:
    """Train the LoRA on what is drawn, and write it."""
    pipe = load_bundled()
    unet = pipe.unet.requires_grad_(False).to(memory_format=torch.channels_last)
    torch.manual_seed(0)
    unet.add_adapter(LoraConfig(r=options.rank, lora_alpha=options.rank, target_modules=LAYERS + CONVOLUTIONS))
    if options.init:
        start = {name.removeprefix("unet."): value.float() for name, value in load_file(options.init).items()}
        if unknown := set_peft_model_state_dict(unet, start).unexpected_keys:
            raise SystemExit(f"{options.init} is no LoRA of these layers: it has {unknown[0]}")
    weights = {name: value for name, value in unet.named_parameters() if value.requires_grad}
    model = torch.nn.ParameterDict({name.replace(".", "/"): value for name, value in weights.items()})
    average = torch.nn.ParameterDict({name: value.detach().clone() for name, value in model.items()})
    optimizer = torch.optim.AdamW(model.parameters(), options.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    checkpoint = Checkpoint(options.checkpoint, {"lora": model, "average": average}, optimizer)
    first, started, total = checkpoint.load(), time.time(), 0.0
    timesteps, signal, noise = levels(pipe.scheduler)
    places = torch.repeat_interleave(torch.arange(STEPS), torch.tensor(SHARES))
    data: dict[str, torch.Tensor] = {}
    for step in range(first, options.steps):
        if not data or step % 200 == 0:
            data = load_shards(options.work / "few_steps")
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.lr)
        generator = torch.Generator().manual_seed(step)
        chosen = torch.randint(len(data["latents"]), (options.batch,), generator=generator)
        which = places[torch.arange(options.batch) % len(places)]
        before, after = (data["latents"][chosen, which + later].float() for later in (0, 1))
        shares = [torch.stack([share[which], share[which + 1]])[..., None, None, None] for share in (signal, noise)]
        target = velocity_between(before, after, *shares)
        states = data["states"][chosen].float()
        before = before.contiguous(memory_format=torch.channels_last)
        loss = (unet(before, timesteps[which], states).sample - target).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay = min(0.995, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(model.values()), 1 - decay)
        total += loss.item()
        if (step + 1) % options.save_every == 0 or step + 1 == options.steps:
            images, mean, total = len(data["latents"]), total / options.save_every, 0.0
            checkpoint.save(step + 1, loss=mean, images=images, seconds=time.time() - started)
            save_lora(pipe, average, options.work / "few_steps")


def save_lora(pipe: StableDiffusionPipeline, average: torch.nn.ParameterDict, folder: Path) -> None:
    """The running average as plain diffusers reads it, in half precision; the training's own weights stay."""
    own = {name: value.detach().clone() for name, value in pipe.unet.named_parameters() if value.requires_grad}
    pipe.unet.load_state_dict({name.replace("/", "."): value for name, value in average.items()}, strict=False)
    lora = {name: value.half() for name, value in get_peft_model_state_dict(pipe.unet).items()}
    pipe.save_lora_weights(folder / "lora", unet_lora_layers=lora)
    pipe.unet.load_state_dict(own, strict=False)


def main() -> None:
    command = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if command not in ("draw", "train"):
        raise SystemExit(__doc__)
    more = {"trajectories": 4000, "batch": 32, "lr": 1e-3, "rank": 16, "save_every": 50, "init": ""}
    options = arguments("few_steps", steps=3000, **more)
    (options.work / "few_steps").mkdir(exist_ok=True)
    if command == "draw":
        draw(options.work / "few_steps", options.trajectories)
    else:
        train(options)


if __name__ == "__main__":
    main()

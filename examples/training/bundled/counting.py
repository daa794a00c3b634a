"""Where the UNet loses count: does it read the number, and does the number change what it predicts?

`python counting.py` prints two tables, of dev scenes and seeds that no training saw (2 minutes of one core):
1. The share of prompts whose number a linear reader finds in each block's features (n = 1..12, chance 8 %), from noise
   alone: what of the number has arrived there.
2. By how much the loss grows when a scene's caption says one more or one less (1000 times the mean square error of v;
   Li et al. 2023, "Your diffusion model is secretly a zero-shot classifier"): what is made of it.
"""

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from common import draw_scenes, stack, states_of
from diffusers import StableDiffusionPipeline
from rich.console import Console
from rich.table import Table

from t2i_tools.bundled import load_bundled
from t2i_tools.bundled.scenes import LABELS, MAX_COUNT, count_phrase
from t2i_tools.metrics import cluster_bootstrap

TIMESTEPS = (600, 700, 800, 900)
COUNTS = (1, 2, 3, 4, 5, 7)


def read_right(features: torch.Tensor, numbers: torch.Tensor, fitted: int) -> torch.Tensor:
    """Which rows after the first `fitted` a ridge regression on those reads right, (rows - fitted,) bool."""
    features = F.pad((features - features.mean(0)) / (features.std(0) + 1e-6), (0, 1), value=1.0)
    seen, wanted = features[:fitted], F.one_hot(numbers[:fitted] - 1, MAX_COUNT).float()
    weights = torch.linalg.solve(seen.T @ seen + 5 * torch.eye(seen.shape[1]), seen.T @ wanted)
    return (features[fitted:] @ weights).argmax(1) + 1 == numbers[fitted:]


def numbers_read(pipe: StableDiffusionPipeline, repeats: int = 4, timestep: int = 900) -> dict[str, float]:
    """Each block's features are averaged over the picture; prompts of all classes, counts and openings."""
    blocks = {"middle": pipe.unet.mid_block}
    blocks |= {f"down {i}": block for i, block in enumerate(pipe.unet.down_blocks)}
    blocks |= {f"up {i}": block for i, block in enumerate(pipe.unet.up_blocks)}
    features = {name: [] for name in blocks}

    def keep(name: str, output: torch.Tensor | tuple) -> None:
        output = output[0] if isinstance(output, tuple) else output
        features[name].append(output.mean((2, 3)))

    hooks = [block.register_forward_hook(lambda _, __, out, n=name: keep(n, out)) for name, block in blocks.items()]
    cases = list(product(LABELS, range(1, MAX_COUNT + 1), ("", "a photo of ", "a picture of "))) * repeats
    cases = [cases[i] for i in np.random.default_rng(0).permutation(len(cases))]
    generator = torch.Generator().manual_seed(0)
    for start in range(0, len(cases), 48):
        states = states_of(pipe, [opening + count_phrase(label, n) for label, n, opening in cases[start : start + 48]])
        noise = torch.randn(len(states), 8, 16, 16, generator=generator)
        pipe.unet(noise, torch.full((len(states),), timestep), states)
    for hook in hooks:
        hook.remove()
    numbers = torch.tensor([n for _, n, _ in cases])
    fitted = len(numbers) * 3 // 4
    return {name: read_right(torch.cat(kept), numbers, fitted).float().mean().item() for name, kept in features.items()}


def losses(pipe: StableDiffusionPipeline, latents: torch.Tensor, states: torch.Tensor, seed: int) -> torch.Tensor:
    """The mean square error of v at each of TIMESTEPS under each caption, the same noise for all, (captions, times)."""
    timesteps = torch.tensor(TIMESTEPS)
    clean = latents.expand(len(timesteps), -1, -1, -1)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    noisy, wanted = (f(clean, noise, timesteps) for f in (pipe.scheduler.add_noise, pipe.scheduler.get_velocity))
    rows = [pipe.unet(noisy, timesteps, state.expand(len(timesteps), -1, -1)).sample - wanted for state in states]
    return torch.stack(rows).square().mean((2, 3, 4))


def growth(pipe: StableDiffusionPipeline, count: int, off: int, number: int) -> np.ndarray:
    """By how much the loss of scenes of `count` objects grows when the caption is `off` by one, (number, times)."""
    found = []
    for i, scene in enumerate(draw_scenes(7_100_000 + 100 * count, number, split="dev", kind="counts", count=count)):
        latents = pipe.vae.encode(stack([scene]).float() / 127.5 - 1).latents
        captions = [f"a picture of {count_phrase(scene.labels[0], n)}" for n in (count, count + off)]
        right, wrong = losses(pipe, latents, states_of(pipe, captions), i)
        found.append(1000 * (wrong - right))
    return torch.stack(found).numpy()


@torch.inference_mode()
def main(number: int = 48) -> None:
    pipe, console = load_bundled(), Console()
    table = Table("block", "number read", title="1. read")
    for name, right in numbers_read(pipe).items():
        table.add_row(name, f"{100 * right:.0f} %")
    console.print(table)
    table = Table("objects", "caption says", *(f"t = {t}" for t in TIMESTEPS), title="2. growth of the loss")
    for count, off in product(COUNTS, (-1, 1)):
        if count + off:
            columns = growth(pipe, count, off, number).T
            found = (cluster_bootstrap(column) for column in columns)
            cells = (f"{c.estimate:.1f} [{c.low:.1f}, {c.high:.1f}]" for c in found)
            table.add_row(str(count), str(count + off), *cells)
    console.print(table, f"{number} scenes a row, bootstrapped 95 % intervals", sep="\n")


if __name__ == "__main__":
    main()

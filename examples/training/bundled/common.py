"""What every training stage shares: scenes in memory, a resumable checkpoint, the learning rate."""

import json
import math
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, safe_open, save_file
from torch import nn

from t2i_tools.bundled.scenes import Scene, scene

WEIGHTS = Path(__file__).parents[3] / "t2i_tools" / "default" / "weights"


def arguments(stage: str, steps: int, **more) -> Namespace:
    """--work, --steps, --batch and what the stage adds; checkpoints go to WORK/stage.safetensors."""
    parser = ArgumentParser()
    parser.add_argument("--work", type=Path, default=Path(".train"), help="ignored folder of the checkpoints")
    parser.add_argument("--steps", type=int, default=steps)
    for name, value in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.checkpoint = options.work / f"{stage}.safetensors"
    return options


def draw_scenes(first: int, total: int, /, **settings) -> list[Scene]:
    """Scenes first..first+total of a split, drawn by all cores. Keyword arguments are `scene`'s."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(partial(scene, **settings), range(first, first + total), chunksize=256))


def stack(scenes: list[Scene]) -> torch.Tensor:
    """(n, 3, H, W) uint8."""
    return torch.stack([torch.from_numpy(s.image) for s in scenes]).permute(0, 3, 1, 2).contiguous()


def states_of(pipe: StableDiffusionPipeline, prompts: Sequence[str]) -> torch.Tensor:
    """Text states, (n, 77, 128)."""
    tokens = pipe.tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
    return pipe.text_encoder(tokens.input_ids)[0]


def learning_rate(step: int, total: int, peak: float, warmup: int = 100) -> float:
    """Linear warm-up, then a cosine down to 2 % of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


class Checkpoint:
    """Model, optimiser and step in one safetensors file, replaced whole: a kill loses at most the last stretch."""

    def __init__(self, path: Path, models: dict[str, nn.Module], optimizer: torch.optim.Optimizer):
        self.path, self.models, self.optimizer = path, models, optimizer

    def load(self) -> int:
        """Restores the last state and returns its step; 0 when there is none."""
        if not self.path.exists():
            return 0
        tensors = load_file(self.path)
        for name, model in self.models.items():
            prefix = f"{name}."
            model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        state: dict[int, dict] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                state.setdefault(int(index), {})[name] = value
        if state:
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        with safe_open(self.path, "pt") as file:
            return int(file.metadata()["step"])

    def save(self, step: int, **figures: float) -> None:
        """Writes beside and replaces; `figures` are appended to the stage's log as one JSON line."""
        tensors = {f"{name}.{k}": v for name, model in self.models.items() for k, v in model.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        beside = self.path.with_suffix(".part")
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, beside, metadata={"step": str(step)})
        os.replace(beside, self.path)
        with self.path.with_suffix(".jsonl").open("a") as log:
            log.write(json.dumps({"step": step, **figures}) + "\n")
        print(step, {name: round(value, 4) for name, value in figures.items()}, flush=True)

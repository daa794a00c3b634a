"""Moves that step along a gradient (Zafar et al. 2024), and the random steps that a gradient has to beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from t2i_tools.counting.formula import clip_gradient
from t2i_tools.counting.moves.base import Move, State, Vector
from t2i_tools.counting.objective import Trial
from t2i_tools.counting.options import CountOptions

Draw = Callable[[Sequence[int]], torch.Tensor]


class GradientMove(Move):
    """AdamW on the tokens (Zafar et al. 2024), steps of a set length on the initial noise, or both."""

    def __init__(self, vectors: list[Vector], draw: Draw | None, seeds: Sequence[int], options: CountOptions):
        """draw: gives the initial noise of seeds, None to leave it as it is."""
        super().__init__(seeds)
        self.vectors, self.draw, self.options = vectors, draw, options
        self.first = {vector.name: vector.tensor.detach().clone() for vector in vectors}
        self._begin()

    def propose(self) -> Trial:
        for tensor in self._tensors():
            tensor.grad = None
        return Trial(self.seeds, self.noise, gradient=True)

    def learn(self, error: float, surplus: Sequence[Sequence[int]], whole: bool = True) -> float | None:
        tensors = [tensor for tensor in self._tensors() if tensor.grad is not None]
        if not tensors:
            return None
        length = clip_gradient(tensors, self.options.max_norm)
        if length == length and length != float("inf"):  # a step that is no number would lose all that was learned
            if self.optimizer is not None:
                self.optimizer.step()
            self._walk_noise()
        return length

    @torch.no_grad()
    def _walk_noise(self) -> None:
        """A step of a set length down the gradient, and back to the length of noise: the model has seen no other.

        AdamW would move every latent alike; so it is those that matter which move.
        """
        if self.noise is None or self.noise.grad is None:
            return
        shape = (-1, *[1] * (self.noise.ndim - 1))
        step = self.noise.grad.flatten(1).norm(dim=1).clamp(min=1e-20)
        self.noise.sub_((self.options.noise_lr * self.length / step).view(shape) * self.noise.grad)
        self.noise.mul_((self.length / self.noise.flatten(1).norm(dim=1)).view(shape))

    def forget(self, seeds: Sequence[int]) -> None:
        """Start again from the first vectors, with other seeds and their noise."""
        self.seeds = tuple(seeds)
        with torch.no_grad():
            for vector in self.vectors:
                vector.tensor.copy_(self.first[vector.name])
        self._begin()

    def state(self) -> State:
        state = {f"vector.{v.name}": v.tensor.detach() for v in self.vectors} | {"seeds": torch.tensor(self.seeds)}
        if self.noise is not None:
            state |= {"noise": self.noise.detach(), "length": self.length}
        for index, moments in self._moments().items():
            state |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
        return state

    def restore(self, state: State) -> None:
        self.seeds = tuple(state["seeds"].tolist())
        with torch.no_grad():
            for vector in self.vectors:
                vector.tensor.copy_(state[f"vector.{vector.name}"])
            if self.noise is not None:
                self.noise.copy_(state["noise"])
                self.length = state["length"]
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in state.items():
            match key.split("."):
                case ["adam", index, name]:
                    moments.setdefault(int(index), {})[name] = value
        if self.optimizer is not None:
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    def _moments(self) -> dict[int, dict[str, torch.Tensor]]:
        return {} if self.optimizer is None else self.optimizer.state_dict()["state"]

    def _tensors(self) -> list[torch.Tensor]:
        return [v.tensor for v in self.vectors] + ([] if self.noise is None else [self.noise])

    def _begin(self) -> None:
        self.noise: torch.Tensor | None = None
        if self.draw is not None:
            self.noise = self.draw(self.seeds)
            self.length = self.noise.flatten(1).norm(dim=1)
        for tensor in self._tensors():
            tensor.requires_grad_(True)
        groups = [{"params": [v.tensor], "lr": self.options.lr * v.unit} for v in self.vectors]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=self.options.weight_decay) if groups else None


class RandomWalk(Move):
    """Steps of the length of AdamW's in random directions: what the gradient adds to trying many tokens."""

    def __init__(self, vectors: list[Vector], seeds: Sequence[int], options: CountOptions):
        super().__init__(seeds)
        self.vectors, self.options = vectors, options
        self.generator = torch.Generator().manual_seed(seeds[0])

    def learn(self, error: float, surplus: Sequence[Sequence[int]], whole: bool = True) -> float | None:
        for vector in self.vectors:
            noise = torch.randn(vector.tensor.shape, generator=self.generator)
            vector.tensor.add_(noise, alpha=self.options.lr * vector.unit)
        return None

    def state(self) -> State:
        return {f"vector.{v.name}": v.tensor for v in self.vectors} | {"random": self.generator.get_state()}

    def restore(self, state: State) -> None:
        for vector in self.vectors:
            vector.tensor.copy_(state[f"vector.{vector.name}"])
        self.generator.set_state(state["random"])

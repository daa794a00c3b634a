"""How a search goes from one trial to the next by a gradient, at random, or in rounds; and a method's move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import torch

from t2i_tools.counting.bisection import Bisection, Bracket, Line
from t2i_tools.counting.judging import Trial
from t2i_tools.counting.loss import clip_gradient, root_mean_square
from t2i_tools.counting.move import Move, NewSeeds, State, Vector
from t2i_tools.counting.options import Options
from t2i_tools.counting.sampling import Sampler
from t2i_tools.counting.token import CountToken, number_word, start_token
from t2i_tools.errors import InputError
from t2i_tools.models import text_encoders

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Draw = Callable[[Sequence[int]], torch.Tensor]


class Learned(Move):
    """AdamW on the tokens (Zafar et al. 2024), steps of a set length on the initial noise, or both."""

    def __init__(self, vectors: list[Vector], draw: Draw | None, seeds: Sequence[int], options: Options):
        """draw: gives the initial noise of seeds, None to leave it as it is."""
        super().__init__(seeds)
        self.vectors, self.draw, self.options = vectors, draw, options
        self.first = {vector.name: vector.tensor.detach().clone() for vector in vectors}
        self._begin()

    def propose(self) -> Trial:
        for tensor in self._tensors():
            tensor.grad = None
        return Trial(self.seeds, self.noise, gradient=True)

    def learn(self, error: float, surplus: Sequence[Sequence[int]]) -> float | None:
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
        self.noise = None if self.draw is None else self.draw(self.seeds)
        self.length = None if self.noise is None else self.noise.flatten(1).norm(dim=1)
        for tensor in self._tensors():
            tensor.requires_grad_(True)
        groups = [{"params": [v.tensor], "lr": self.options.lr * v.unit} for v in self.vectors]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0) if groups else None


class RandomWalk(Move):
    """Steps of the length of AdamW's in random directions: what the gradient adds to trying many tokens."""

    def __init__(self, vectors: list[Vector], seeds: Sequence[int], options: Options):
        super().__init__(seeds)
        self.vectors, self.options = vectors, options
        self.generator = torch.Generator().manual_seed(seeds[0])

    def learn(self, error: float, surplus: Sequence[Sequence[int]]) -> float | None:
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


class Rounds(Move):
    """What is learned and best-of together: some new seeds, then token or noise on the best of them, and so on."""

    def __init__(self, learned: Learned, explore: int):
        super().__init__(learned.seeds)
        self.fresh, self.learned, self.explore = NewSeeds(learned.seeds), learned, explore
        self.left = explore
        self.best: tuple[float, tuple[int, ...]] | None = None

    def propose(self) -> Trial:
        if self.left:
            self.trial = self.fresh.propose()
            return self.trial
        return self.learned.propose()

    def learn(self, error: float, surplus: Sequence[Sequence[int]]) -> float | None:
        if not self.left:
            return self.learned.learn(error, surplus)
        self.left -= 1
        if self.best is None or error < self.best[0]:
            self.best = (error, self.trial.seeds)
        if not self.left:
            self.learned.forget(self.best[1])
        return None

    def restart(self) -> bool:
        if not self.left:
            self.left, self.best = self.explore, None
            self.learned.forget(self.learned.seeds)
        return True

    def state(self) -> State:
        error, seeds = self.best or (-1.0, self.seeds)
        own = {"left": torch.tensor(self.left), "error": torch.tensor(error).double(), "chosen": torch.tensor(seeds)}
        return own | self.fresh.state() | self.learned.state()

    def restore(self, state: State) -> None:
        self.left, error = int(state["left"]), float(state["error"])
        self.best = None if error < 0 else (error, tuple(state["chosen"].tolist()))
        self.fresh.restore(state)
        self.learned.restore(state)


def make_move(
    pipe: DiffusionPipeline, tokens: Sequence[CountToken], sampler: Sampler, seeds: Sequence[int], options: Options
) -> Move:
    """The move of a method."""
    if options.method == "plain":
        return Move(seeds)
    if options.method == "best_of":
        return NewSeeds(seeds)
    by_token = [_vectors(pipe, index, token, options) for index, token in enumerate(tokens)]
    if options.method.startswith("bisection"):
        lines = [_line(pipe, token, vectors) for token, vectors in zip(tokens, by_token, strict=True)]
        return Bisection(lines, seeds, options.lr, options.explore if options.method != "bisection" else None)
    vectors = list(chain.from_iterable(by_token))
    if options.method == "random_walk":
        return RandomWalk(vectors, seeds, options)
    learned = Learned(vectors, sampler.noise if "noise" in options.method else None, seeds, options)
    return Rounds(learned, options.explore) if options.method.endswith("+best_of") else learned


def _vectors(pipe: DiffusionPipeline, index: int, token: CountToken, options: Options) -> list[Vector]:
    parts = text_encoders(pipe)
    names = [part.name for part in parts]
    for name in options.encoders or ():
        if name not in names:
            raise InputError(f"there is no text encoder {name!r}: choose {', '.join(names)}")
    return [
        Vector(
            f"{index}:{part.name}",
            token.vectors[part.name],
            root_mean_square(part.encoder.get_input_embeddings().weight),
        )
        for part in parts
        if options.encoders is None or part.name in options.encoders
    ]


def _line(pipe: DiffusionPipeline, token: CountToken, vectors: list[Vector]) -> Line:
    def words(number: int) -> list[torch.Tensor]:
        embeddings = start_token(pipe, number, token.label, start=number_word(number), rows=token.rows).vectors
        return [embeddings[vector.name.partition(":")[2]] for vector in vectors]

    return Line(Bracket(float(token.n), top=2.0 * token.n), vectors, words)

"""The loop that all methods share: draw, count, keep the best, stop when exact, go on from a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from t2i_tools.counting.checkpoint import read_checkpoint, write_checkpoint
from t2i_tools.counting.compute import Compute
from t2i_tools.counting.judging import Judge, Outcome, mean
from t2i_tools.counting.moves import Move, make_move
from t2i_tools.counting.options import Goal, Options
from t2i_tools.counting.patch import count_token
from t2i_tools.counting.results import Result, Step
from t2i_tools.counting.sampling import Sampler, frozen
from t2i_tools.counting.strip import thumbnail
from t2i_tools.counting.token import CountToken
from t2i_tools.detectors import Counter
from t2i_tools.errors import InputError
from t2i_tools.generation import Request, check_request, generate_image
from t2i_tools.models import align

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

OBJECTS = ("guide", "clip", "vae", "checkpoint")  # options that JSON does not hold


@dataclass(frozen=True)
class Best:
    """The step with the least error, then the least loss, then the earliest; and what was learned by then."""

    index: int
    error: float
    loss: float
    seeds: tuple[int, ...]
    gradient: bool
    outcome: Outcome
    learned: dict[str, torch.Tensor]


class Search(Iterator[Step]):
    """Iterate for one `Step` a trial, or `run()`. `result()` may be asked for at any time after the first step."""

    def __init__(
        self,
        pipe: DiffusionPipeline,
        prompts: tuple[str, str],
        goal: Goal,
        counter: Counter,
        tokens: Sequence[CountToken],
        seeds: Sequence[int],
        options: Options,
    ) -> None:
        """prompts: with the tokens' words, and as a person would say it."""
        if not seeds:
            raise InputError("no seeds were given: pass at least one")
        self.pipe, self.options, self.tokens = pipe, options, list(tokens)
        self.request = Request(
            prompts[0], seeds[0], options.negative, options.size, steps=options.steps, guidance=options.guidance
        )
        check_request(pipe, self.request)
        self.sampler = Sampler(
            pipe,
            self.request,
            grad_steps=options.graph_steps,
            grad_where=options.grad_where,
            checkpointing=options.checkpointing,
            vae=options.vae,
        )
        self.judge = Judge(self.sampler, *prompts, goal, counter, options)
        self.move = make_move(pipe, self.tokens, self.sampler, seeds, options)
        self.history: list[dict[str, Any]] = []
        self.frames: list[np.ndarray] = []
        self.best: Best | None = None
        self.stopped: str | None = None
        self._waited = 0
        self._is_ready = False
        self._about = _describe(self.request.prompt, goal, seeds, options)
        if options.checkpoint:
            align(pipe)  # another process is to get the same bits
            if Path(options.checkpoint).exists():
                self._resume(*read_checkpoint(options.checkpoint))

    def __next__(self) -> Step:
        if self.stopped:
            raise StopIteration
        start, compute = time.perf_counter(), self.sampler.compute
        trial = self.move.propose()
        with self._ready():
            outcome = self.judge.try_out(trial)
        error = mean([self.judge.goal.error(found) for found in outcome.found])
        loss = sum(outcome.count_losses) + self.options.clip_weight * sum(outcome.clip_losses)
        better = self.best is None or (error, loss) < (self.best.error, self.best.loss)
        if better:
            learned = _copies(self.tokens, trial.latents)
            self.best = Best(len(self.history), error, loss, trial.seeds, trial.gradient, outcome, learned)
        grad_norm = self.move.learn(error, self.judge.goal.surplus(outcome.found)) if error else None
        seconds = time.perf_counter() - start
        compute.seconds += seconds
        step = Step(
            index=len(self.history),
            seeds=trial.seeds,
            images=outcome.images(),
            found=outcome.found,
            error=error,
            exact=error == 0,
            best=better,
            potential=outcome.potential or None,
            scale=outcome.scale or None,
            count_loss=mean(outcome.count_losses),
            clip_loss=mean(outcome.clip_losses),
            grad_norm=grad_norm,
            seconds=round(seconds, 3),
            passes=compute.passes,
        )
        self.history.append(step.as_dict())
        self.frames.append(np.asarray(thumbnail(step.image)))
        self._decide(step)
        if self.options.checkpoint:
            self._save()
        return step

    def run(self, on_step: Callable[[Step], object] | None = None) -> Result:
        """All steps; Ctrl-C ends the search early and keeps the best so far."""
        try:
            with self._ready():
                for step in self:
                    if on_step is not None:
                        on_step(step)
        except KeyboardInterrupt:
            if self.best is None:
                raise
            self.stopped = "interrupted"
        return self.result()

    def result(self) -> Result:
        """The best so far. Raises InputError before the first step."""
        best = self.best
        if best is None:
            raise InputError("the search has not made a step yet")
        tokens = [
            replace(token, vectors={name: best.learned[f"{index}:{name}"].clone() for name in token.vectors})
            for index, token in enumerate(self.tokens)
        ]
        return Result(
            images=self._deliver(tokens),
            seeds=best.seeds,
            prompt=self.request.prompt,
            found=best.outcome.found,
            error=best.error,
            exact=best.error == 0,
            tokens=tokens,
            latents=best.learned.get("noise"),
            history=list(self.history),
            frames=[Image.fromarray(frame) for frame in self.frames],
            best=best.index,
            stopped=self.stopped or "interrupted",
            compute=self.sampler.compute,
            picture_passes=self.sampler.rows,
        )

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """The pipeline with the tokens, its own weights asking for no gradient: for a step, or for all of a run at
        once, because tokenizers take long to forget a word."""
        if self._is_ready:
            yield
            return
        with ExitStack() as stack:
            for token in self.tokens:
                stack.enter_context(count_token(self.pipe, token))
            stack.enter_context(frozen(self.pipe))
            self._is_ready = True
            stack.callback(setattr, self, "_is_ready", False)
            yield

    def _decide(self, step: Step) -> None:
        """Whether that was the last step."""
        self._waited = 0 if step.best else self._waited + 1
        stale = self._waited >= self.options.patience
        if step.exact:
            self.stopped = "exact"
        elif type(self.move) is Move:
            self.stopped = "done"
        elif self._spent(step):
            self.stopped = "budget"
        elif stale and not self.move.restart():
            self.stopped = "patience"
        elif stale:
            self._waited = 0

    def _spent(self, step: Step) -> bool:
        """Whether one more step like this one would go beyond the budget."""
        before = self.history[-2]["passes"] if len(self.history) > 1 else 0
        whole = self.options.budget * self.sampler.rows * len(step.seeds)
        return 2 * step.passes - before > whole

    def _deliver(self, tokens: list[CountToken]) -> list[Image.Image]:
        """The best pictures; made anew where the search drew them without the safety checker, or by another VAE."""
        best = self.best
        checked = getattr(self.pipe, "safety_checker", None) is not None
        if not best.gradient or "noise" in best.learned or not (checked or self.options.vae is not None):
            return best.outcome.images()
        with ExitStack() as stack:
            for token in tokens:
                stack.enter_context(count_token(self.pipe, token))
            return [generate_image(self.pipe, replace(self.request, seed=seed)) for seed in best.seeds]

    def _save(self) -> None:
        best = self.best
        tensors = {f"move.{name}": value for name, value in self.move.state().items()}
        tensors |= {f"best.{name}": value for name, value in best.learned.items()}
        tensors["pixels"] = torch.from_numpy(np.stack(best.outcome.pixels))
        tensors["frames"] = torch.from_numpy(np.stack(self.frames))
        about = {
            "search": self._about,
            "best": {name: getattr(best, name) for name in ("index", "error", "loss", "seeds", "gradient")},
            "found": best.outcome.found,
            "history": self.history,
            "compute": asdict(self.sampler.compute),
            "scales": self.judge.scales,
            "rows": self.sampler.rows,
            "stopped": self.stopped,
            "waited": self._waited,
        }
        write_checkpoint(self.options.checkpoint, tensors, about)

    def _resume(self, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
        if about["search"] != self._about:
            raise InputError(f"{self.options.checkpoint} is of another search: give another file, or remove it")
        self.move.restore(_under("move.", tensors))
        best = {**about["best"], "seeds": tuple(about["best"]["seeds"])}
        outcome = Outcome(list(tensors["pixels"].numpy()), about["found"])
        self.best = Best(**best, outcome=outcome, learned=_under("best.", tensors))
        self.frames = list(tensors["frames"].numpy())
        self.history, self.stopped, self._waited = about["history"], about["stopped"], about["waited"]
        self.judge.scales, self.sampler.rows = about["scales"], about["rows"]
        self.sampler.compute = Compute(**about["compute"])


def _copies(tokens: Sequence[CountToken], noise: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Copies of everything that is learned."""
    copies = {
        f"{index}:{name}": vector.detach().clone()
        for index, token in enumerate(tokens)
        for name, vector in token.vectors.items()
    }
    return copies if noise is None else copies | {"noise": noise.detach().clone()}


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _describe(prompt: str, goal: Goal, seeds: Sequence[int], options: Options) -> dict[str, Any]:
    """What makes two searches the same, in JSON's own types."""
    values = {field.name: getattr(options, field.name) for field in fields(options) if field.name not in OBJECTS}
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {"prompt": prompt, "counts": dict(goal.counts), "seeds": list(seeds), **values}

"""A search for an exact count: the loop that all methods share.

    budget, best, waited = options.budget, None, 0
    repeat
        trial   = move.propose()                      # seeds, token, noise: what differs from method to method
        images  = sampler.draw(trial)                 # the pipeline as it is; with a graph where the method needs one
        counted = counter.detect(images)
        error   = mean(|counted - n|)
        loss    = |potential / scale - n| + weight (1 - cos(image, prompt));  loss.backward()   # with a graph, if wrong
        best    = the least of (error, loss), the earliest of equals
        stop if error = 0, if one more such trial would go beyond the budget, or if `patience` trials were no better
        move.learn(error, counted - n)                # AdamW, bisection, the next seed...

Where each line lives: `moves/` (propose, learn), `sampler.py` (draw), `objective.py` (count, loss), `formula.py` (the
terms of the loss), `search_state.py` (the file from which a killed search goes on to the same bytes).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from t2i_tools.counting.compute import Compute
from t2i_tools.counting.early_look import check_look
from t2i_tools.counting.hooks import count_token
from t2i_tools.counting.kept import kept_share
from t2i_tools.counting.look_record import LookRecords, Looks, as_rows
from t2i_tools.counting.moves.making import make_move
from t2i_tools.counting.objective import Objective, Outcome, Trial, mean
from t2i_tools.counting.options import CountOptions, Goal
from t2i_tools.counting.results import Result, Step, StepRow
from t2i_tools.counting.sampler import Sampler, frozen
from t2i_tools.counting.search_state import read_checkpoint, resuming, write_checkpoint
from t2i_tools.counting.strip import thumbnail
from t2i_tools.counting.token import CountToken
from t2i_tools.detectors import Counter
from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.images.eight_bits import eight_bits
from t2i_tools.images.generate import Request, check_request, generate_image
from t2i_tools.images.signature import call_default
from t2i_tools.models.anatomy import align

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

OBJECTS = ("guide", "clip", "vae", "checkpoint", "early_look")  # options that JSON does not hold


@dataclass(frozen=True)
class Best:
    """The step with the least error, then the least loss, then the earliest; and what was learned by then."""

    index: int
    error: float
    loss: float
    seeds: tuple[int, ...]
    gradient: bool
    plain: bool
    outcome: Outcome
    learned: dict[str, torch.Tensor]


class Search(Iterator[Step]):
    """Iterate for one `Step` per trial, or `run()`. `result()` may be called at any time after the first step."""

    def __init__(
        self,
        pipe: DiffusionPipeline,
        prompts: tuple[str, str],
        goal: Goal,
        counter: Counter,
        tokens: Sequence[CountToken],
        seeds: Sequence[int],
        options: CountOptions,
    ) -> None:
        """prompts: with the tokens' words, and as a person would say it."""
        if not seeds:
            raise InputError("no seeds were given: pass at least one")
        self.pipe, self.options, self.tokens = pipe, options, list(tokens)
        self.request = _request(prompts[0], seeds[0], options)
        check_request(pipe, self.request)
        self.sampler = _sampler(pipe, self.request, options)
        self.looks = _looks(pipe, seeds, options)
        self.objective = Objective(self.sampler, *prompts, goal, counter, options, self.looks)
        self.move = make_move(pipe, self.tokens, self.sampler, seeds, options)
        self.history: list[StepRow] = []
        self.frames: list[np.ndarray] = []
        self.best: Best | None = None
        self.plain: dict[int, dict[str, torch.Tensor]] = {}  # place in the batch -> boxes of the first plain image
        self.plain_pixels: list[np.ndarray] = []  # (H, W, 3) uint8 of the first plain images
        self.stopped: str | None = None
        self._waited, self._is_ready = 0, False
        self._about = _describe(self.request.prompt, goal, seeds, options)
        if options.checkpoint:
            self._open_checkpoint(Path(options.checkpoint))

    def __next__(self) -> Step:
        if self.stopped:
            raise StopIteration
        start = time.perf_counter()
        trial = self.move.propose()
        if self.best is None:  # there is always one image
            trial = replace(trial, whole=True)
        with self._ready():
            outcome = self.objective.evaluate(trial)
        goal = self.objective.goal
        error = sum(map(goal.error, outcome.counted)) / len(outcome.counted)
        is_better = self._keep_best(trial, outcome, error)
        self._keep_plain(trial, outcome)
        surplus, is_done = goal.surplus(outcome.counted), self._is_done(outcome, error)
        grad_norm = None if is_done else self.move.learn(error, surplus, not outcome.ended)
        step = self._note(trial, outcome, error, is_better, grad_norm, time.perf_counter() - start)
        self._decide(step, is_done)
        if self.options.checkpoint:
            self._save(self.options.checkpoint)
        return step

    def run(self, on_step: Callable[[Step], object] | None = None) -> Result:
        """Make all steps; Ctrl-C ends the search early and keeps the best so far."""
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
        """Return the best so far.

        Raises:
            InputError: the search has not made a step yet.
        """
        best = self.best
        if best is None:
            raise InputError("the search has not made a step yet")
        tokens = [
            replace(token, vectors={name: best.learned[f"{index}:{name}"].clone() for name in token.vectors})
            for index, token in enumerate(self.tokens)
        ]
        return Result(
            images=self._deliver(best, tokens),
            seeds=best.seeds,
            prompt=self.objective.plain if best.plain else self.request.prompt,
            counted=best.outcome.counted,
            error=best.error,
            exact=best.error == 0,
            tokens=tokens,
            latents=best.learned.get("noise"),
            history=list(self.history),
            frames=[Image.fromarray(frame) for frame in self.frames],
            best=best.index,
            stopped=self.stopped or "interrupted",
            compute=self.sampler.compute,
            image_passes=self.sampler.image_passes,
            kept=self._kept(best.outcome),
            plain=[Image.fromarray(pixels) for pixels in self.plain_pixels],
        )

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """The pipeline with the tokens, its weights asking for no gradient: for a step, or for all of a run at once,
        because tokenizers take long to forget a word."""
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

    def _keep_best(self, trial: Trial, outcome: Outcome, error: float) -> bool:
        """Note the trial if it is the best so far; returns whether it is."""
        if outcome.ended:  # its image is no image yet
            return False
        loss, by_loss = self._loss(outcome), self.options.best_by == "loss"
        if self.best is not None:
            before = (self.best.error, self.best.loss)
            if (loss, error) >= before[::-1] if by_loss else (error, loss) >= before:
                return False
        learned = _copies(self.tokens, trial.latents)
        self.best = Best(len(self.history), error, loss, trial.seeds, trial.gradient, trial.plain, outcome, learned)
        return True

    def _loss(self, outcome: Outcome) -> float:
        return sum(outcome.count_losses) + self.options.clip_weight * sum(outcome.clip_losses)

    def _is_done(self, outcome: Outcome, error: float) -> bool:
        """Whether nothing is left to better."""
        return error == 0 and (self.options.best_by == "error" or self._loss(outcome) == 0)

    def _keep_plain(self, trial: Trial, outcome: Outcome) -> None:
        """Note what the first trial shows where it is plain: the result is to say how much of it was kept."""
        if not self.history and (trial.plain or self.options.wordless or self._says_the_number()):
            self.plain, self.plain_pixels = dict(enumerate(outcome.boxes)), outcome.pixels

    def _says_the_number(self) -> bool:
        """Whether the tokens are at first read as the numbers' own words, by every encoder."""
        options = self.options
        is_word = options.start is None and options.vectors is None and not options.number
        return is_word and all(token.length == 1 or len(token.vectors) == 1 for token in self.tokens)

    def _kept(self, outcome: Outcome) -> float | None:
        """The share of the first plain images' objects that the best ones still have, whatever their seeds."""
        shares = [kept_share(self.plain.get(place), boxes) for place, boxes in enumerate(outcome.boxes)]
        return mean([share for share in shares if share is not None])

    def _note(
        self, trial: Trial, outcome: Outcome, error: float, best: bool, grad_norm: float | None, seconds: float
    ) -> Step:
        self.sampler.compute.seconds += seconds
        step = Step(
            index=len(self.history),
            seeds=trial.seeds,
            images=outcome.images(),
            counted=outcome.counted,
            error=error,
            exact=error == 0,
            best=best,
            look=outcome.look,
            ended=outcome.ended,
            potential=outcome.potential or None,
            scale=outcome.scale or None,
            count_loss=mean(outcome.count_losses),
            clip_loss=mean(outcome.clip_losses),
            grad_norm=grad_norm,
            seconds=round(seconds, 3),
            passes=self.sampler.compute.passes,
        )
        self.history.append(step.as_dict())
        self.frames.append(np.asarray(thumbnail(step.image)))
        return step

    def _decide(self, step: Step, is_done: bool) -> None:
        """Decide whether that was the last step."""
        self._waited = 0 if step.best else self._waited + 1
        is_stale = self._waited >= self.options.patience
        if is_done:
            self.stopped = "exact"
        elif self.move.once:
            self.stopped = "done"
        elif len(self.history) == self.options.max_trials:
            self.stopped = "trials"
        elif self._is_spent(step):
            self.stopped = "budget"
        elif is_stale and not self.move.restart():
            self.stopped = "patience"
        elif is_stale:
            self._waited = 0

    def _is_spent(self, step: Step) -> bool:
        """Whether one more step like this one, or one that no look ends, would go beyond the budget."""
        before = self.history[-2]["passes"] if len(self.history) > 1 else 0
        image = self.sampler.image_passes * len(step.seeds)
        look = math.ceil(image * self.looks.expected_cost) if self.looks and self.looks.reach() is not None else 0
        return step.passes + max(step.passes - before, image + look) > self.options.budget * image

    def _deliver(self, best: Best, tokens: list[CountToken]) -> list[Image.Image]:
        """Return the best images, drawn again by the pipeline's VAE where the search used another one."""
        if not best.gradient or self.options.vae is None:
            return best.outcome.images()
        with ExitStack() as stack:
            for token in tokens:
                stack.enter_context(count_token(self.pipe, token))
            if "noise" in best.learned:
                drawn = self.sampler.draw(self.request.prompt, best.seeds, best.learned["noise"])
                return [Image.fromarray(one) for one in eight_bits(drawn).permute(0, 2, 3, 1).cpu().numpy()]
            return [generate_image(self.pipe, replace(self.request, seed=seed)) for seed in best.seeds]

    def _open_checkpoint(self, path: Path) -> None:
        align(self.pipe)  # another process is to get the same bits
        if path.exists():
            tensors, about = read_checkpoint(path)
            with resuming(path):
                self._resume(tensors, about)

    def _save(self, path: str | os.PathLike[str]) -> None:
        best = self.best
        assert best is not None  # no look ends the first trial
        tensors = {f"move.{name}": value for name, value in self.move.state().items()}
        tensors |= {f"best.{name}": value for name, value in best.learned.items()}
        tensors["pixels"] = torch.from_numpy(np.stack(best.outcome.pixels))
        tensors["frames"] = torch.from_numpy(np.stack(self.frames))
        tensors |= {f"boxes.{i}.{c}": boxes for i, one in enumerate(best.outcome.boxes) for c, boxes in one.items()}
        tensors |= {f"plain.{i}.{c}": boxes for i, one in self.plain.items() for c, boxes in one.items()}
        tensors |= {"plain_pixels": torch.from_numpy(np.stack(self.plain_pixels))} if self.plain_pixels else {}
        about = {
            "search": self._about,
            "best": {name: getattr(best, name) for name in ("index", "error", "loss", "seeds", "gradient", "plain")},
            "counted": best.outcome.counted,
            "history": self.history,
            "compute": asdict(self.sampler.compute),
            "scales": self.objective.scales,
            "image_passes": self.sampler.image_passes,
            "stopped": self.stopped,
            "waited": self._waited,
            "looks": self.looks and {"record": as_rows(self.looks.record), "cost": self.looks.cost},
        }
        write_checkpoint(path, tensors, about)

    def _resume(self, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
        if about["search"] != self._about:
            raise InputError(f"{self.options.checkpoint} is of another search: give another file, or remove it")
        self.move.restore(_under("move.", tensors))
        best = {**about["best"], "seeds": tuple(about["best"]["seeds"])}
        boxes = _nested(_under("boxes.", tensors))
        outcome = Outcome(list(tensors["pixels"].numpy()), about["counted"], boxes=[boxes[i] for i in sorted(boxes)])
        self.plain = _nested(_under("plain.", tensors))
        self.plain_pixels = list(tensors["plain_pixels"].numpy()) if "plain_pixels" in tensors else []
        if self.looks:
            vars(self.looks.record).update(about["looks"]["record"])
            self.looks.cost = about["looks"]["cost"]
        self.best = Best(**best, outcome=outcome, learned=_under("best.", tensors))
        self.frames = list(tensors["frames"].numpy())
        self.history, self.stopped, self._waited = about["history"], about["stopped"], about["waited"]
        self.objective.scales, self.sampler.image_passes = about["scales"], about["image_passes"]
        self.sampler.compute = Compute(**about["compute"])


def _request(prompt: str, seed: int, options: CountOptions) -> Request:
    return Request(prompt, seed, options.negative, options.size, steps=options.steps, guidance=options.guidance)


def _sampler(pipe: DiffusionPipeline, request: Request, options: CountOptions) -> Sampler:
    return Sampler(
        pipe,
        request,
        grad_steps=options.graph_steps,
        grad_where=options.grad_where,
        checkpointing=options.checkpointing,
        vae=options.vae,
    )


def _looks(pipe: DiffusionPipeline, seeds: Sequence[int], options: CountOptions) -> Looks | None:
    """The early looks of a search. Raises UnsupportedModelError where they are asked for and cannot be."""
    if options.early_look is False:
        return None
    if len(seeds) > 1:
        raise UnsupportedModelError("an early look needs a search of one seed: it cannot end a batch for one image")
    if options.gradient and "best_of" not in options.method:
        raise UnsupportedModelError(f"method {options.method!r} needs whole images for its gradient: no early look")
    steps = options.steps or call_default(pipe, "num_inference_steps")
    check_look(pipe, steps)
    records = options.early_look if isinstance(options.early_look, LookRecords) else LookRecords()
    return Looks(records.of(pipe, steps), options.look_at, options.look_cost)


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


def _nested(tensors: Mapping[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    """ "3.apple" -> boxes as 3 -> apple -> boxes."""
    nested: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, _, label = key.partition(".")
        nested.setdefault(int(index), {})[label] = value
    return nested


def _describe(prompt: str, goal: Goal, seeds: Sequence[int], options: CountOptions) -> dict[str, Any]:
    """What makes two searches the same, in JSON's own types."""
    values = {field.name: getattr(options, field.name) for field in fields(options) if field.name not in OBJECTS}
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    about = {"prompt": prompt, "counts": dict(goal.counts), "seeds": list(seeds), **values}
    return about | {"early_look": options.early_look is not False}

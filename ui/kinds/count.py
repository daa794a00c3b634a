"""Images with exactly so many objects: a search that a detector drives, beside the plain image and other seeds."""

import random
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from t2i_tools.cli.detect import annotated, open_detector
from t2i_tools.cli.generate import image_settings, with_defaults
from t2i_tools.cli.judges import judge_on
from t2i_tools.errors import InputError
from t2i_tools.generation import MAX_SEED, Request, generate_image
from t2i_tools.imagefile import save_image
from t2i_tools.sizes import parse_size
from t2i_tools.ui.options import AppOptions
from t2i_tools.ui.preview import data_url
from t2i_tools.ui.shelf import Choice, Shelf, pick, token_on, token_settings
from t2i_tools.ui.values import Guidance, Name, Prompt, Seed, Steps, Values, check_at_most, check_size

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.cli.options import ModelOptions
    from t2i_tools.counting import Result, Step
    from t2i_tools.detectors import Counter
    from t2i_tools.ui.worker import Bench

Method = Literal["plain", "best_of", "token", "token+best_of"]
STRIP = 60


class CountValues(Values):
    """Images that hold n objects of a class. prompt: "{count}" stands for the token and the number. budget: in plain
    images' worth of denoising, for each image. until_exact: go on with other seeds until `number` images are exact, or
    all budgets are spent. compare: also the plain image and the best of other seeds. The detector steers, the judge
    only counts.
    """

    prompt: Prompt = "a photo of {count} cats"
    label: Name = "cat"
    n: Annotated[int, Field(ge=1, le=100)] = 3
    method: Method = "token+best_of"
    budget: Annotated[int, Field(ge=1)] = 20
    number: Annotated[int, Field(ge=1)] = 1
    until_exact: bool = False
    compare: bool = False
    size: Name | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    negative: Prompt | None = None
    seed: Seed | None = None
    model: Name = ""
    detector: Name = "bundled"
    judge: Name = "bundled"

    def settled(self, options: AppOptions, shelf: Shelf) -> "CountValues":
        """With a seed, and checked as far as that goes without the model."""
        if "{count}" not in self.prompt:
            raise InputError('the prompt has no "{count}", where the number of objects goes')
        check_size(self.size, options.limits)
        check_at_most("steps", self.steps, options.limits.steps)
        check_at_most("number", self.number, options.limits.images)
        check_at_most("budget", self.budget, options.limits.budget)
        pick(self.detector, shelf.detectors(), "detector")
        pick(self.judge, shelf.judges(), "judge")
        shelf.check(Choice(self.model))
        seed = random.randrange(2**32) if self.seed is None else self.seed
        values = self.model_copy(update={"seed": min(seed, MAX_SEED - self.number)})
        values.request()
        return values

    def request(self) -> Request:
        """The image, but for what stands for the number."""
        size = self.size and parse_size(self.size)
        return Request(self.prompt, self.seed, self.negative, size, steps=self.steps, guidance=self.guidance)

    def methods(self) -> list[Method]:
        """Those to run for each seed."""
        return list(dict.fromkeys(["plain", "best_of", self.method])) if self.compare else [self.method]


def run(values: CountValues, bench: "Bench") -> None:
    """One image a seed and method, each with what detector and judge count in it; a cancelled search keeps its best."""
    bench.result = {"files": [], "images": [], "strip": []}
    with bench.pipeline(Choice(values.model)) as (pipe, options):
        counter, judge = open_detector(values.detector, values.label, None, None), _judge(values)
        request = with_defaults(values.request(), pipe, options.model)
        bench.live.tell(0, 0, "drawing")
        task = Task(values, bench, pipe, options, request, counter, judge)
        spent = 0.0
        for place in range(10 * values.number):
            exact = [row for row in task.rows if row["method"] == values.method and row["exact"]]
            enough = len(exact) if values.until_exact else place
            if enough >= values.number or spent >= values.number * values.budget:
                break
            for method in values.methods():
                worth = task.search(method, request.seed + place)
                spent += worth if method == values.method else 0


class Task:
    """The searches of one job, with what they share."""

    def __init__(
        self,
        values: CountValues,
        bench: "Bench",
        pipe: "DiffusionPipeline",
        options: "ModelOptions",
        request: Request,
        counter: "Counter",
        judge: "Counter",
    ):
        self.values, self.bench, self.pipe, self.options = values, bench, pipe, options
        self.request, self.counter, self.judge = request, counter, judge
        self.rows: list[dict[str, Any]] = bench.result["images"]

    def search(self, method: Method, seed: int) -> float:
        """Search from one seed and keep the best; what it cost, in plain images' worth."""
        from t2i_tools.counting import optimize_count

        values, bench = self.values, self.bench
        checkpoint = bench.folder / f".{method}-{seed}.safetensors"
        bench.folder.mkdir(parents=True, exist_ok=True)
        options = {"method": method, "budget": float(values.budget), "size": self.request.size}
        options |= {"steps": self.request.steps, "guidance": self.request.guidance, "negative": self.request.negative}
        options |= {"checkpoint": checkpoint, "label": values.label, "seeds": (seed,)}
        search = optimize_count(self.pipe, values.prompt, values.n, self.counter, **options)
        result = search.run(partial(self._tell, method, seed))
        self._deliver(method, seed, result)
        checkpoint.unlink(missing_ok=True)
        if result.stopped == "interrupted":
            bench.cancelled()
        return result.compute.passes / max(1, search.sampler.rows)

    def _deliver(self, method: Method, seed: int, result: "Result") -> None:
        """Draw the best again as the Generate page would, so that its file makes the same bytes there, and count."""
        number = len(self.rows) + 1
        stem = f"{number:02}-{re.sub('[^a-z]+', '-', method)}-{self.values.n}-{result.seeds[0]}"
        token_file, token_name = None, None
        if result.token is not None:
            token_name = f"{re.sub(r'[^a-z0-9]+', '-', self.values.label.lower())}-{self.values.n}"
            token_name += f"-{seed}-{self.bench.job.id[:6]}"
            token_file = self.bench.shelf.own_tokens / f"{token_name}.safetensors"
            result.token.save(token_file)
        request = replace(self.request, prompt=result.prompt, seed=result.seeds[0])
        with token_on(self.pipe, token_file):
            image = generate_image(self.pipe, request)
        settings = image_settings(self.pipe, self.options, request) | token_settings(token_file)
        path = self.bench.folder / f"{stem}.png"
        save_image(image, path, settings | {"width": image.width, "height": image.height})
        (found,) = self.counter.detect([image], self.values.label)
        (judged,) = self.judge.detect([image], self.values.label)
        row = {"method": method, "seed": request.seed, "counted": found.count, "judged": judged.count}
        row |= {"exact": found.count == self.values.n, "steps": len(result.history), "stopped": result.stopped}
        self.rows.append({**row, "passes": result.compute.passes, "token": token_name})
        self.bench.result["files"].append(self.bench.name(path))
        self.bench.live.files.append(path)

    def _tell(self, method: Method, seed: int, step: "Step") -> None:
        (found,) = self.counter.detect([step.image], self.values.label)
        event = {"step": step.index, "method": method, "seed": step.seeds[0], "count": step.count}
        event |= {"loss": step.count_loss, "best": step.best, "image": data_url(annotated(step.image, found), 160)}
        strip = self.bench.result["strip"]
        strip.append(event)
        del strip[:-STRIP]
        self.bench.live.events.append({"step": step.index})
        self.bench.live.strip = strip
        self.bench.live.tell(0, 0, f"{method}, seed {seed}: step {step.index + 1}, {step.count} counted")


def _judge(values: CountValues) -> "Counter":
    return judge_on(values.judge, None, (values.label,), None)

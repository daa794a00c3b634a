"""Images with exactly so many objects: searches that a detector drives, beside the plain image and other seeds."""

import random
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from PIL import Image
from pydantic import Field

from t2i_tools.cli.count import DEFAULT_BUDGET, DEFAULT_METHOD, METHODS, default_template, goal_of, usual
from t2i_tools.cli.counting import tally, yield_line
from t2i_tools.cli.detect import annotated, open_detector
from t2i_tools.cli.generate import image_settings
from t2i_tools.cli.judges import judge_on
from t2i_tools.cli.outputs import slug
from t2i_tools.default.scenes import plural
from t2i_tools.errors import InputError
from t2i_tools.generation import MAX_SEED, Request
from t2i_tools.imagefile import read_settings
from t2i_tools.sizes import parse_size
from t2i_tools.ui.noise import keep_noise
from t2i_tools.ui.options import AppOptions
from t2i_tools.ui.preview import data_url
from t2i_tools.ui.shelf import Choice, Shelf, pick, token_settings
from t2i_tools.ui.values import Guidance, Name, Prompt, Seed, Steps, Values, check_at_most, check_size

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.cli.options import ModelOptions
    from t2i_tools.counting import Result, Step
    from t2i_tools.counting.job import Job
    from t2i_tools.detectors import Counter
    from t2i_tools.ui.worker import Bench

Method = Literal[METHODS]
Label = Annotated[str, Field(min_length=1, max_length=100, pattern="^[^{}]+$")]
STRIP, CLASSES = 60, 4


class CountValues(Values):
    """Images that hold exactly so many objects. counts: class -> number. prompt: "{count}" stands where the number
    goes, or "{cat}" and "{dog}" with several classes; by default "a photo of {count} cats". budget: in plain images'
    worth of denoising, for each image. until_exact: go on with other seeds until `number` images are exact, or all
    budgets are spent. compare: also the plain image and the best of other seeds. The detector steers, the judge only
    counts.
    """

    counts: Annotated[dict[Label, Annotated[int, Field(ge=1, le=100)]], Field(min_length=1, max_length=CLASSES)] = {
        "cat": 3
    }
    prompt: Prompt | None = None
    method: Method = DEFAULT_METHOD
    budget: Annotated[int, Field(ge=1)] = int(DEFAULT_BUDGET)
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
        """With prompt and seed, and checked as far as that goes without the model."""
        prompt = self.prompt or usual_prompt(self.counts)
        for name in ["count"] if len(self.counts) == 1 else self.counts:
            if f"{{{name}}}" not in prompt:
                raise InputError(f'the prompt has no "{{{name}}}", where the number of objects goes')
        check_size(self.size, options.limits)
        check_at_most("steps", self.steps, options.limits.steps)
        check_at_most("number", self.number, options.limits.images)
        check_at_most("budget", self.budget, options.limits.budget)
        pick(self.detector, shelf.detectors(), "detector")
        pick(self.judge, shelf.judges(), "judge")
        shelf.check(Choice(self.model))
        seed = random.randrange(2**32) if self.seed is None else self.seed
        values = self.model_copy(update={"prompt": prompt, "seed": min(seed, MAX_SEED - self.number)})
        values.request()
        return values

    def request(self) -> Request:
        """The image, but for what stands for the number."""
        size = self.size and parse_size(self.size)
        return Request(self.prompt, self.seed, self.negative, size, steps=self.steps, guidance=self.guidance)

    def methods(self) -> list[Method]:
        """Those to run, the one that is asked for last."""
        return list(dict.fromkeys(["plain", "best_of", self.method])) if self.compare else [self.method]


def run(values: CountValues, bench: "Bench") -> None:
    """The searches of every method; each goes on where it was, and a cancelled one keeps its best."""
    from t2i_tools.counting.job import run_job

    with bench.pipeline(Choice(values.model)) as (pipe, options):
        bench.live.tell(0, 0, "drawing")
        counter = open_detector(values.detector, tuple(values.counts), None, None)
        judge = judge_on(values.judge, None, tuple(values.counts), None)
        searches = Searches(values, bench, pipe, options, counter, judge)
        try:
            for method in values.methods():
                job, folder = searches.job(method), bench.folder / method
                about, tell = partial(searches.settings, job), partial(searches.tell, job)
                for row in run_job(pipe, counter, job, folder, about, tell):
                    searches.take(method, row)
        except KeyboardInterrupt:
            bench.cancelled()


class Searches:
    """What the searches of one job have in common, and what is told of them."""

    def __init__(
        self,
        values: CountValues,
        bench: "Bench",
        pipe: "DiffusionPipeline",
        options: "ModelOptions",
        counter: "Counter",
        judge: "Counter",
    ):
        self.values, self.bench, self.pipe, self.options = values, bench, pipe, options
        self.counter, self.judge = counter, judge
        self.rows: list[dict[str, Any]] = []  # of the present method, as the library gives them
        bench.result = {"files": [], "images": [], "strip": []}
        bench.live.strip = bench.result["strip"]

    def job(self, method: Method) -> "Job":
        """One method's part. Only the method that is asked for goes on until its images are exact."""
        from t2i_tools.counting.job import Job

        values, self.rows = self.values, []
        given = {name: getattr(values, name) for name in ("steps", "guidance", "negative")}
        search = usual(self.pipe, self.options.model) | {k: v for k, v in given.items() if v is not None}
        search |= {"method": method, "budget": float(values.budget), "size": values.request().size}
        return Job(
            name=slug(" ".join(f"{n} {label}" for label, n in values.counts.items())),
            template=values.prompt,
            goal=goal_of(dict(values.counts), None),
            seed=values.seed,
            number=values.number,
            until_exact=values.until_exact and method == values.method,
            options=search,
            about={"model": self.options.model, "detector": values.detector},
        )

    def settings(self, job: "Job", result: "Result") -> dict[str, Any]:
        """For the image's file: with what the search has learned, kept where the Generate page finds it."""
        shelf, files = self.bench.shelf, []
        for token in result.tokens:
            name = f"{slug(token.label)}-{token.n}-{result.history[0]['seeds'][0]}-{self.bench.job.id[:6]}"
            files.append(shelf.own_tokens / f"{name}.safetensors")
            token.save(files[-1])
        noise = {} if result.latents is None else {"noise": {"sha256": keep_noise(self.bench.output, result.latents)}}
        width, height = result.images[0].size
        size = {"width": width, "height": height}
        return image_settings(self.pipe, self.options, job.request(result)) | token_settings(files) | noise | size

    def take(self, method: Method, row: Mapping[str, Any]) -> None:
        """Note an image that is finished."""
        path, bench = self.bench.folder / method / row["file"], self.bench
        with Image.open(path) as image:
            judged = {label: self.judge.detect([image], label)[0].count for label in self.values.counts}
            tokens = [Path(one["file"]).stem for one in read_settings(path).get("count_token", ())]
        told = {"method": method, "seed": row["seed"], "counted": spoken(row["found"]), "judged": spoken(judged)}
        told |= {"exact": row["exact"], "steps": len(row["history"]), "stopped": row["stopped"]}
        bench.result["images"].append({**told, "passes": row["compute"]["passes"], "tokens": tokens})
        bench.result["files"].append(bench.name(path))
        bench.live.files.append(path)
        self.rows.append(dict(row))

    def tell(self, job: "Job", place: int, step: "Step") -> None:
        """One step more: for the strip, the charts and the status line."""
        method, image = job.options["method"], step.image
        for label in self.values.counts:
            image = annotated(image, self.counter.detect([step.image], label)[0])
        found = spoken(step.found[0])
        event = {"step": step.index, "method": method, "seed": step.seeds[0], "count": step.count, "found": found}
        event |= {"loss": step.count_loss, "best": step.best, "image": data_url(image, 160)}
        strip, live = self.bench.result["strip"], self.bench.live
        strip.append(event)
        del strip[:-STRIP]
        live.events.append({"step": step.index})
        so_far = f"{yield_line(self.rows, job.number)} · " if job.until_exact and self.rows else ""
        live.tell(0, 0, f"{so_far}{method}, image {place + 1}, step {step.index + 1}: {found} counted")


def spoken(found: Mapping[str, int]) -> str:
    """ "3", or "cat: 3, dog: 2" where there are several classes."""
    return str(next(iter(found.values()))) if len(found) == 1 else tally(found)


def usual_prompt(counts: Mapping[str, int]) -> str:
    """ "a photo of {count} cats", where one is wanted "a photo of {count} cat"."""
    return default_template(counts, lambda label: label if counts[label] == 1 else plural(label))

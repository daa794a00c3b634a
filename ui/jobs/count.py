"""Images with exactly so many objects: searches that a detector drives, beside the plain image and other seeds."""

import hashlib
import itertools
import random
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from PIL import Image
from pydantic import Field

from t2i_tools.bundled.scenes import plural
from t2i_tools.counting.methods import DEFAULT_BUDGET, DEFAULT_METHOD, METHODS
from t2i_tools.images.generate import MAX_SEED, Request
from t2i_tools.images.metadata import read_settings
from t2i_tools.workflows.count import default_template, goal_of, tally, usual_settings, yield_line
from t2i_tools.workflows.detectors import COUNTER, JUDGES, check_apart, draw_boxes, judge_on, open_detector
from t2i_tools.workflows.outputs import slug
from t2i_tools.workflows.settings import image_settings

from ..errors import FieldError
from ..learned_noise import keep_noise
from ..objects import count_objects
from ..options import AppOptions
from ..preview import data_url
from ..registry import Choice, Registry, look_up, token_settings
from ..values import Guidance, JobValues, Name, Prompt, Seed, Steps, check_at_most, check_size, size_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.counting import CountToken, Result, Step
    from t2i_tools.counting.count_run import CountRun
    from t2i_tools.detectors import Counter
    from t2i_tools.workflows.open_model import ModelOptions

    from ..job_context import JobContext
    from ..queue import Job

    Method = str
else:
    Method = Literal[tuple(METHODS)]

Label = Annotated[str, Field(min_length=1, max_length=100, pattern="^[^{}]+$")]
STRIP, CLASSES = 60, 4


class CountValues(JobValues):
    """Images that hold exactly so many objects. counts: class -> number. prompt: "{count}" stands where the number
    goes, or "{cat}" and "{dog}" with several classes; by default "a photo of {count} cats". budget: in plain images'
    worth of denoising, for each image. until_exact: go on with other seeds until `number` images are exact, or all
    budgets are spent. compare: afterwards also the plain image and the best of other seeds. after: a search of the same
    values by its job's id, which is not made again, to compare. keep_tokens: also of searches that ended without the
    exact number. token_name: under which they are kept; by default made from class, number and seed. The detector
    steers, the judge only counts.
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
    after: Annotated[str, Field(pattern="^[0-9a-f]{16}$")] | None = None
    keep_tokens: bool = False
    token_name: Annotated[str, Field(max_length=40)] | None = None
    size: Name | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    negative: Prompt | None = None
    seed: Seed | None = None
    model: Name = ""
    detector: Name = COUNTER
    judge: Name = JUDGES[0]

    def validated(self, options: AppOptions, registry: Registry) -> "CountValues":
        """With prompt and seed, and checked as far as that goes without the model."""
        prompt = self.prompt or usual_prompt(self.counts)
        for name in ["count"] if len(self.counts) == 1 else self.counts:
            if f"{{{name}}}" not in prompt:
                raise FieldError("prompt", f'the prompt has no "{{{name}}}", where the number of objects goes')
        check_size(self.size, options.limits)
        check_at_most("steps", self.steps, options.limits.steps)
        check_at_most("number", self.number, options.limits.images)
        check_at_most("budget", self.budget, options.limits.budget)
        look_up(self.detector, registry.detectors(), "detector")
        look_up(self.judge, registry.judges(), "judge")
        registry.check(Choice(self.model))
        seed = random.randrange(2**32) if self.seed is None else self.seed
        values = self.model_copy(update={"prompt": prompt, "seed": min(seed, MAX_SEED - self.number)})
        values.request()
        return values

    def request(self) -> Request:
        """The image, but for what stands for the number."""
        size = size_of(self.size)
        prompt, seed = self.prompt or usual_prompt(self.counts), self.seed or 0  # both are filled in by `validated`
        return Request(prompt, seed, self.negative, size, steps=self.steps, guidance=self.guidance)

    def methods(self) -> list[Method]:
        """Those to run, the one that is asked for first."""
        return list(dict.fromkeys([self.method, "plain", "best_of"])) if self.compare else [self.method]


def run(values: CountValues, context: "JobContext") -> None:
    """The searches of every method; each goes on where it was, and a cancelled one keeps its best."""
    from t2i_tools.counting.count_run import run_searches

    if values.after and (earlier := context.earlier(values.after)):
        take_over(values, context, earlier)
    with context.pipeline(Choice(values.model)) as (pipe, options):
        context.progress.report(0, 0, "drawing")
        counter = open_detector(values.detector, tuple(values.counts), None, None)
        judge = judge_on(values.judge, None, tuple(values.counts), None)
        check_apart(counter, judge)
        searches = Searches(values, context, pipe, options, counter, judge)
        try:
            for method in values.methods():
                job, folder = searches.job(method), context.folder / method
                about, report = partial(searches.settings, job), partial(searches.report, job)
                for row in run_searches(pipe, counter, job, folder, about, report):
                    searches.take(method, row)
        except KeyboardInterrupt:
            context.raise_cancelled()


def take_over(values: CountValues, context: "JobContext", earlier: "Job") -> None:
    """Copy a search of the same values, so that it is read and not made again."""
    source, target = (context.output / "files" / job.folder / values.method for job in (earlier, context.job))
    same = {**earlier.asked, "compare": True, "after": values.after} == context.job.asked
    if same and source.is_dir() and not target.exists():
        part = target.with_name(f"{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source, part)
        part.rename(target)
        context.strip = list(earlier.result.get("strip", ()))


class Searches:
    """What the searches of one job have in common, and how they are reported."""

    def __init__(
        self,
        values: CountValues,
        context: "JobContext",
        pipe: "DiffusionPipeline",
        options: "ModelOptions",
        counter: "Counter",
        judge: "Counter",
    ):
        self.values, self.context, self.pipe, self.options = values, context, pipe, options
        self.counter, self.judge = counter, judge
        self.rows: list[dict[str, Any]] = []  # of the present method, as the library gives them
        context.result = {"files": [], "images": [], "strip": list(context.job.result.get("strip", context.strip))}
        context.progress.strip = context.result["strip"]

    def job(self, method: Method) -> "CountRun":
        """One method's part. Only the method that is asked for goes on until its images are exact."""
        from t2i_tools.counting.count_run import CountRun

        values, request, self.rows = self.values, self.values.request(), []
        image_options = {name: getattr(values, name) for name in ("steps", "guidance", "negative")}
        search = usual_settings(self.pipe, self.options.model) | {
            k: v for k, v in image_options.items() if v is not None
        }
        search |= {"method": method, "budget": float(values.budget), "size": request.size}
        return CountRun(
            name=slug(" ".join(f"{n} {label}" for label, n in values.counts.items())),
            template=request.prompt,
            goal=goal_of(dict(values.counts), None),
            seed=request.seed,
            number=values.number,
            until_exact=values.until_exact and method == values.method,
            options=search,
            about={"model": self.options.model, "detector": values.detector},
        )

    def settings(self, job: "CountRun", result: "Result") -> dict[str, Any]:
        """For the image's file: with what the search has learned, kept where the Generate page finds it."""
        registry, files = self.context.registry, []
        kept = result.tokens if result.exact or self.values.keep_tokens else ()
        for token in kept:
            files.append(registry.owner_tokens / f"{self._token_name(token, result)}.safetensors")
            token.save(files[-1])
        noise = {} if result.latents is None else {"noise": {"sha256": keep_noise(self.context.output, result.latents)}}
        width, height = result.images[0].size
        size = {"width": width, "height": height}
        return image_settings(self.pipe, self.options, job.request(result)) | token_settings(files) | noise | size

    def _token_name(self, token: "CountToken", result: "Result") -> str:
        """The name that was given, numbered where it is taken; else one of class, number and seed."""
        if not self.values.token_name:
            mark = hashlib.sha256(self.context.job.id.encode()).hexdigest()[:6]  # whoever knows the id has the job
            return f"{slug(token.label)}-{token.n}-{result.history[0]['seeds'][0]}-{mark}"
        several, taken = len(self.values.counts) > 1, self.context.registry.tokens()
        first = slug(f"{self.values.token_name} {token.label}" if several else self.values.token_name)
        numbered = (f"{first}-{number}" for number in itertools.count(2))
        return next(name for name in itertools.chain([first], numbered) if name not in taken)

    def take(self, method: Method, row: Mapping[str, Any]) -> None:
        """Note an image that is finished."""
        path, context = self.context.folder / method / row["file"], self.context
        with Image.open(path) as image:
            objects = count_objects(image, self.values.counts, self.judge)
            judged = {one["label"]: one["counted"] for one in objects}
            settings = read_settings(path)
            tokens = [Path(one["file"]).stem for one in settings.get("count_token", ())]
        summary = {"method": method, "seed": row["seed"], "counted": count_text(row["counted"])}
        summary |= {"judged": count_text(judged), "exact": row["exact"], "steps": len(row["history"])}
        summary |= {"stopped": row["stopped"], "passes": row["compute"]["passes"], "tokens": tokens, "objects": objects}
        summary |= {"noise": settings["noise"]["sha256"]} if "noise" in settings else {}
        context.result["images"].append(summary)
        context.result["files"].append(context.name(path))
        context.progress.files.append(path)
        self.rows.append(dict(row))

    def report(self, job: "CountRun", place: int, step: "Step") -> None:
        """One step more: for the strip, the charts and the status line."""
        values, method, image = self.values, job.options["method"], step.image
        for label in values.counts:
            found = self.counter.detect([step.image], label)[0]
            image = draw_boxes(image, found, names=False)  # which would hide small objects
        counted = count_text(step.counted[0])
        event = {"step": step.index, "method": method, "seed": step.seeds[0], "count": step.count, "found": counted}
        event |= {"loss": step.count_loss, "best": step.best, "image": data_url(image, 160)}
        event |= {"counted": step.counted[0], "exact": step.exact}
        strip, progress = self.context.result["strip"], self.context.progress
        strip.append(event)
        if len(strip) > STRIP:  # the charts show all trials, the strip the latest
            strip[-STRIP - 1]["image"] = ""
        progress.events.append({"step": step.index})
        so_far = f"{yield_line(self.rows, job.number)} · " if job.until_exact and self.rows else ""
        self.context.pause()  # nothing of a search is lost between its trials
        trials, images = values.budget, values.number
        which = f"image {place + 1}, " if images > 1 else ""
        note = f"{so_far}{which}trial {step.index + 1} of at most {trials}: {counted} counted"
        compared = "" if method == values.method else f", to compare: {method.replace('_', ' ')}"
        progress.at_most = True
        progress.report(place * trials + step.index + 1, images * trials, note + compared)


def count_text(found: Mapping[str, int]) -> str:
    """ "3", or "cat: 3, dog: 2" where there are several classes."""
    return str(next(iter(found.values()))) if len(found) == 1 else tally(found)


def usual_prompt(counts: Mapping[str, int]) -> str:
    """ "a photo of {count} cats", where one is wanted "a photo of {count} cat"."""
    return default_template(counts, lambda label: label if counts[label] == 1 else plural(label))

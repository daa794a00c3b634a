"""What the padding of prompts does: images under interventions, their scores, and a verdict in words."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from t2i_tools.images.generate import Request, check_request
from t2i_tools.images.guidance import guidance_arguments
from t2i_tools.images.metadata import save_image
from t2i_tools.workflows.detectors import JUDGES, clip_on, judge_on
from t2i_tools.workflows.open_model import BUNDLED, BUNDLED_FORMS
from t2i_tools.workflows.probe import default_rows
from t2i_tools.workflows.settings import with_defaults

from ..errors import FieldError, at_field
from ..options import AppOptions
from ..registry import Choice, Registry, look_up
from ..values import Guidance, JobValues, Name, Prompt, Seed, Steps, check_at_most, check_prompt, check_size, size_of

if TYPE_CHECKING:
    from t2i_tools.padding.probe import Probe

    from ..job_context import JobContext

USUAL = ["full", "prompt", "pads", "clean", "swapped"]
ALWAYS = ("full", "prompt", "pads", "clean")
KEPT_IMAGES = 4
BATCH = 8  # conditions in one call of the bundled model; a larger model may not have the memory


class ProbeValues(JobValues):
    """A probe of the padding. prompts: 8 or more for a verdict, better 16. conditions: what keeps its own rows of text,
    "full", "prompt", "pads", "clean", "eos", "swapped", "noise", "pads:1/5", "random:10" or "rows:0-5". clip: scores.
    """

    prompts: Annotated[list[Prompt], Field(max_length=10_000)] = []
    seeds: Annotated[int, Field(ge=1, le=100)] = 1
    seed: Seed = 0
    conditions: Annotated[list[Name], Field(max_length=32)] = USUAL
    size: Name | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    model: Name = ""
    clip: Name = BUNDLED

    def keeps(self) -> list[Any]:
        """The conditions. Raises InputError."""
        from t2i_tools.padding.conditions import parse_condition

        return [parse_condition(text) for text in self.conditions]

    def planned(self) -> list[Request]:
        """One per prompt, seed and condition; four conditions are always run."""
        size = size_of(self.size)
        runs = self.seeds * len({*self.keeps(), *ALWAYS})
        return [Request(prompt, 0, size=size, steps=self.steps) for prompt in self.prompts for _ in range(runs)]

    def validated(self, options: AppOptions, registry: Registry) -> "ProbeValues":
        """Checked as far as that goes without the model."""
        if not self.prompts:
            raise FieldError("prompts", "there is nothing to probe: give one prompt per line")
        check_size(self.size, options.limits)
        check_at_most("steps", self.steps, options.limits.steps)
        with at_field("conditions"):
            conditions = self.keeps()
        with at_field("prompts"):
            check_at_most("images", len(self.prompts) * self.seeds * max(4, len(conditions)), options.limits.items)
        look_up(self.clip, registry.clips(), "CLIP")
        registry.check(Choice(self.model))
        with at_field("prompts"):
            for prompt in self.prompts:
                check_prompt(prompt)
        return self


def run(values: ProbeValues, context: "JobContext") -> None:
    """Images of the first prompts under each condition, a table with intervals, and the verdict."""
    from t2i_tools.models.prompts import token_spans
    from t2i_tools.padding.probe import probe_padding

    with context.pipeline(Choice(values.model)) as (pipe, options):
        size = size_of(values.size)
        request = Request(values.prompts[0], values.seed, size=size, steps=values.steps, guidance=values.guidance)
        request = with_defaults(request, pipe, options.model)
        check_request(pipe, request)
        call: dict[str, Any] = {} if request.steps is None else {"num_inference_steps": request.steps}
        call |= guidance_arguments(pipe, request.guidance, [request.negative])
        if size:
            call |= {"height": size[0], "width": size[1]}
        probe = probe_padding(
            pipe,
            values.prompts,
            range(values.seed, values.seed + values.seeds),
            conditions=values.keeps(),
            clip=clip_on(values.clip, None),
            counter=judge_on(JUDGES[0], None, (), None) if (objects := _objects(values, options.model)) else None,
            objects=objects,
            pictures=KEPT_IMAGES,
            batch=BATCH if options.model in BUNDLED_FORMS else 1,
            on_image=lambda done, total: _report(context, done, total),
            **call,
        )
        spans = [_spans(one) for one in token_spans(pipe, values.prompts[0])]
    figures = probe.as_dict()
    context.result = {"files": _save(probe, context), "verdict": str(probe.verdict), "spans": spans}
    context.result |= {"note": "; ".join(filter(None, (probe.note, probe.kind_line)))}
    context.result |= {"use": figures["use"], "need": figures["need"], "rows": [_row(row) for row in probe.table()]}
    context.result |= {"matrix": _matrix(probe), "thresholds": figures["thresholds"]}


def _objects(values: ProbeValues, model: str) -> dict[str, dict[str, int]] | None:
    """What each prompt asks for, where all are those of ours and the bundled detector knows the model's objects."""
    known = {row["prompt"]: {row["label"]: row["count"]} for row in default_rows()}
    if model not in BUNDLED_FORMS or not all(prompt in known for prompt in values.prompts):
        return None
    return {prompt: known[prompt] for prompt in values.prompts}


def _matrix(probe: "Probe") -> dict[str, Any]:
    """The heads of the images that were kept: route and condition across, prompts and seeds down."""
    kept = min(len(cell.pictures) for cell in probe.cells)
    columns = [[cell.route, cell.condition] for cell in probe.cells]
    return {"columns": columns, "prompts": probe.prompts[:kept], "seeds": probe.seeds[:kept]}


def _save(probe: "Probe", context: "JobContext") -> list[str]:
    """The images that the probe kept, the conditions of one prompt and seed one after the other."""
    for index in range(min(map(len, (cell.pictures for cell in probe.cells)))):
        for cell in probe.cells:
            condition = cell.condition.replace(" ", "-").replace(":", "-")
            path = context.folder / f"{index + 1:02}-{cell.route}-{condition}.png"
            about = {"prompt": probe.prompts[index], "seed": probe.seeds[index]}
            save_image(cell.pictures[index], path, about | {"route": cell.route, "condition": cell.condition})
            context.progress.files.append(path)
    return [context.name(path) for path in context.progress.files]


def _spans(spans: Any) -> dict[str, Any]:
    words = [[word.text, word.tokens.start, word.tokens.stop] for word in spans.words]
    ends = {name: [getattr(spans, name).start, getattr(spans, name).stop] for name in ("bos", "eos", "pads")}
    return {"encoder": spans.encoder, "length": spans.length, "words": words, "cut": spans.cut, **ends}


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, int | str) else str(value) for name, value in row.items()}


def _report(context: "JobContext", done: int, total: int) -> None:
    context.check()
    context.progress.report(done, total, f"image {done} of {total}")

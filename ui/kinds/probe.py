"""What the padding of prompts does: images under interventions, their scores, and a verdict in words."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from t2i_tools.cli.generate import with_defaults
from t2i_tools.cli.judges import clip_on
from t2i_tools.cli.options import BUNDLED
from t2i_tools.errors import InputError
from t2i_tools.generation import Request, check_request
from t2i_tools.imagefile import save_image
from t2i_tools.sizes import parse_size
from t2i_tools.ui.options import AppOptions
from t2i_tools.ui.shelf import Choice, Shelf, pick
from t2i_tools.ui.values import Guidance, Name, Prompt, Seed, Steps, Values, check_at_most, check_size

if TYPE_CHECKING:
    from t2i_tools.padding.probe import Probe
    from t2i_tools.ui.worker import Bench

USUAL = ["full", "prompt", "pads", "clean", "swapped"]
PICTURES = 4


class ProbeValues(Values):
    """A probe of the padding. prompts: several, 400 for a sharp verdict. conditions: what keeps its own rows of text,
    "full", "prompt", "pads", "clean", "eos", "swapped", "noise", "pads:1/5", "random:10" or "rows:0-5". clip: scores.
    """

    prompts: list[Prompt] = []
    seeds: Annotated[int, Field(ge=1, le=100)] = 1
    seed: Seed = 0
    conditions: list[Name] = USUAL
    size: Name | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    model: Name = ""
    clip: Name = BUNDLED

    def keeps(self) -> list[Any]:
        """The conditions. Raises InputError."""
        from t2i_tools.padding.keeps import parse_keep

        return [parse_keep(text) for text in self.conditions]

    def settled(self, options: AppOptions, shelf: Shelf) -> "ProbeValues":
        """Checked as far as that goes without the model."""
        if not self.prompts:
            raise InputError("there is nothing to probe: give a prompt a line")
        check_size(self.size, options.limits)
        check_at_most("steps", self.steps, options.limits.steps)
        check_at_most("images", len(self.prompts) * self.seeds * max(4, len(self.keeps())), options.limits.items)
        pick(self.clip, shelf.clips(), "CLIP")
        shelf.check(Choice(self.model))
        for prompt in self.prompts:
            Request(prompt, self.seed)
        return self


def run(values: ProbeValues, bench: "Bench") -> None:
    """Pictures of the first prompts under each condition, a table with intervals, and the verdict."""
    from t2i_tools.padding.probe import probe_padding
    from t2i_tools.prompts import token_spans

    with bench.pipeline(Choice(values.model)) as (pipe, options):
        size = values.size and parse_size(values.size)
        request = Request(values.prompts[0], values.seed, size=size, steps=values.steps, guidance=values.guidance)
        request = with_defaults(request, pipe, options.model)
        check_request(pipe, request)
        call = {"num_inference_steps": request.steps, "guidance_scale": request.guidance}
        if size:
            call |= {"height": size[0], "width": size[1]}
        probe = probe_padding(
            pipe,
            values.prompts,
            range(values.seed, values.seed + values.seeds),
            conditions=values.keeps(),
            clip=clip_on(values.clip, None),
            pictures=PICTURES,
            on_image=lambda done, total: _tell(bench, done, total),
            **{name: value for name, value in call.items() if value is not None},
        )
        spans = [_spans(one) for one in token_spans(pipe, values.prompts[0])]
    told = probe.as_dict()
    bench.result = {"files": _save(probe, bench), "verdict": str(probe.verdict), "note": probe.note, "spans": spans}
    bench.result |= {"use": told["use"], "need": told["need"], "rows": [_row(row) for row in probe.table()]}


def _save(probe: "Probe", bench: "Bench") -> list[str]:
    """The pictures that the probe kept, the conditions of one prompt and seed one after the other."""
    for index in range(min(map(len, (cell.pictures for cell in probe.cells)))):
        for cell in probe.cells:
            condition = cell.condition.replace(" ", "-").replace(":", "-")
            path = bench.folder / f"{index + 1:02}-{cell.route}-{condition}.png"
            about = {"prompt": probe.prompts[index], "seed": probe.seeds[index]}
            save_image(cell.pictures[index], path, about | {"route": cell.route, "condition": cell.condition})
            bench.live.files.append(path)
    return [bench.name(path) for path in bench.live.files]


def _spans(spans: Any) -> dict[str, Any]:
    words = [[word.text, word.tokens.start, word.tokens.stop] for word in spans.words]
    ends = {name: [getattr(spans, name).start, getattr(spans, name).stop] for name in ("bos", "eos", "pads")}
    return {"encoder": spans.encoder, "length": spans.length, "words": words, "cut": spans.cut, **ends}


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, int | str) else str(value) for name, value in row.items()}


def _tell(bench: "Bench", done: int, total: int) -> None:
    bench.check()
    bench.live.tell(done, total, f"image {done} of {total}")

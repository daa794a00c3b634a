"""`t2i count`: pictures with an exact number of objects, the token that made them, and how the search went."""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.cli.counting import run
from t2i_tools.cli.outputs import check_place, slug
from t2i_tools.cli.plugins import PluginOptions, plugins_on
from t2i_tools.errors import InputError
from t2i_tools.sizes import parse_size

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.detectors import Counter

# fmt: off
METHODS = (
    "plain", "best_of", "bisection", "bisection+best_of", "token", "token+best_of", "noise", "noise+best_of",
    "token+noise", "random_walk",
)
# fmt: on
DEFAULT_METHOD, DEFAULT_BUDGET = "bisection+best_of", 30.0
SHORT = 3  # exit code when --until-exact did not get as many as asked for
SEARCH = "Search"

What = Annotated[list[str], typer.Argument(metavar="CLASS N [CLASS N]...", help="apples 7, or bottles 6 glasses 2.")]
Prompt = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help='With "{count}", or "{bottles}" and "{glasses}"; "a photo of {count} CLASS" by default.'
    ),
]
Number = Annotated[int, typer.Option(min=1, help="Images to make, each with a search of its own.")]
UntilExact = Annotated[
    bool,
    typer.Option(
        "--until-exact", help="Deliver exact ones only, the others go to rejected/; 3 is the exit code if short."
    ),
]
Output = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="A new one, or that of a stopped run to go on; outputs/7-apples by default."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no file names.")]
Budget = Annotated[
    float, typer.Option(min=1, help="Compute for each image, in plain images' worth.", rich_help_panel=SEARCH)
]
Method = Annotated[str, typer.Option(help=", ".join(METHODS), rich_help_panel=SEARCH)]
CounterName = Annotated[
    str | None,
    typer.Option(
        metavar="bundled|FOLDER|FILE|HUB_ID", help="The detector to follow, as in t2i detect.", rich_help_panel=SEARCH
    ),
]
Label = Annotated[
    str | None, typer.Option(help="The class as the detector calls it, if other than CLASS.", rich_help_panel=SEARCH)
]
LearningRate = Annotated[
    float | None, typer.Option(help="Of the token, in the size of an embedding.", rich_help_panel=SEARCH)
]
GradSteps = Annotated[
    int | None, typer.Option(min=1, help="Timesteps that the gradient goes through.", rich_help_panel=SEARCH)
]
Checkpointing = Annotated[
    bool, typer.Option("--checkpointing", help="Less memory for more time.", rich_help_panel=SEARCH)
]


@dataclass(frozen=True)
class SearchOptions:
    """How the images are looked for; each field is the option of the same name. Raises InputError."""

    budget: Budget = DEFAULT_BUDGET
    method: Method = DEFAULT_METHOD
    counter: CounterName = None
    label: Label = None
    lr: LearningRate = None
    grad_steps: GradSteps = None
    checkpointing: Checkpointing = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"unknown method {self.method!r}: choose {', '.join(METHODS)}")

    def given(self) -> dict[str, Any]:
        """What `optimize_count` is told of it."""
        return {name: value for name, value in asdict(self).items() if name not in ("counter", "label")}


@options.with_options(
    SearchOptions,
    options.ModelOptions,
    PluginOptions,
    without=("compare", "two_pass", "two_pass_strength", "long_prompts", "long_clip", "count_token"),
)
def count(
    what: What,
    prompt: Prompt = None,
    number: Number = 1,
    until_exact: UntilExact = False,
    negative: options.Negative = None,
    size: options.ImageSize = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    seed: options.FirstSeed = None,
    output: Output = None,
    as_json: options.AsJson = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Make images with exactly N objects of a class; a run that stopped goes on where it was."""
    wanted = parse_counts(what)
    search, chosen = options.pick(SearchOptions, given), options.pick(options.ModelOptions, given)
    plugins = options.pick(PluginOptions, given)
    goal, name = goal_of(wanted, search.label), slug(" ".join(f"{n} {word}" for word, n in wanted.items()))
    folder = Path(output or f"outputs/{name}").expanduser()
    seed = first_seed(seed, folder)
    image = {"negative": negative, "size": size and parse_size(size), "steps": steps, "guidance": guidance}
    check_place(folder, output)
    detector = open_counter(search.counter, chosen, [search.label] if search.label else list(wanted))
    pipe = options.open_model(chosen)
    with plugins_on(pipe, plugins) as told:
        from t2i_tools.counting.job import Job

        job = Job(
            name=name,
            template=prompt or default_template(wanted),
            goal=goal,
            seed=seed,
            number=number,
            until_exact=until_exact,
            options=usual(pipe, chosen.model) | _not_none(search.given() | image),
            about={**asdict(chosen), **asdict(plugins), "counter": search.counter},
        )
        rows = run(pipe, detector, chosen, job, folder, told, show=not quiet, names=not (quiet or as_json))
    if as_json:
        print(json.dumps([{**row, "file": str(folder / row["file"])} for row in rows], indent=2))
    if until_exact and sum(row["exact"] for row in rows) < number:
        raise typer.Exit(SHORT)


def parse_counts(what: list[str]) -> dict[str, int]:
    """ "apples 7" or "bottles 6 glasses 2" as class -> number. Raises InputError."""
    names, numbers = what[::2], what[1::2]
    if len(names) != len(numbers) or not all(number.isdecimal() for number in numbers):
        raise InputError(f"{' '.join(what)!r} is not CLASS N, for instance apples 7, or bottles 6 glasses 2")
    if len(set(names)) < len(names):
        raise InputError(f"{' '.join(what)!r} names a class twice")
    return dict(zip(names, map(int, numbers), strict=True))


def goal_of(wanted: dict[str, int], label: str | None) -> dict[str, Any]:
    """The goal as `optimize_count` takes it. Raises InputError."""
    if len(wanted) == 1:
        ((name, n),) = wanted.items()
        return {"n": n, "label": label or name}
    if label:
        raise InputError("--label goes with one class: call several as the detector does")
    return {"counts": wanted}


def default_template(names: Iterable[str], spoken: Callable[[str], str] = str) -> str:
    """ "a photo of {count} apples", or "a photo of {bottles} bottles and {glasses} glasses".

    spoken: from a name to the word for it.
    """
    names = list(names)
    if len(names) == 1:
        return f"a photo of {{count}} {spoken(names[0])}"
    return "a photo of " + " and ".join(f"{{{name}}} {spoken(name)}" for name in names)


def first_seed(seed: int | None, folder: Path) -> int:
    """The seed asked for, that of the folder's stopped run, or a random one. Raises InputError."""
    from t2i_tools.counting.job import seed_of
    from t2i_tools.generation import MAX_SEED

    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed {seed} is out of range: it takes 0 to {MAX_SEED}")
    there = seed_of(folder) if seed is None else seed
    return random.randrange(2**32) if there is None else there


def usual(pipe: "DiffusionPipeline", model: str) -> dict[str, Any]:
    """Steps and guidance that the model takes by itself."""
    from t2i_tools.cli.generate import with_defaults
    from t2i_tools.generation import Request

    request = with_defaults(Request("any", 0), pipe, model)
    return {"steps": request.steps, "guidance": request.guidance}


def open_counter(name: str | None, chosen: options.ModelOptions, labels: Sequence[str]) -> "Counter":
    """The detector that is followed. Raises InputError for a judge, and where none is named for another model.

    labels: the classes to look for.
    """
    from t2i_tools.cli.detect import open_detector
    from t2i_tools.cli.judges import JUDGES

    if name in ("judge", JUDGES[1]):
        raise InputError(f"--counter {name}: a judge only evaluates, what follows it could no longer be judged by it")
    if name is None and chosen.model != options.BUNDLED:
        raise InputError("--counter is needed: which detector is to count, a folder, a file, a Hub id or bundled")
    return open_detector(name or options.BUNDLED, labels, None, chosen.device)


def _not_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}

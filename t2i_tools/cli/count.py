"""`t2i count`: pictures with an exact number of objects, the token that made them, and how the search went."""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.cli.counting import run
from t2i_tools.cli.tokens import print_vocabulary_note
from t2i_tools.errors import InputError
from t2i_tools.images.sizes import parse_size
from t2i_tools.workflows.count import SearchOptions, check_template, default_template, goal_of, usual_settings
from t2i_tools.workflows.detectors import open_counter
from t2i_tools.workflows.open_model import ModelOptions, open_model
from t2i_tools.workflows.outputs import check_folder, slug
from t2i_tools.workflows.plugins import PluginOptions, plugins_on

SHORT = 3  # exit code when --until-exact did not get as many as asked for

What = Annotated[
    list[str],
    typer.Argument(metavar="CLASS N", help="What to draw and how many, as in apples 7, or cats 2 dogs 3."),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help='The prompt, with "{count}" where the number belongs, or "{cats}" and "{dogs}" with several classes; '
        '"a photo of {count} CLASS" by default.',
    ),
]
UntilExact = Annotated[
    bool,
    options.flag(
        "--until-exact",
        "Search until N images are exact; the others go to rejected/. Exit code 3 if there are fewer in the end.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="A new folder, or that of a stopped run, which goes on; outputs/7-apples by default.",
    ),
]


@options.with_options(
    SearchOptions,
    ModelOptions,
    PluginOptions,
    without=("compare", "two_pass", "two_pass_strength", "long_prompts", "long_clip", "count_token", "embedding"),
)
def count(
    what: What,
    prompt: Prompt = None,
    number: options.Number = 1,
    until_exact: UntilExact = False,
    negative: options.Negative = None,
    size: options.ImageSize = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    seed: options.Seed = None,
    output: Output = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    **option_values: Any,
) -> None:
    """Make images that show exactly N objects of a class. A stopped run goes on where it was."""
    from t2i_tools.counting import CountOptions

    wanted = parse_counts(what)
    search, chosen = options.pick(SearchOptions, option_values), options.pick(ModelOptions, option_values)
    plugins = options.pick(PluginOptions, option_values)
    goal, name = goal_of(wanted, search.label), slug(" ".join(f"{n} {word}" for word, n in wanted.items()))
    folder = Path(output or f"outputs/{name}").expanduser()
    seed = first_seed(seed, folder)
    image = {"negative": negative, "size": size and parse_size(size), "steps": steps, "guidance": guidance}
    template = prompt or default_template(wanted)
    check_template(template, wanted)
    CountOptions(**_not_none(search.arguments() | image))  # complains before a model is opened
    check_folder(folder, ("count.json",), output)
    detector = open_counter(search.counter, chosen, [search.label] if search.label else list(wanted))
    pipe = open_model(chosen)
    if not quiet:
        print_vocabulary_note(chosen.model, [prompt or "", *what])
    with plugins_on(pipe, plugins) as plugin_settings:
        from t2i_tools.counting.count_run import CountRun

        job = CountRun(
            name=name,
            template=template,
            goal=goal,
            seed=seed,
            number=number,
            until_exact=until_exact,
            options=usual_settings(pipe, chosen.model) | _not_none(search.arguments() | image),
            about={**asdict(chosen), **asdict(plugins), "counter": search.counter},
        )
        rows = run(pipe, detector, chosen, job, folder, plugin_settings, show=not quiet, names=not (quiet or as_json))
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


def first_seed(seed: int | None, folder: Path) -> int:
    """The seed asked for, that of the folder's stopped run, or a random one. Raises InputError."""
    from t2i_tools.counting.count_run import seed_of
    from t2i_tools.images.generate import MAX_SEED

    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed {seed} is out of range: use 0 to {MAX_SEED}")
    there = seed_of(folder) if seed is None else seed
    return random.randrange(2**32) if there is None else there


def _not_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}

"""What `t2i generate` makes: one job per image, from a prompt or from every row of a file, checked as a whole."""

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from t2i_tools.cli.options import check_fit_acts
from t2i_tools.errors import InputError
from t2i_tools.images.generate import Request
from t2i_tools.images.promptfile import SETTINGS, check_fit, one_source, read_prompts
from t2i_tools.images.wildcards import fill_wildcards, has_wildcards, names_list
from t2i_tools.workflows.open_model import BUNDLED, ModelOptions, parse_lora
from t2i_tools.workflows.plugins import OWNERS, PluginOptions, plugins_of

REQUESTED = ("prompt", "negative", "size", "fit", "seed", "steps", "guidance", "number")
SHARED = ("model", "config", "vae", "dtype", "lora")  # of all images of a run, as the model is opened once
PLUGINS = tuple(PluginOptions.__dataclass_fields__)


@dataclass(frozen=True)
class Job:
    """One image to make.

    scheduler: the row's own. recorded: what its file says besides the request. place: file and line, for errors.
    """

    request: Request
    plugins: PluginOptions
    scheduler: str | None = None
    recorded: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Names file and line in what goes wrong inside."""
        try:
            yield
        except InputError as error:
            if not self.place or str(error).startswith(self.place):
                raise
            raise InputError(f"{self.place}: {error}") from error


def read_jobs(
    prompt: str | None,
    file: Path | None,
    values: Mapping[str, Any],
    chosen: ModelOptions,
    plugins: Mapping[str, Any],
    wildcards: Path | None = None,
) -> tuple[list[Job], ModelOptions]:
    """The images of a prompt or of every row of a file, whose values go before those of the command line.

    Image i of a row has seed + i, by which its wildcards are drawn; without a seed all rows start at the same random
    one.

    Args:
        prompt: The prompt, or None.
        file: The prompts file, or None.
        values: What the command line says of REQUESTED; None for what it does not.
        chosen: The model that the command line asks for.
        plugins: Its options of plugins, by name.
        wildcards: The folder of the lists that wildcards name.

    Returns:
        The jobs, and the model with what all rows of the file say of it.

    Raises:
        InputError: With file and line where it is a row's.
    """
    one_source(prompt, file)
    if wildcards is not None and not wildcards.expanduser().is_dir():
        raise InputError(f"--wildcards {wildcards} is not a folder")
    values = {name: value for name, value in values.items() if value is not None}
    values.setdefault("seed", random.randrange(2**32))
    check_fit_acts(str(values.get("fit", "crop")), file is not None or "size" in values)
    if file is None:
        single = list(_jobs({**values, "prompt": prompt}, plugins, wildcards, ""))
        _check_used(wildcards, single)
        return single, chosen
    rows = [(f"{file} line {line}", _as_options(row)) for line, row in read_prompts(file, SETTINGS, note=_note)]
    chosen = _shared(rows, chosen)
    jobs: list[Job] = []
    for place, row in rows:
        try:
            own = {name: _present(name, row[name], plugins.get(name)) for name in PLUGINS if name in row}
            jobs += _jobs({**values, **row}, {**plugins, **own}, wildcards, place)
            _check_owners(own, {**plugins, **own})
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
    _check_used(wildcards, jobs)
    return jobs, chosen


def _check_used(wildcards: Path | None, jobs: Sequence[Job]) -> None:
    """Raise InputError for a folder of lists that no prompt names."""
    if wildcards and not any(names_list(str(job.recorded.get("template", ""))) for job in jobs):
        raise InputError("--wildcards does nothing: no prompt names a list, as __color__ does")


def _jobs(row: Mapping[str, Any], plugins: Mapping[str, Any], wildcards: Path | None, place: str) -> Iterator[Job]:
    values = {name: row[name] for name in REQUESTED if name in row}
    number, first = values.pop("number"), values.pop("seed")
    check_fit(values["fit"])
    if number < 1:
        raise InputError(f"number {number} is out of range: use 1 or more")
    acting = plugins_of(plugins) if place else PluginOptions(**plugins)
    recorded = {"template": row["template"]} if "template" in row else {}
    for seed in range(first, first + number):
        chance = random.Random(seed)
        texts = {name: values[name] for name in ("prompt", "negative") if has_wildcards(values.get(name) or "")}
        filled = {name: fill_wildcards(text, chance, wildcards) for name, text in texts.items()}
        noted = {"template": texts} if texts else recorded
        yield Job(Request(**{**values, **filled}, seed=seed), acting, row.get("scheduler"), noted, place)


def _as_options(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with what an image's file says of its plugins as the options that made it."""
    row = dict(row)
    if isinstance(details := row.get("entropy_scaling"), dict):
        row["entropy_scaling"] = True
        row |= {f"entropy_{name}": details[name] for name in ("rule", "strength", "layers") if name in details}
        row |= {name: details[name] for name in ("native",) if name in details}
    if isinstance(details := row.get("two_pass"), dict):
        row["two_pass"] = True
        row |= {"two_pass_strength": details["strength"]} if "strength" in details else {}
        row |= {name: details[name] for name in ("native",) if name in details}
    if isinstance(details := row.get("deep_shrink"), dict):
        row["deep_shrink"] = True
        row |= {f"deep_shrink_{name}": details[name] for name in ("share", "level") if name in details}
        row |= {name: details[name] for name in ("native",) if name in details}
    if isinstance(details := row.get("long_prompts"), dict):
        row["long_prompts"] = details.get("method")
        row |= {name: details[name] for name in ("long_clip",) if name in details}
    return row


def _shared(rows: Sequence[tuple[str, Mapping[str, Any]]], chosen: ModelOptions) -> ModelOptions:
    """The model that all rows name. Raises InputError where two rows name two."""
    for name in SHARED:
        first: tuple[str, Any] | None = None
        for place, row in rows:
            try:
                value = _present(name, row[name], getattr(chosen, name)) if name in row else getattr(chosen, name)
            except InputError as error:
                raise InputError(f"{place}: {error}") from error
            if first is not None and value != first[1]:
                raise InputError(
                    f"{place}: {name} {_spoken(value)} is not {_spoken(first[1])} as in {first[0].rpartition(' ')[2]}: "
                    "a run opens one model, so give each its own file"
                )
            first = first or (place, value)
        if first is not None:
            chosen = replace(chosen, **{name: first[1]})
    return chosen


def _present(name: str, value: Any, chosen_value: Any) -> Any:
    """What a row names, where it is: an image knows a file's name alone, and the command line where it lies.

    Raises InputError where that is unknown or another one.
    """
    if name in ("lora", "count_token", "embedding"):
        return [_file_of(name, one, chosen_value or ()) for one in value] or None
    if name not in (*SHARED, "long_clip") or value == chosen_value:
        return value
    usual = {"model": BUNDLED}.get(name)
    if chosen_value != usual and _stem(chosen_value) == _stem(value):
        return chosen_value
    if chosen_value != usual:
        raise InputError(
            f"{name} {value!r} differs from {chosen_value!r} on the command line: leave out one of the two"
        )
    return value


def _file_of(name: str, source: Any, chosen_files: Sequence[str]) -> str:
    """ "FILE" or "FILE:SCALE" of a LoRA or token. Raises InputError where its file is not known."""
    if isinstance(source, dict):
        source = f"{source.get('file')}:{source['scale']}" if "scale" in source else str(source.get("file"))
    file, scale = parse_lora(str(source)) if name == "lora" else (str(source), None)
    for one in chosen_files:
        there, strength = parse_lora(one) if name == "lora" else (one, None)
        if Path(there).name == Path(file).name and strength == scale:
            return one
    if Path(file).expanduser().is_file():
        return str(source)
    raise InputError(f"no file {str(source)!r}: give it by --{name.replace('_', '-')}")


def _check_owners(own: Mapping[str, Any], plugins: Mapping[str, Any]) -> None:
    """Raise InputError for a row's detail of a plugin that is off in it."""
    for name in own.keys() & OWNERS.keys():
        usual = PluginOptions.__dataclass_fields__[name].default
        if own[name] != usual and not any(map(plugins.get, OWNERS[name])):
            raise InputError(f"{name} goes with {' or '.join(OWNERS[name])}")


def _stem(source: Any) -> str:
    path = Path(str(source))
    return path.stem if path.suffix == ".safetensors" else path.name


def _spoken(value: Any) -> str:
    return "none" if value is None else repr(value)


def _note(text: str) -> None:
    print(f"t2i: {text}", file=sys.stderr)

"""The protocol: what an evaluation claims, written down before it runs on the test split."""

import json
import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError, first_line, shortened
from t2i_tools.evaluation.rows_io import append_row, read_log
from t2i_tools.evaluation.runs.items import digest

UNITS: dict[str, Callable[[Mapping[str, Any]], Hashable]] = {
    "item": lambda row: row["key"],
    "prompt": lambda row: row["prompt"],
    "class": lambda row: row.get("label"),
    "cell": lambda row: (row.get("label"), row.get("count")),
}
SPLITS = ("dev", "test")


@dataclass(frozen=True)
class Protocol:
    """primary: the one figure that the claim is about; every other p value is corrected (Holm).

    split: "dev" or "test". unit: what was drawn at random and is resampled, see UNITS. margin: a difference of the
    primary figure smaller than this counts as none (TOST). baseline: the method that others are compared with at the
    same size, the first one when None. level: of all intervals.
    """

    primary: str = "exact"
    split: str = "dev"
    unit: str = "prompt"
    margin: float = 0.05
    baseline: str | None = None
    level: float = 0.95

    def __post_init__(self) -> None:
        from t2i_tools.metrics import METRICS

        for name, value, known in (
            ("primary", self.primary, (*METRICS, "clip")),
            ("split", self.split, SPLITS),
            ("unit", self.unit, UNITS),
        ):
            if not isinstance(value, str) or value not in known:
                raise InputError(f"unknown {name} {shortened(repr(value))} in the protocol: choose {', '.join(known)}")
        for name, number, most in (("margin", self.margin, math.inf), ("level", self.level, 1)):
            if not isinstance(number, int | float) or not 0 < number < most:
                raise InputError(f"{name} {shortened(repr(number))} in the protocol is out of range")
        if not isinstance(self.baseline, str | None):
            raise InputError(f"baseline {shortened(repr(self.baseline))} in the protocol is not the name of a method")

    def baseline_of(self, methods: Sequence[str]) -> str | None:
        """The one of an evaluation's methods that the others are compared with. Raises InputError."""
        if self.baseline is not None and self.baseline not in methods:
            known = ", ".join(dict.fromkeys(methods))
            raise InputError(
                f"the protocol's baseline {shortened(repr(self.baseline))} is not among the methods {known}"
            )
        return self.baseline or next(iter(methods), None)

    def clusters(self, rows: Iterable[Mapping[str, Any]]) -> list[Any]:
        """The unit that each row belongs to."""
        return [UNITS[self.unit](row) for row in rows]


def read_protocol(path: str | Path) -> Protocol:
    """Read a protocol.json. Raises InputError."""
    return parse_protocol(read_values(path))


def read_values(path: str | Path) -> dict[str, Any]:
    """What a protocol.json says, with its notes. Raises InputError."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {first_line(error)}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is not a JSON object")
    return values


def parse_protocol(values: Mapping[str, Any]) -> Protocol:
    """A protocol from JSON's values; names that begin with "_" are notes. Raises InputError for other unknown ones."""
    values = {name: value for name, value in values.items() if not name.startswith("_")}
    known = [field.name for field in fields(Protocol)]
    if unknown := values.keys() - set(known):
        raise InputError(f"the protocol knows no {shortened(sorted(unknown)[0])!r}, only {', '.join(known)}")
    return Protocol(**values)


def log_test_run(protocol: str | Path, folder: str | Path, manifest: str) -> None:
    """Note beside the protocol that its test split is run, once per manifest and folder: a resume is no second run.

    The log is published with the protocol, so a folder is named by a digest, without the machine's paths.
    """
    place = Path(folder).resolve()
    run = f"{place.name}-{digest(str(place))[:8]}"
    if all((one.get("manifest"), one.get("run")) != (manifest, run) for one in test_runs(protocol)):
        append_row(runs_file(protocol), {"date": time.strftime("%Y-%m-%d %H:%M:%S"), "run": run, "manifest": manifest})


def test_runs(protocol: str | Path) -> list[dict[str, Any]]:
    """Every run on the test split that was logged."""
    return read_log(runs_file(protocol))


def runs_file(protocol: str | Path) -> Path:
    """The log of a protocol's runs on the test split: protocol.json -> protocol.runs.jsonl."""
    return Path(protocol).with_suffix(".runs.jsonl")

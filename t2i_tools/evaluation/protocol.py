"""The protocol: what an evaluation claims, written down before it runs on the test split."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError
from t2i_tools.evaluation.files import append_row, read_log

UNITS = {
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
            if value not in known:
                raise InputError(f"unknown {name} {value!r} in the protocol: choose {', '.join(known)}")
        for name, value in (("margin", self.margin), ("level", self.level)):
            if not isinstance(value, int | float) or value <= 0 or (name == "level" and value >= 1):
                raise InputError(f"{name} {value!r} in the protocol is out of range")

    def baseline_of(self, methods: Sequence[str]) -> str | None:
        """The one of an evaluation's methods that the others are compared with. Raises InputError."""
        if self.baseline is not None and self.baseline not in methods:
            known = ", ".join(dict.fromkeys(methods))
            raise InputError(f"the protocol's baseline {self.baseline!r} is not among the methods {known}")
        return self.baseline or next(iter(methods), None)


def read_protocol(path: str | Path) -> Protocol:
    """Read a protocol.json. Raises InputError."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is not a JSON object")
    return parse_protocol(values)


def parse_protocol(values: Mapping[str, Any]) -> Protocol:
    """A protocol from JSON's values; names that begin with "_" are notes. Raises InputError for other unknown ones."""
    values = {name: value for name, value in values.items() if not name.startswith("_")}
    known = [field.name for field in fields(Protocol)]
    if unknown := values.keys() - set(known):
        raise InputError(f"the protocol knows no {sorted(unknown)[0]!r}, only {', '.join(known)}")
    return Protocol(**values)


def log_test_run(protocol: str | Path, folder: str | Path, manifest: str) -> None:
    """Note beside the protocol that its test split is run, once a manifest and folder: a resume is no second run."""
    place = str(Path(folder).resolve())
    if all((run["manifest"], run["folder"]) != (manifest, place) for run in test_runs(protocol)):
        date = time.strftime("%Y-%m-%d %H:%M:%S")
        append_row(runs_file(protocol), {"date": date, "folder": place, "manifest": manifest})


def test_runs(protocol: str | Path) -> list[dict[str, Any]]:
    """Every run on the test split that was logged."""
    return read_log(runs_file(protocol))


def runs_file(protocol: str | Path) -> Path:
    """The log of a protocol's runs on the test split: protocol.json -> protocol.runs.jsonl."""
    return Path(protocol).with_suffix(".runs.jsonl")

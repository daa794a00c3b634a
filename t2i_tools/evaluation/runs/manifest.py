"""The manifest: all that fixes the bytes of an evaluation, written before the first image is made."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from t2i_tools._version import __version__
from t2i_tools.errors import InputError
from t2i_tools.evaluation.rows_io import write_text
from t2i_tools.evaluation.runs.items import Item, batches, digest, item_key
from t2i_tools.files import remove_dead_parts

FILE = "manifest.json"
FORMAT = 2
LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow")
WHAT = {
    "format": "by another version of t2i-tools",
    "versions": "with other versions",
    "model": "with another model",
    "judge": "with another judge",
    "clip": "with another CLIP",
    "settings": "with other settings",
    "about": "for another benchmark",
    "search": "with another counter or budget",
    "items": "from other prompts, methods, sizes or steps",
}


@dataclass(frozen=True)
class Settings:
    """What the last bits of an image depend on besides the model; every worker sets them.

    device: the type only ("cpu", "cuda"). threads: of one worker. batch: images at once.
    """

    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1
    batch: int = 8

    def __post_init__(self) -> None:
        for name, value in (("threads", self.threads), ("batch", self.batch)):
            if value < 1:
                raise InputError(f"{name} {value} is out of range: use 1 or more")


@dataclass(frozen=True)
class Manifest:
    """model, judge, clip: {"name", "fingerprint"}, {} where there is none. about: what the report says of the run.

    search: {"name", "fingerprint", "budget"}, the counter and budget of the searches; {} if there are none, and then
    not written to the file.
    """

    items: list[Item]
    settings: Settings
    model: Mapping[str, str] = field(default_factory=dict)
    judge: Mapping[str, str] = field(default_factory=dict)
    clip: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=lambda: installed_versions())
    search: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def keys(self) -> list[str]:
        """One a item: a hash of all that determines it."""
        context = {"model": self.model.get("fingerprint"), "settings": asdict(self.settings), **self.versions}
        steered = {"search": {name: self.search.get(name) for name in ("fingerprint", "budget")}}
        return [item_key(item, context | (steered if item.is_search else {})) for item in self.items]

    @cached_property
    def batches(self) -> list[list[int]]:
        """The indices of the items of each batch: the same for every worker, shard and resume."""
        return batches(self.items, self.settings.batch)

    def to_json(self) -> dict[str, Any]:
        """The manifest as it is written."""
        items = [{"key": key, **asdict(item)} for key, item in zip(self.keys, self.items, strict=True)]
        head = {"format": FORMAT, "versions": dict(self.versions), "model": dict(self.model)}
        head |= {"judge": dict(self.judge), "clip": dict(self.clip), "about": dict(self.about)}
        head |= {"search": dict(self.search)} if self.search else {}
        # Through JSON and back, so that what is compared is what is read: lists, no tuples.
        return json.loads(json.dumps({**head, "settings": asdict(self.settings), "items": items}))

    def digest(self) -> str:
        """A hash of the whole manifest."""
        return digest(self.to_json())


def installed_versions() -> dict[str, str]:
    """Of ourselves and of the libraries that have a hand in the bytes."""
    found = {"t2i-tools": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of an evaluation's folder. Raises InputError when there is none or another version wrote it."""
    values = _read(Path(folder))
    if values is None:
        raise InputError(f"{folder} is not the folder of an evaluation: it has no {FILE}")
    if values.get("format") != FORMAT:
        raise InputError(f"{folder} was made {WHAT['format']}: give another folder")
    try:
        values.pop("format")
        keys = [one["key"] for one in values["items"]]
        items = [_item(one) for one in values.pop("items")]
        manifest = Manifest(items=items, settings=Settings(**values.pop("settings")), **values)
        if manifest.keys != keys:
            raise ValueError("its keys are not those of its items")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"cannot read {Path(folder) / FILE}: it is damaged or not a manifest; give another folder"
        ) from error
    return manifest


def settle(folder: str | Path, manifest: Manifest) -> None:
    """Write the manifest into its folder, or see that the one there is the same.

    Raises InputError in one line for a folder of another version, model, judge, settings or prompts, or of other files.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    if folder.is_dir():
        remove_dead_parts(folder)
    # Looked at before the manifest, which another worker may write at this moment.
    others = folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())
    present, wanted = _read(folder), manifest.to_json()
    if present is None:
        if others:
            raise InputError(f"{folder} has other files in it and no {FILE}: give an empty or a new folder")
        write_text(folder / FILE, json.dumps(wanted, indent=1) + "\n")
        return
    for part, what in WHAT.items():
        there, here = present.get(part), wanted.get(part)
        if part == "search" and None in (there, here):
            continue  # only one of the two has searches, so their items differ and are compared elsewhere
        if there != here:
            raise InputError(f"{folder} was made {what}{_difference(there, here)}: give another folder")


def check_versions(manifest: Manifest, folder: str | Path) -> None:
    """Raise InputError when this machine's versions are not the manifest's."""
    here = installed_versions()
    if here != dict(manifest.versions):
        difference = _difference(dict(manifest.versions), here)
        raise InputError(f"{folder} was made {WHAT['versions']}{difference}: give another folder")


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        values = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"cannot read {folder / FILE}: it is damaged or not a manifest; give another folder"
        ) from error
    if not isinstance(values, dict):
        raise InputError(f"cannot read {folder / FILE}: it is damaged or not a manifest; give another folder")
    return values


def _item(values: dict[str, Any]) -> Item:
    fields = {name: value for name, value in values.items() if name != "key"}
    return Item(**{**fields, "size": fields["size"] and tuple(fields["size"])})


def _difference(present: Any, wanted: Any) -> str:
    """The first value that differs, " (there torch 2.8, here 2.9)"; nothing for lists."""
    if isinstance(present, dict) and isinstance(wanted, dict):
        for name in sorted(present.keys() | wanted.keys()):
            if present.get(name) != wanted.get(name):
                return f" (there {name} {_short(present.get(name))}, here {_short(wanted.get(name))})"
    return ""


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."

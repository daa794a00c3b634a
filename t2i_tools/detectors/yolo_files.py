"""What the files beside a YOLO's weights say of it: the yaml of the network, a data set or a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from t2i_tools.detectors.architecture import class_names
from t2i_tools.errors import ModelError, first_line

DEPTH = 50  # of brackets in a yaml


@dataclass(frozen=True)
class Beside:
    """architecture: the yaml of the network. labels: the classes in order. image_size: the longest side in pixels."""

    architecture: Path | None = None
    labels: tuple[str, ...] = ()
    image_size: int | None = None


def read_beside(weights: Path) -> Beside:
    """What the yamls in the folder of the weights say.

    The network's yaml has a backbone and may have names; those of a data set (data.yaml) and of an export
    (metadata.yaml) have names; those of a run (args.yaml) and of an export have imgsz.

    Raises:
        ModelError: a yaml is broken, or several describe a network and none has the name of the weights.
    """
    said = {file: _read(file) for file in sorted([*weights.parent.glob("*.yaml"), *weights.parent.glob("*.yml")])}
    networks = [file for file, content in said.items() if "backbone" in content and "head" in content]
    if len(networks) > 1:
        networks = [file for file in networks if file.stem == weights.stem] or networks
    if len(networks) > 1:
        names = ", ".join(file.name for file in networks)
        raise ModelError(f"which of {names} describes {weights}? Leave only that one beside it")
    ordered = [said[file] for file in networks] + [said[file] for file in said if file not in networks]
    labels = next(filter(None, map(class_names, ordered)), [])
    sizes = [size for content in ordered if (size := longest(content.get("imgsz")))]
    return Beside(next(iter(networks), None), tuple(labels), sizes[0] if sizes else None)


def longest(imgsz: Any) -> int | None:
    """The longest side that ultralytics' `imgsz` means, a number or two; None where it is neither."""
    sides = imgsz if isinstance(imgsz, list | tuple) else [imgsz]
    return max(sides) if sides and all(type(side) is int and side > 0 for side in sides) else None


def _read(file: Path) -> Mapping[str, Any]:
    import yaml

    try:
        text = file.read_text()
        if _depth(text) > DEPTH:  # which takes the parser a time that grows with its square
            raise ValueError(f"its brackets are nested more than {DEPTH} deep")
        content = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ModelError(f"{file} is not valid YAML: {first_line(error)}") from error
    return content if isinstance(content, Mapping) else {}


def _depth(text: str) -> int:
    """How many brackets are open at once, those in quotes counted too."""
    steps = (1 if letter in "[{" else -1 for letter in text if letter in "[]{}")
    return max(accumulate(steps), default=0)

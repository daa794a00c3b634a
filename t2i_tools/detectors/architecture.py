"""What a YOLO is built of: one of ultralytics' yamls, or the same as a dict, checked before it is built.

ultralytics evaluates a yaml's `activation` as Python and calls whatever its rows name, so that a yaml could run code.
Here a row may name a layer of torch, torchvision or ultralytics, and the activation a class of torch.nn with literals.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from types import ModuleType
from typing import Any, TypeAlias

import torch
from PIL import Image

from t2i_tools.errors import ModelError, UnsupportedModelError, first_line, install, shortened

Architecture: TypeAlias = str | os.PathLike | Mapping[str, Any]

ACTIVATION = r"(torch\.)?nn\.[A-Z]\w*\([\w=., -]*\)"  # one call, with nothing that is called inside it
ROOMS = ("ultralytics.nn.modules.", "torch.nn.modules.", "torchvision.ops.")  # a whole network may not be a layer
FETCHES = "TorchVision"  # this layer loads weights from torchvision's server


def read_architecture(source: Architecture, what: str) -> dict[str, Any]:
    """What a yaml says of a network, a copy that the builder may change.

    Args:
        source: one of ultralytics' own yamls by name ("yolo11n.yaml": the letter is the size), a file, or a dict.
        what: it should be, for a message.

    Raises:
        UnsupportedModelError: ultralytics is not installed.
        ModelError: it cannot be read, or has more than layers in it.
    """
    tasks = import_yolo()
    if isinstance(source, Mapping):
        settings = deepcopy(dict(source))
    elif "://" in os.fspath(source):
        raise ModelError(f"{source} is an address: give a yaml file, or one of ultralytics' own by name")
    else:
        with building(source, what):
            settings = tasks.yaml_model_load(os.fspath(source))
    with building(source, what):
        activation = settings.get("activation")
        if activation and not (isinstance(activation, str) and re.fullmatch(ACTIVATION, activation)):
            raise ValueError(f"its activation is none of torch.nn's, {shortened(repr(activation))}")
        for _, _, layer, _ in settings["backbone"] + settings["head"]:
            if not _is_layer(tasks, layer):
                raise ValueError(f"no layer is called {shortened(repr(layer))}")
    return settings


def class_names(settings: Mapping[str, Any]) -> list[str]:
    """The names that a yaml gives to the classes, a list or a dict by number; [] when it gives none."""
    names = settings.get("names") or []
    if isinstance(names, Mapping):
        names = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    return [str(name) for name in names] if isinstance(names, list | tuple) else []


@contextmanager
def building(source: Architecture, what: str) -> Iterator[None]:
    """Turns whatever ultralytics raises inside into one ModelError that names the yaml."""
    try:
        yield
    except Exception as error:  # it says nowhere which
        name = "the file's header" if isinstance(source, Mapping) else shortened(source)
        raise ModelError(f"{name} describes no {what}: {first_line(error)}") from error


def import_yolo() -> ModuleType:
    """ultralytics' `nn.tasks`. Raises UnsupportedModelError."""
    try:
        with without_side_effects():
            from ultralytics.nn import tasks
    except ImportError as error:
        hint = "libGL is missing: install your system's libgl1" if "libGL" in str(error) else install("count")
        raise UnsupportedModelError(f"a YOLO needs ultralytics ({first_line(error)}): {hint}") from error
    return tasks


@contextmanager
def without_side_effects() -> Iterator[None]:
    """Lets ultralytics be imported alone.

    It would look for a network, log to stdout, which belongs to our JSON, and replace `Image.open` by one that runs
    pip for a file it cannot read.
    """
    replaced, environment = (Image.open, torch.save), dict(os.environ)
    os.environ |= {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        Image.open, torch.save = replaced
        for name in ("YOLO_AUTOINSTALL", "YOLO_OFFLINE"):
            os.environ.pop(name)
            if name in environment:
                os.environ[name] = environment[name]


def _is_layer(tasks: ModuleType, name: str) -> bool:
    """Whether ultralytics would take a class of layers for this name, and no function."""
    import torchvision

    places = (("nn.", torch.nn), ("torchvision.ops.", torchvision.ops), ("", tasks))
    start, module = next(place for place in places if name.startswith(place[0]))
    layer = getattr(module, name[len(start) :], None)
    is_layer = isinstance(layer, type) and issubclass(layer, torch.nn.Module)
    return is_layer and f"{layer.__module__}.".startswith(ROOMS) and name != FETCHES

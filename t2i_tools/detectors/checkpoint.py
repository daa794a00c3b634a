"""A `.pt` file of ultralytics, read as data, in a process of its own: `python -m t2i_tools.detectors.checkpoint`.

A pickle can name any function and have it called. Here torch rebuilds the tensors, by its reader for weights alone, and
each class that the file names becomes an inert `Record`: nothing of the file is imported or called, so that it does not
matter either which version of ultralytics wrote it.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from t2i_tools.detectors.architecture import class_names
from t2i_tools.detectors.yolo_files import longest
from t2i_tools.errors import ModelError, T2IError, first_line
from t2i_tools.files import replacing

# Networks by the class that a checkpoint names, and what opens them.
KINDS = {
    "DetectionModel": "yolo",
    "SegmentationModel": "yolo",
    "PoseModel": "yolo",
    "YOLOv10DetectionModel": "yolo",
    "WorldModel": "world",
    "YOLOEModel": "yoloe",
    "YOLOESegModel": "yoloe",
}
OTHERS = {
    "RTDETRDetectionModel": "an RT-DETR, which transformers has too (PekingU/rtdetr_v2_r18vd)",
    "ClassificationModel": "a classifier, which finds no objects",
    "OBBModel": "a YOLO of turned boxes, which are not supported",
}


class Record:
    """What stands for an object of any class: it keeps the state that the pickle gives it and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Record":
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def get(self, name: str) -> Any:
        """One attribute, None where there is none."""
        state = getattr(self, "state", {})
        return state.get(name) if isinstance(state, Mapping) else None


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a checkpoint's network, and what to keep of it: kind, architecture, labels, image size.

    Raises:
        ModelError: it holds no YOLO of ultralytics, or is damaged.
    """
    content = _read(path)
    net = _network(content)
    if not isinstance(net, Record):
        raise ModelError(f"{path} holds no network of ultralytics, only {type(net).__name__}")
    name = type(net).__name__
    if not type(net).__module__.startswith("ultralytics.") or name not in KINDS:
        what = OTHERS.get(name, f"a {type(net).__module__}.{name}")
        raise ModelError(f"{path} holds {what}: what is converted is a YOLO detector of ultralytics")
    architecture = net.get("yaml")
    if not isinstance(architecture, dict):
        raise ModelError(f"{path} does not say what its network is built of")
    labels = class_names({"names": net.get("names")})
    about = {"kind": KINDS[name], "architecture": _plain(architecture)}
    about |= {"labels": None if labels == [str(i) for i in range(len(labels))] else labels}
    about |= {"image_size": _image_size(net.get("args"), content)}
    return dict(_tensors(net, "")), about


def _read(path: Path) -> Any:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        records: list[Any] = [(_record(name), name) for name in names]
        with torch.serialization.safe_globals(records):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        raise ModelError(f"{path} cannot be read as a checkpoint of ultralytics: {first_line(error)}") from error


def _record(name: str) -> type[Record]:
    module, _, kind = name.rpartition(".")
    return type(kind, (Record,), {"__module__": module})


def _network(content: Any) -> Any:
    """The averaged network where there is one, as ultralytics takes it."""
    if not isinstance(content, Mapping):
        return content
    ema, model = content.get("ema"), content.get("model")
    return model if ema is None else ema


def _tensors(record: Any, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    """What `state_dict` would give of a module."""
    if not isinstance(record, Record):
        return
    hidden = record.get("_non_persistent_buffers_set") or ()
    own = {**(record.get("_parameters") or {}), **(record.get("_buffers") or {})}
    for name, tensor in own.items():
        if isinstance(tensor, torch.Tensor) and name not in hidden:
            yield prefix + name, tensor.detach().clone()
    for name, child in (record.get("_modules") or {}).items():
        yield from _tensors(child, f"{prefix}{name}.")


def _image_size(args: Any, content: Any) -> int | None:
    """The longest side that the network was trained for, in pixels."""
    for place in (args, content.get("train_args") if isinstance(content, Mapping) else None):
        size = longest(place.get("imgsz")) if isinstance(place, Mapping | Record) else None
        if size:
            return size
    return None


def _plain(value: Any) -> Any:
    """Only what JSON holds. Raises ModelError."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise ModelError(f"the checkpoint's architecture is not plain data: {first_line(error)}") from error


def main(source: str, target: str) -> None:
    """Write the network of a checkpoint as safetensors, what else is kept in its header."""
    tensors, about = read_checkpoint(Path(source))
    content = save({name: value.contiguous() for name, value in tensors.items()}, {"config": json.dumps(about)})
    with replacing(Path(target)) as part:
        part.write_bytes(content)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (T2IError, RecursionError, OSError) as error:
        sys.exit(first_line(error))

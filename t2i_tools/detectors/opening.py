"""Opens whatever detector a path or a Hub id names."""

import os
from collections.abc import Sequence
from pathlib import Path

from t2i_tools.detectors.detections import Counter
from t2i_tools.detectors.heatmap import FORMAT, HeatmapCounter
from t2i_tools.detectors.open_yolo import OpenYoloCounter
from t2i_tools.detectors.transformers import ZeroShotCounter, open_transformers
from t2i_tools.detectors.weights import read_weights
from t2i_tools.detectors.yolo import YoloCounter
from t2i_tools.detectors.yolo_world import YoloWorldCounter
from t2i_tools.detectors.yoloe import YoloeCounter
from t2i_tools.errors import ModelError

OPEN_YOLOS = {"world": YoloWorldCounter, "yoloe": YoloeCounter}  # what their yamls' names have in them


def open_counter(source: str | os.PathLike, *, threshold: float | None = None, labels: Sequence[str] = ()) -> Counter:
    """A `.safetensors` file (ours, or a YOLO with its yaml beside it), its folder, transformers' folder or Hub id.

    A YOLO-World or YOLOE has a yaml with "world" or "yoloe" in its name, and its CLIP text encoder in the folder clip/
    beside it.

    labels: the classes of a YOLO whose files do not name them, or what a zero-shot detector looks for by itself.
    Raises ModelError for what cannot be opened, UnsupportedModelError for what is no detector or lacks its library.
    """
    path = Path(source)
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            raise ModelError(f"{path} has {len(files) or 'no'} .safetensors files; a detector's folder has one")
        path = files[0]
    if path.is_file():
        return _open_file(path, threshold, labels)
    return open_transformers(str(source), threshold, labels)


def finds_any_word(counter: Counter) -> bool:
    """Whether it looks for whatever it is told, so that its `labels` are no limit."""
    return isinstance(counter, ZeroShotCounter | OpenYoloCounter)


def _open_file(path: Path, threshold: float | None, labels: Sequence[str]) -> Counter:
    _, about = read_weights(path)
    if about.get("format") == FORMAT:
        return HeatmapCounter.load(path, threshold)
    yamls = sorted([*path.parent.glob("*.yaml"), *path.parent.glob("*.yml")])
    beside = yamls[0] if len(yamls) == 1 else None
    for mark, kind in OPEN_YOLOS.items():
        if beside is not None and mark in beside.name:
            return kind.load(path, path.parent / "clip", beside, labels, threshold)
    named = about.get("labels") or labels or None
    return YoloCounter.load(path, about.get("architecture") or beside, named, threshold)

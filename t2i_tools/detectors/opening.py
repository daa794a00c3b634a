"""Opens whatever detector a path or a Hub id names."""

import os
from collections.abc import Sequence
from pathlib import Path

from t2i_tools.detectors.detections import Counter
from t2i_tools.detectors.heatmap import FORMAT, HeatmapCounter
from t2i_tools.detectors.open_yolo import OpenYoloCounter
from t2i_tools.detectors.transformers import ZeroShotCounter, open_transformers
from t2i_tools.detectors.weights import CONVERT, check_header, read_settings
from t2i_tools.detectors.yolo import HEADER, YoloCounter
from t2i_tools.detectors.yolo_files import read_beside
from t2i_tools.detectors.yolo_world import YoloWorldCounter
from t2i_tools.detectors.yoloe import YoloeCounter
from t2i_tools.errors import ModelError
from t2i_tools.models.loading import PICKLES

# Kinds in a header, and what a yaml's name has in it.
OPEN_YOLOS: dict[str, type[OpenYoloCounter]] = {"world": YoloWorldCounter, "yoloe": YoloeCounter}


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
        if not files and (pickles := sorted(file for file in path.iterdir() if file.suffix.lower() in PICKLES)):
            raise ModelError(f"{path} has no .safetensors file, only a pickle: {CONVERT.format(pickles[0])}")
        if len(files) != 1:
            raise ModelError(f"{path} has {len(files) or 'no'} .safetensors files; a detector's folder has one")
        path = files[0]
    if path.is_file() or path.suffix.lower() in (".safetensors", *PICKLES):
        return _open_file(path, threshold, labels)
    return open_transformers(str(source), threshold, labels)


def finds_any_word(counter: Counter) -> bool:
    """Whether it looks for any word it is given, so that its `labels` are no limit."""
    return isinstance(counter, ZeroShotCounter | OpenYoloCounter)


def _open_file(path: Path, threshold: float | None, labels: Sequence[str]) -> Counter:
    about = read_settings(path)
    if about.get("format") == FORMAT:
        return HeatmapCounter.load(path, threshold)
    check_header(path, about, HEADER)
    beside = read_beside(path)
    architecture = about.get("architecture") or beside.architecture
    size = about.get("image_size") or beside.image_size
    kind = about.get("kind") or _kind_by_name(beside.architecture)
    if kind in OPEN_YOLOS:
        return OPEN_YOLOS[kind].load(path, path.parent / "clip", architecture, labels, threshold, size)
    names = about.get("labels") or beside.labels or labels
    return YoloCounter.load(path, architecture, names, threshold, size)


def _kind_by_name(yaml: Path | None) -> str | None:
    return next((kind for kind in OPEN_YOLOS if yaml is not None and kind in yaml.name), None)

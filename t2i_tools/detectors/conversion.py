"""A YOLO's `.pt` file to one safetensors file, once, with the user's consent: names and architecture in its header."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from t2i_tools.detectors.opening import OPEN_YOLOS
from t2i_tools.detectors.weights import read_weights
from t2i_tools.detectors.yolo import build_yolo, count_classes, fill_yolo
from t2i_tools.errors import InputError, ModelError
from t2i_tools.files import replacing

KEPT = ("PATH", "HOME", "TMPDIR", "TEMP", "SYSTEMROOT", "LANG")  # of the environment: no token, no password


def convert_yolo(
    source: str | os.PathLike, target: str | os.PathLike | None = None, *, trust_pickle: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Convert a checkpoint of ultralytics to one safetensors file that `open_counter` opens.

    The pickle is read as data in a process of its own, without the environment's secrets: what it names is neither
    imported nor called.

    Args:
        source: the `.pt` file.
        target: the file to write, or a folder for it; beside the source when None. Nothing is replaced.
        trust_pickle: the consent, without which no byte of the pickle is read.

    Returns:
        the file, and what its header says: kind, architecture, labels, image size.

    Raises:
        InputError: there is no consent, or the target is there already.
        ModelError: the source is no YOLO detector of ultralytics, or this ultralytics cannot build it.
    """
    source, target = Path(source), _target(Path(source), target)
    if not source.is_file():
        raise ModelError(f"no such file: {source}")
    if not trust_pickle:
        raise InputError(f"{source} is a pickle, which can run code when opened: add --trust-pickle if you trust it")
    if target.exists():
        raise InputError(f"{target} already exists: give another name")
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder) / "model.safetensors"
        _read_apart(source, staged, folder)
        about = _check(staged, source)
        with replacing(target) as part:
            part.write_bytes(staged.read_bytes())
    return target, about


def _target(source: Path, target: str | os.PathLike | None) -> Path:
    place = source.parent if target is None else Path(target)
    return place if place.suffix == ".safetensors" else place / f"{source.stem}.safetensors"


def _read_apart(source: Path, staged: Path, folder: str) -> None:
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "t2i_tools.detectors.checkpoint", str(source.resolve()), str(staged)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"the reader ended with {done.returncode}"]
        raise ModelError(lines[-1].replace(str(source.resolve()), str(source)))


def _check(staged: Path, source: Path) -> dict[str, Any]:
    """Build the network and fill it, as whoever opens the file will."""
    tensors, about = read_weights(staged)
    if about["kind"] in OPEN_YOLOS:
        net = OPEN_YOLOS[about["kind"]].build(about["architecture"])
    else:
        net, _ = build_yolo(about["architecture"], count_classes(tensors))
    fill_yolo(net, tensors, source)
    return about

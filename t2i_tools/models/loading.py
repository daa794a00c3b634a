"""Opening a model: a local folder, a repository on the Hub, or one .safetensors checkpoint. Pickles are never read."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from t2i_tools.errors import InputError, ModelError, OutOfMemoryError, T2IError, first_line
from t2i_tools.models.families import single_file_pipeline

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
HUB_ID = r"[\w-][\w.-]*/[\w-][\w.-]*"


def open_pipeline(
    source: str | Path, *, config: str | Path | None = None, dtype: torch.dtype | None = None
) -> DiffusionPipeline:
    """Open a diffusers pipeline from a folder, a Hub id ("owner/name") or one .safetensors checkpoint.

    config: for a checkpoint, a folder or Hub id that holds the pipeline's configuration (no weights needed); without
    it diffusers recognises the family and looks the configuration up on the Hub. dtype: float32 when None.
    Raises ModelError.
    """
    check_source(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path, dtype)
    if path.suffix.lower() == ".safetensors":
        return _open_checkpoint(path, config, dtype)
    return _open_repository(str(source), dtype)


def check_source(source: str | Path) -> None:
    """Raise ModelError for what is no model at first sight; opens no more than a checkpoint's header."""
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ModelError(f"{path} is not a diffusers pipeline: it has no model_index.json")
    elif path.suffix.lower() in PICKLES:
        raise ModelError(f"{source} is a pickle, which can run code when opened: convert it to .safetensors first")
    elif path.suffix.lower() == ".safetensors":
        check_safetensors(path)
    elif path.exists():
        raise ModelError(f"{source} is neither a folder nor a .safetensors file")
    elif not re.fullmatch(HUB_ID, str(source)):
        raise ModelError(f"unknown model {str(source)!r}: give a folder, a .safetensors file or a Hub id (owner/name)")


def check_safetensors(path: Path) -> list[str]:
    """The names of the tensors in a file whose header agrees with its length. Raises ModelError."""
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        raise ModelError(f"{path} is a folder: give the .safetensors file in it")
    try:
        with safe_open(path, framework="pt") as tensors:
            return list(tensors.keys())
    except FileNotFoundError as error:
        raise ModelError(f"no such file: {path}") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is damaged or not a safetensors file ({first_line(error)}): download it again"
        ) from error


@contextmanager
def opening(source: str | os.PathLike[str]) -> Iterator[None]:
    """Turns whatever the libraries raise inside into one ModelError that names `source`."""
    try:
        yield
    except T2IError:
        raise
    except Exception as error:  # a dozen kinds from four libraries, none of them documented
        if out_of_memory(error):
            raise OutOfMemoryError(
                f"not enough memory to open {source}: try --dtype bf16 or a smaller model"
            ) from error
        raise ModelError(f"cannot open {source}: {first_line(error)}") from error


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that a device or the machine had no memory left."""
    return isinstance(error, MemoryError) or bool(
        re.search(r"out of memory|not enough memory|can't allocate memory", str(error), re.IGNORECASE)
    )


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The named device, or the best there is. Raises InputError when it cannot hold a tensor here."""
    import torch

    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    best = best or torch.device("cpu")
    if name is None:
        return best
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device {name!r}: {best} works here; others are cuda:1, mps...") from error
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:  # RuntimeError, AssertionError, NotImplementedError: each backend has its own
        raise InputError(f"device {name!r} does not work here ({first_line(error)}): {best} does") from error
    return device


def _open_folder(folder: Path, dtype: torch.dtype | None) -> DiffusionPipeline:
    from diffusers import DiffusionPipeline

    for part in (folder, *(path for path in sorted(folder.iterdir()) if path.is_dir())):
        _refuse_pickles(str(part), os.listdir(part))
        for path in sorted(part.glob("*.safetensors")):
            check_safetensors(path)
    with opening(folder):
        parts = json.loads((folder / "model_index.json").read_text())
        absent = {name: None for name, part in parts.items() if part == [None, None]}  # diffusers asks for SD3's T5
        return DiffusionPipeline.from_pretrained(folder, use_safetensors=True, dtype=dtype, **absent)


def _open_repository(name: str, dtype: torch.dtype | None) -> DiffusionPipeline:
    from diffusers import DiffusionPipeline

    with opening(name):
        try:
            return DiffusionPipeline.from_pretrained(name, use_safetensors=True, dtype=dtype)
        except Exception as error:
            raise _hub_error(name, error) from error


def _open_checkpoint(path: Path, config: str | Path | None, dtype: torch.dtype | None) -> DiffusionPipeline:
    import diffusers

    names = check_safetensors(path)
    with opening(path), tempfile.TemporaryDirectory() as staged:
        if config is None:
            kind = single_file_pipeline(names)
            if kind is None:
                raise ModelError(f"{path} is not a checkpoint of a known family: name its pipeline with --config")
            try:
                return getattr(diffusers, kind).from_single_file(str(path), dtype=dtype)
            except Exception as error:
                if not _is_network(error):
                    raise
                raise ModelError(
                    f"{path} needs its configuration from the Hub, which cannot be reached: give --config FOLDER, "
                    "or in the app a folder configs/NAME beside the checkpoint"
                ) from error
        folder = _stage(config, Path(staged) / "config")
        kind = diffusers.DiffusionPipeline.load_config(folder).get("_class_name")
        if not hasattr(diffusers, str(kind)):
            raise ModelError(f"--config {config} names the pipeline {kind!r}, which this diffusers does not have")
        return getattr(diffusers, kind).from_single_file(str(path), config=str(folder), dtype=dtype)


def _stage(config: str | Path, target: Path) -> Path:
    """A copy, in links, of a configuration without its pickles: from_single_file would read them for missing parts."""
    from huggingface_hub import snapshot_download

    folder = Path(config).expanduser()
    if not folder.is_dir():
        if not re.fullmatch(HUB_ID, str(config)):
            raise ModelError(f"--config {config}: no such folder, and no Hub id (owner/name)")
        try:
            folder = Path(snapshot_download(str(config), allow_patterns=["*.json", "*.txt", "*.model"]))
        except Exception as error:
            raise _hub_error(str(config), error) from error
    if not (folder / "model_index.json").is_file():
        raise ModelError(f"--config {config} is not a diffusers pipeline: it has no model_index.json")
    ignored = shutil.ignore_patterns(*(f"*{suffix}" for suffix in PICKLES))
    shutil.copytree(folder.resolve(), target, ignore=ignored, copy_function=os.symlink)
    return target


def _refuse_pickles(place: str, files: list[str]) -> None:
    pickles = sorted(name for name in files if name.lower().endswith(PICKLES))
    if pickles and not any(name.endswith(".safetensors") for name in files):
        raise ModelError(
            f"{place} holds its weights as pickles only ({pickles[0]}): they can run code; use .safetensors"
        )


def _hub_error(name: str, error: Exception) -> ModelError:
    """The reason why a repository on the Hub could not be opened."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    causes = list(_chain(error))
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return ModelError(f"{name} is gated: accept its licence on the Hub, then log in with `hf auth login`")
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return ModelError(f"unknown model {name!r}: no such folder here and no such repository on the Hub")
    if _is_network(error):
        return ModelError(
            f"cannot reach the Hub for {name!r}: no such folder here, and no network or copy in the cache"
        )
    if "safetensors" in str(error):
        return ModelError(f"{name} holds no .safetensors weights for all its parts, and pickles are not read")
    return ModelError(f"cannot open {name}: {first_line(error)}")


def _is_network(error: BaseException) -> bool:
    from huggingface_hub.errors import LocalEntryNotFoundError

    kinds = (LocalEntryNotFoundError, ConnectionError, TimeoutError, socket.gaierror)
    # The Hub's client has changed its HTTP library twice; all of them name the base class so.
    return any(
        isinstance(cause, kinds) or "TransportError" in (kind.__name__ for kind in type(cause).__mro__)
        for cause in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__

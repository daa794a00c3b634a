"""The models and their parts that there are, by name: a page names them and never gives a path."""

import copy
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i_tools.cli.judges import JUDGES
from t2i_tools.cli.options import BUNDLED, ModelOptions, open_model
from t2i_tools.errors import InputError
from t2i_tools.models import align
from t2i_tools.ui.options import AppOptions

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LORAS, VAES, LONG_CLIPS, TOKENS = "loras", "vaes", "long-clips", "tokens"
NONE = "none"


@dataclass(frozen=True)
class Choice:
    """A model by name, with parts by name. loras: (name, scale)."""

    model: str = ""
    loras: tuple[tuple[str, float], ...] = ()
    vae: str | None = None
    scheduler: str | None = None


class Shelf:
    """What may be opened, and the one pipeline that is open."""

    def __init__(self, options: AppOptions):
        self._options = options
        self._lock = threading.Lock()
        self._open: tuple[str, DiffusionPipeline] | None = None
        self._reader: DiffusionPipeline | None = None
        self._warm = threading.Event()

    def models(self) -> dict[str, str]:
        """Name -> what `open_pipeline` takes; the one chosen at the start comes first."""
        folder, found = self._options.models, {BUNDLED: BUNDLED}
        for path in sorted(folder.iterdir()) if folder else ():
            if (path / "model_index.json").is_file():
                found[path.name] = str(path)
            elif path.suffix == ".safetensors" and path.is_file():
                found[path.stem] = str(path)
        found |= {name: name for name in self._options.hub}
        first = self._options.model
        own = {first if first in found else _short(first): found.get(first, first)}
        return own | found

    def loras(self) -> dict[str, Path]:
        """Name -> file of the LoRAs in the models' folder."""
        return _files(self._below(LORAS))

    def vaes(self) -> dict[str, Path]:
        """Name -> file or folder of the VAEs in the models' folder."""
        return _weights(self._below(VAES))

    def long_clips(self) -> dict[str, Path | str]:
        """Name -> Long-CLIP: the bundled model's, and the files and folders in the models' folder."""
        return {BUNDLED: BUNDLED} | _weights(self._below(LONG_CLIPS))

    def tokens(self) -> dict[str, Path]:
        """Name -> file of the count tokens in the models' folder and of those learned or uploaded here."""
        return _files(self._below(TOKENS)) | _files(self.own_tokens)

    def judges(self) -> dict[str, str]:
        """Name -> detector that may count in a grid or an evaluation: ours, and those on the list of the Hub."""
        return {name: name for name in (*JUDGES, *self._options.hub)}

    def detectors(self) -> dict[str, str]:
        """Name -> detector that may steer a search."""
        return {name: name for name in (BUNDLED, *self._options.hub)}

    def clips(self) -> dict[str, str]:
        """Name -> CLIP that may score."""
        return {name: name for name in (BUNDLED, *self._options.hub)}

    @property
    def own_tokens(self) -> Path:
        """Where count tokens that are learned or uploaded here go."""
        return self._options.output.expanduser().resolve() / TOKENS

    def options(self, choice: Choice) -> ModelOptions:
        """What the shell would be given for this choice. Raises InputError for a name that is not on the shelf."""
        models, loras = self.models(), self.loras()
        model = pick(choice.model or next(iter(models)), models, "model")
        lora = [f"{pick(name, loras, 'LoRA')}:{scale}" for name, scale in choice.loras]
        vae = pick(choice.vae, self.vaes(), "VAE") if choice.vae else None
        return ModelOptions(model, lora=lora, vae=vae, device=self._options.device, dtype=self._options.dtype)

    def check(self, choice: Choice) -> None:
        """Raise InputError for a name that is not on the shelf."""
        self.options(choice)

    def clip_for(self, clip: str | None, choice: Choice) -> str | None:
        """The CLIP of this name that scores images; without a name the bundled one for the bundled model's.

        None: no score, as for "none". Raises InputError.
        """
        if clip is None:
            return BUNDLED if self.options(choice).model == BUNDLED else None
        return None if clip == NONE else pick(clip, self.clips(), "CLIP")

    def resolved(self, plugins: Mapping[str, Any]) -> dict[str, Any]:
        """The plugins' options with files for the names among them. Raises InputError."""
        files: dict[str, Any] = {}
        if clip := plugins.get("long_clip"):
            files["long_clip"] = pick(clip, self.long_clips(), "Long-CLIP")
        if tokens := plugins.get("count_token"):
            files["count_token"] = [pick(name, self.tokens(), "count token") for name in tokens]
        return {**plugins, **files}

    @contextmanager
    def pipeline(self, choice: Choice) -> "Iterator[tuple[DiffusionPipeline, ModelOptions]]":
        """The pipeline with its LoRAs, VAE and scheduler on, for one user at a time; afterwards it is as it was."""
        from t2i_tools.parts import use_loras, use_scheduler, use_vae

        options = self.options(choice)
        with self._lock:
            pipe = self._base(options)
            scheduler, vae = pipe.scheduler, getattr(pipe, "vae", None)
            try:
                if choice.scheduler and choice.scheduler != type(scheduler).__name__:
                    use_scheduler(pipe, choice.scheduler)
                if options.vae:
                    use_vae(pipe, options.vae)
                if options.lora:
                    use_loras(pipe, options.loras())
                align(pipe)  # or the same settings would give other last bits after a restart
                yield pipe, options
            finally:
                pipe.scheduler = scheduler
                if options.vae:
                    pipe.vae = vae
                if options.lora:
                    pipe.unload_lora_weights()

    def warm(self) -> None:
        """Open the first model, so that whoever asks first need not wait for it. Says what is wrong with it."""
        try:
            with self._lock:
                self._base(self.options(Choice()))
        finally:
            self._warm.set()

    def reader(self, wait: float = 0.0) -> "DiffusionPipeline | None":
        """The open pipeline for reading prompts while a job has it; None when there is none yet, nor in `wait` s."""
        self._warm.wait(wait)
        return self._reader

    def _below(self, name: str) -> Path | None:
        return self._options.models and self._options.models / name

    def _base(self, options: ModelOptions) -> "DiffusionPipeline":
        if self._open is None or self._open[0] != options.model:
            self._open = self._reader = None  # before the next is opened: two may not fit
            pipe = open_model(replace(options, lora=None, vae=None))
            self._open, self._reader = (options.model, pipe), _with_own_tokenizers(pipe)
        return self._open[1]


def _with_own_tokenizers(pipe: "DiffusionPipeline") -> "DiffusionPipeline":
    """The same pipeline but for its tokenizers, which two threads may not use at once."""
    reader = copy.copy(pipe)
    for name, part in pipe.components.items():
        if name.startswith("tokenizer") and part is not None:
            setattr(reader, name, copy.deepcopy(part))
    return reader


def pick(name: str, known: "Mapping[str, Path | str]", what: str) -> str:
    """What stands under a name. Raises InputError that lists the known ones."""
    if name not in known:
        names = ", ".join(known) or f"this server has no {what}"
        raise InputError(f"unknown {what} {name[:100]!r}: {names if not known else 'choose ' + names}")
    return str(known[name])


@contextmanager
def tokens_on(pipe: "DiffusionPipeline", files: Sequence[Path]) -> Iterator[None]:
    """While it lasts, prompts may hold the words of the count tokens in the files."""
    from t2i_tools.counting import count_token

    with ExitStack() as stack:
        for file in files:
            stack.enter_context(count_token(pipe, file))
        yield


def token_settings(files: Sequence[Path]) -> dict[str, Any]:
    """What an image's file tells of its count tokens."""
    told = [{"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()} for file in files]
    return {"count_token": told} if told else {}


def parse_loras(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """ "name:0.8" as ("name", 0.8), for each; the scale is 1 where none is given."""
    from t2i_tools.cli.options import parse_lora

    return tuple(parse_lora(text) for text in texts)


def _files(folder: Path | None) -> dict[str, Path]:
    return _named(folder, lambda path: path.suffix == ".safetensors" and path.is_file())


def _weights(folder: Path | None) -> dict[str, Path]:
    """Safetensors files, and folders in the format of diffusers and transformers."""
    folders = _named(folder, lambda path: (path / "config.json").is_file())
    return folders | _files(folder)


def _named(folder: Path | None, wanted: Callable[[Path], bool]) -> dict[str, Path]:
    found = sorted(folder.iterdir()) if folder and folder.is_dir() else ()
    return {path.name.removesuffix(".safetensors"): path for path in found if wanted(path)}


def _short(source: str) -> str:
    return Path(source).stem if Path(source).expanduser().exists() else source

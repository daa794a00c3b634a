"""The models and their parts that there are, by name: a page names them and never gives a path."""

import copy
import gc
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i_tools.errors import shortened
from t2i_tools.models.anatomy import align
from t2i_tools.models.loading import check_source
from t2i_tools.workflows.detectors import COUNTER, JUDGES
from t2i_tools.workflows.open_model import BUNDLED, BUNDLED_FORMS, ModelOptions, open_model

from .errors import FieldError
from .model_sizes import ModelSize, ModelSizes
from .options import AppOptions
from .secret import keyed, read_secret

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LORAS, VAES, LONG_CLIPS, TOKENS, EMBEDDINGS = "loras", "vaes", "long-clips", "tokens", "embeddings"
CONFIGS = "configs"
NONE = "none"
# What it is called -> the field that names it, where the two differ.
FIELDS = {"LoRA": "loras", "Long-CLIP": "long_clip", "count token": "count_tokens", "embedding": "embeddings"}


@dataclass(frozen=True)
class Choice:
    """A model by name, with parts by name. loras: (name, scale)."""

    model: str = ""
    loras: tuple[tuple[str, float], ...] = ()
    vae: str | None = None
    scheduler: str | None = None


@dataclass
class OpenModel:
    """The one pipeline that is open, for all owners. reader: the same, to read prompts with while a job has it."""

    source: str = ""
    pipe: "DiffusionPipeline | None" = None
    reader: "DiffusionPipeline | None" = None
    sizes: ModelSizes = field(default_factory=ModelSizes)
    lock: threading.Lock = field(default_factory=threading.Lock)
    warm: threading.Event = field(default_factory=threading.Event)


class Registry:
    """What an owner may open, and the one pipeline that is open."""

    def __init__(self, options: AppOptions, owner: str = "", opened: OpenModel | None = None):
        self._options, self._owner = options, owner
        self._opened = opened or OpenModel()

    def of(self, owner: str) -> "Registry":
        """The same with the count tokens of this owner."""
        return Registry(self._options, owner, self._opened)

    def models(self) -> dict[str, str]:
        """Name -> what `open_pipeline` takes; the one chosen at the start comes first."""
        folder, found = self._options.models, {form: form for form in BUNDLED_FORMS}
        for path in sorted(folder.iterdir()) if folder else ():
            if (path / "model_index.json").is_file():
                found[path.name] = str(path)
            elif path.suffix == ".safetensors" and path.is_file():
                found[path.name if path.stem in found else path.stem] = str(path)
        found |= {name: name for name in self._options.hub}
        first = self._options.model
        own = {first if first in found else _short(first): found.get(first, first)}
        return own | found

    def model_size(self, name: str) -> ModelSize | None:
        """The size that the model of this name was trained at; None while that is not known."""
        return self._opened.sizes.of(self.models().get(name, ""))

    def usual_steps(self, name: str) -> int | None:
        """The denoising steps that the model of this name takes by itself; None while that is not known."""
        return self._opened.sizes.steps(self.models().get(name, ""))

    def loras(self) -> dict[str, Path]:
        """Name -> file of the LoRAs in the models' folder."""
        return _files(self._below(LORAS))

    def embeddings(self) -> dict[str, Path]:
        """Name -> file of the textual inversions in the models' folder."""
        return _files(self._below(EMBEDDINGS))

    def vaes(self) -> dict[str, Path]:
        """Name -> file or folder of the VAEs in the models' folder."""
        return _weights(self._below(VAES))

    def long_clips(self) -> dict[str, Path | str]:
        """Name -> Long-CLIP: the bundled model's, and the files and folders in the models' folder."""
        return {BUNDLED: BUNDLED} | _weights(self._below(LONG_CLIPS))

    def tokens(self) -> dict[str, Path]:
        """Name -> file of the count tokens in the models' folder, and of those that the owner learned or uploaded."""
        return _files(self._below(TOKENS)) | _files(self.owner_tokens)

    def judges(self) -> dict[str, str]:
        """Name -> detector that may count in a grid or an evaluation: ours, and those on the list of the Hub."""
        return {name: name for name in (*JUDGES, *self._options.hub)}

    def detectors(self) -> dict[str, str]:
        """Name -> detector that may steer a search."""
        return {name: name for name in (COUNTER, *self._options.hub)}

    def clips(self) -> dict[str, str]:
        """Name -> CLIP that may score."""
        return {name: name for name in (BUNDLED, *self._options.hub)}

    @property
    def owner_tokens(self) -> Path:
        """Where count tokens go that the owner learns or uploads."""
        output = self._options.output.expanduser().resolve()
        return output / TOKENS / keyed(read_secret(output / ".secret"), self._owner)

    def forget_token(self, name: str) -> None:
        """Delete a count token of the owner's. Raises InputError."""
        Path(look_up(name, _files(self.owner_tokens), "count token of yours")).unlink(missing_ok=True)

    def options(self, choice: Choice) -> ModelOptions:
        """What the shell would be given for this choice. Raises InputError for a name that is not registered here."""
        models, loras = self.models(), self.loras()
        model = look_up(choice.model or next(iter(models)), models, "model")
        lora = [f"{look_up(name, loras, 'LoRA')}:{scale}" for name, scale in choice.loras]
        vae = look_up(choice.vae, self.vaes(), "VAE") if choice.vae else None
        config = self._config_of(Path(model))
        return ModelOptions(model, config, lora=lora, vae=vae, device=self._options.device, dtype=self._options.dtype)

    def check(self, choice: Choice) -> None:
        """Raise InputError for a name that is not registered here."""
        self.options(choice)

    def clip_for(self, clip: str | None, choice: Choice) -> str | None:
        """The CLIP of this name that scores images; without a name the bundled one for the bundled model's.

        None: no score, as for "none". Raises InputError.
        """
        if clip is None:
            return BUNDLED if self.options(choice).model in BUNDLED_FORMS else None
        return None if clip == NONE else look_up(clip, self.clips(), "CLIP")

    def with_files(self, plugins: Mapping[str, Any]) -> dict[str, Any]:
        """The plugins' options with files for the names among them. Raises InputError."""
        files: dict[str, Any] = {}
        if clip := plugins.get("long_clip"):
            files["long_clip"] = look_up(clip, self.long_clips(), "Long-CLIP")
        if tokens := plugins.get("count_token"):
            files["count_token"] = [look_up(name, self.tokens(), "count token") for name in tokens]
        if embeddings := plugins.get("embedding"):
            files["embedding"] = [look_up(name, self.embeddings(), "embedding") for name in embeddings]
        return {**plugins, **files}

    @contextmanager
    def pipeline(self, choice: Choice) -> "Iterator[tuple[DiffusionPipeline, ModelOptions]]":
        """The pipeline with its LoRAs, VAE and scheduler on, for one user at a time; afterwards it is as it was."""
        from t2i_tools.models.parts import sampler_of, use_loras, use_scheduler, use_vae

        options = self.options(choice)
        with self._opened.lock:
            pipe = self._base(options)
            scheduler, vae = pipe.scheduler, getattr(pipe, "vae", None)
            try:
                if choice.scheduler and choice.scheduler != str(sampler_of(scheduler)):
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

    def check_first(self) -> None:
        """Raise ModelError where the first model is none at first sight, before a server is started for it."""
        source = self.options(Choice()).model
        if source not in BUNDLED_FORMS:
            check_source(source)

    def warm(self) -> None:
        """Open the first model, so that whoever asks first need not wait for it. Says what is wrong with it."""
        try:
            with self._opened.lock:
                self._base(self.options(Choice()))
        finally:
            self._opened.warm.set()

    def reader(self, wait: float = 0.0) -> "DiffusionPipeline | None":
        """The open pipeline for reading prompts while a job has it; None when there is none yet, nor in `wait` s."""
        self._opened.warm.wait(wait)
        return self._opened.reader

    def _below(self, name: str) -> Path | None:
        return self._options.models and self._options.models / name

    def _config_of(self, model: Path) -> str | None:
        """The folder with the configuration of a checkpoint in the models' folder."""
        folder = self._options.models and self._options.models / CONFIGS / model.stem
        return str(folder) if folder and model.parent == self._options.models and folder.is_dir() else None

    def _base(self, options: ModelOptions) -> "DiffusionPipeline":
        opened = self._opened
        if opened.pipe is None or opened.source != options.model:
            if opened.pipe is not None:  # two may not fit: this one goes first
                opened.pipe = opened.reader = None
                gc.unfreeze()  # of what `launch` froze when it was open
                gc.collect()
            opened.pipe = open_model(replace(options, lora=None, vae=None))
            opened.source, opened.reader = options.model, _with_own_tokenizers(opened.pipe)
            opened.sizes.learn(opened.source, opened.pipe)
        return opened.pipe


def _with_own_tokenizers(pipe: "DiffusionPipeline") -> "DiffusionPipeline":
    """The same pipeline but for its tokenizers, which two threads may not use at once."""
    reader = copy.copy(pipe)
    for name, part in pipe.components.items():
        if name.startswith("tokenizer") and part is not None:
            setattr(reader, name, copy.deepcopy(part))
    return reader


def look_up(name: str, known: "Mapping[str, Path | str]", what: str) -> str:
    """What stands under a name. Raises FieldError that lists the known ones."""
    if not isinstance(name, str) or name not in known:
        names = ", ".join(known) or f"this server has no {what}"
        field = FIELDS.get(what, what.lower())
        raise FieldError(field, f"unknown {what} {shortened(repr(name))}: {names if not known else 'choose ' + names}")
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
    """What an image's file says of its count tokens."""
    records = [{"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()} for file in files]
    return {"count_token": records} if records else {}


def parse_loras(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """ "name:0.8" as ("name", 0.8), for each; the scale is 1 where none is given."""
    from t2i_tools.workflows.open_model import parse_lora

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

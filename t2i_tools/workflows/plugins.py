"""The plugins that options switch on, and what a file says about them."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast, get_args, get_type_hints

from t2i_tools.errors import InputError, ModelError
from t2i_tools.images.generate import Request, generate_image
from t2i_tools.images.sizes import Size, format_size, parse_size
from t2i_tools.models.anatomy import denoiser, native_size
from t2i_tools.models.families import find_family
from t2i_tools.workflows.choices import number_or_text
from t2i_tools.workflows.open_model import BUNDLED

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

    from t2i_tools.counting import CountToken
    from t2i_tools.counting.inversion import Inversion
    from t2i_tools.evaluation.grid import Make

OnStep: TypeAlias = Callable[[int, int], None]
# Option -> the plugins of which one must be on for it to mean anything.
OWNERS = {
    "native": ("entropy_scaling", "two_pass", "deep_shrink"),
    "compare": ("entropy_scaling", "two_pass", "deep_shrink", "long_prompts"),
    "entropy_rule": ("entropy_scaling",),
    "entropy_strength": ("entropy_scaling",),
    "entropy_layers": ("entropy_scaling",),
    "two_pass_strength": ("two_pass",),
    "deep_shrink_share": ("deep_shrink",),
    "deep_shrink_level": ("deep_shrink",),
    "long_clip": ("long_prompts",),
}


@dataclass(frozen=True)
class PluginOptions:
    """Each field is the option of the same name. Raises InputError for options without the plugin they belong to,
    and ModelError for files that cannot be opened."""

    entropy_scaling: bool = False
    native: str | None = None
    compare: bool = False
    entropy_rule: str = "sqrt_log"
    entropy_strength: float | str = 1.0  # "auto": by how a layer's tokens differ from those in training
    entropy_layers: str | None = None
    two_pass: bool = False
    two_pass_strength: float | None = None
    deep_shrink: bool = False
    deep_shrink_share: float | None = None
    deep_shrink_level: int | None = None
    long_prompts: str | None = None
    long_clip: str | None = None
    count_token: list[str] | None = None
    embedding: list[str] | None = None

    def __post_init__(self) -> None:
        for name, owners in OWNERS.items():
            if getattr(self, name) != getattr(type(self), name) and not any(getattr(self, one) for one in owners):
                raise InputError(f"{_flag(name)} goes with {' or '.join(map(_flag, owners))}")
        if self.native:
            parse_size(self.native)
        if self.entropy_scaling:
            from t2i_tools.entropy.formula import find_rule, find_strength

            find_rule(self.entropy_rule)
            find_strength(cast("Any", self.entropy_strength))
        if self.deep_shrink and self.two_pass:
            raise InputError(
                "--deep-shrink cannot be combined with --two-pass, which already draws its first steps near the native "
                "size: leave one of them out"
            )
        if self.deep_shrink and self.deep_shrink_share is not None and not 0 <= self.deep_shrink_share <= 1:
            raise InputError(f"--deep-shrink-share {self.deep_shrink_share:g} is out of range: use 0 to 1")
        if self.deep_shrink and self.deep_shrink_level is not None and self.deep_shrink_level < 1:
            raise InputError(f"--deep-shrink-level {self.deep_shrink_level} is out of range: use 1 or more")
        if self.long_prompts:
            from t2i_tools.longclip import check_method

            check_method(self.long_prompts, self.long_clip)
            file = Path(self.long_clip or "").expanduser()
            if file.suffix in (".safetensors", ".pt") and not file.exists():
                raise ModelError(f"no such file: {self.long_clip}")
        if self.count_token:
            self.tokens()
        if self.embedding:
            self.inversions()

    def tokens(self) -> "list[CountToken]":
        """The token of each --count-token. Raises ModelError, and InputError where two have the same word."""
        from t2i_tools.counting.token import CountToken, check_distinct

        files = self.count_token or ()
        tokens = list(map(CountToken.load, files))
        check_distinct(tokens, files)
        return tokens

    def inversions(self) -> "list[Inversion]":
        """The textual inversion of each embedding. Raises ModelError, and InputError where two have the same word."""
        from t2i_tools.counting.inversion import check_words, read_inversion

        inversions = list(map(read_inversion, self.embedding or ()))
        check_words(inversions)
        return inversions

    def unused_words(self, request: Request) -> list[str]:
        """A note on each embedding whose word the request does not have."""
        texts = request.prompt, request.negative or ""
        unused = [one for one in self.inversions() if not any(map(one.used_in, texts))]
        return [f"{one.file} does nothing: its word {one.word} is not in the prompt" for one in unused]

    def idle_at(self, pipe: "DiffusionPipeline", size: Size | None) -> list[str]:
        """A note on each plugin that changes nothing at this size. Raises InputError."""
        from t2i_tools.images.img2img import first_size

        if not (self.entropy_scaling or self.two_pass or self.deep_shrink):
            return []
        native = self.native_of(pipe)
        size = size or native_size(pipe) or native
        idle = {"entropy_scaling": size == native, "two_pass": first_size(pipe, size, native) == size}
        notes = [
            f"{_flag(name)} changes nothing at {format_size(size)}, the size that the model was trained at"
            for name, nothing in idle.items()
            if nothing and getattr(self, name)
        ]
        if self.deep_shrink and size[0] <= native[0] and size[1] <= native[1]:
            trained = f"the {format_size(native)} that the model was trained at"
            notes.append(f"--deep-shrink changes nothing at {format_size(size)}, which is no larger than {trained}")
        return notes

    def worded(self, request: Request) -> Request:
        """The request with the tokens' words in its prompt. Raises InputError where one has no place in it."""
        for inversion in self.inversions() if self.embedding else ():
            negative = request.negative and inversion.fill(request.negative)
            request = replace(request, prompt=inversion.fill(request.prompt), negative=negative)
        if not self.count_token:
            return request
        from t2i_tools.counting.token import fill_tokens

        return replace(request, prompt=fill_tokens(request.prompt, self.tokens()))

    def native_of(self, pipe: "DiffusionPipeline") -> Size:
        """(height, width) in pixels, given or the model's own. Raises InputError."""
        native = parse_size(self.native) if self.native else native_size(pipe)
        if native is None:
            raise InputError("this model does not say at which size it was trained: add --native WxH")
        return native


def own_scaling_note(pipe: "DiffusionPipeline") -> list[str]:
    """A note where the pipeline scales its attention by size itself, unless ours acts. Raises UnsupportedModelError."""
    from t2i_tools.models.compiled import unwrapped  # torch takes seconds

    own = find_family(unwrapped(denoiser(pipe))).own_scaling
    if own is None:
        return []
    off = ", ".join(f"{name}={value}" for name, value in own.off.items())
    return [
        f"{type(pipe).__name__} has its own scaling of attention by size, which entropy scaling replaces ({off}); "
        "images without entropy scaling still use the model's own"
    ]


def plugin_axes() -> dict[str, Callable[[str], Any]]:
    """Each option that a grid may vary -> what reads its values: off and on for a plugin, else a text or number."""
    kinds = get_type_hints(PluginOptions)
    return {name: _reader(kind) for name, kind in kinds.items() if name != "compare"}


def plugins_of(values: Mapping[str, Any]) -> PluginOptions:
    """The options of one cell of a grid, where those of a plugin that is off in it do not count."""
    on = {name: value for name, value in values.items() if name not in OWNERS or any(map(values.get, OWNERS[name]))}
    return PluginOptions(**on)


def with_plugins(
    pipe: "DiffusionPipeline", chosen: PluginOptions, request: Request, on_step: OnStep | None = None
) -> "tuple[Image.Image, dict[str, Any]]":
    """An image made with the plugins, and its settings about them; --compare: the one without them at its left."""
    request = chosen.worded(request)
    without = generate_image(pipe, request, on_step) if chosen.compare else None
    with plugins_on(pipe, chosen) as settings:
        image, passes = _draw(pipe, chosen, request, on_step)
    settings = settings | passes
    if without is None:
        return image, settings
    return side_by_side(without, image), {**settings, "compare": "off | on"}


def maker(chosen: PluginOptions) -> "Make":
    """`with_plugins` for `make_cell`."""
    return lambda pipe, request: with_plugins(pipe, chosen, request)


@contextmanager
def plugins_on(pipe: "DiffusionPipeline", chosen: PluginOptions) -> Iterator[dict[str, Any]]:
    """While it lasts, the chosen plugins act; yields the settings that record them, complete at the end."""
    with ExitStack() as stack:
        acting: dict[str, Any] = {"entropy_scaling": _entropy_scaling, "deep_shrink": _deep_shrink}
        acting |= {"long_prompts": _long_prompts, "count_token": _count_token, "embedding": _embedding}
        settings = {name: stack.enter_context(act(pipe, chosen)) for name, act in acting.items()}
        yield {name: value for name, value in settings.items() if value is not None}


@contextmanager
def _entropy_scaling(pipe: "DiffusionPipeline", chosen: PluginOptions) -> Iterator[dict[str, Any] | None]:
    if not chosen.entropy_scaling:
        yield None
        return
    from t2i_tools.entropy import entropy_scaling

    native = chosen.native_of(pipe)
    options: dict[str, Any] = {
        "rule": chosen.entropy_rule,
        "strength": chosen.entropy_strength,
        "layers": chosen.entropy_layers,
    }
    settings = {name: value for name, value in options.items() if value is not None} | {"native": format_size(native)}
    with entropy_scaling(pipe, native=native, **options) as handle:
        yield settings
        with warnings.catch_warnings():  # at the native size it warns that nothing was done
            warnings.simplefilter("ignore")
            gains = [row["gain"] for row in handle.report()]
        settings["gain"] = [round(min(gains), 4), round(max(gains), 4)]


@contextmanager
def _deep_shrink(pipe: "DiffusionPipeline", chosen: PluginOptions) -> Iterator[dict[str, Any] | None]:
    if not chosen.deep_shrink:
        yield None
        return
    from t2i_tools.shrink import deep_shrink
    from t2i_tools.shrink.formula import LEVEL, SHARE

    native = chosen.native_of(pipe)
    share = SHARE if chosen.deep_shrink_share is None else chosen.deep_shrink_share
    level = chosen.deep_shrink_level or LEVEL
    settings: dict[str, Any] = {"share": share, "level": level, "native": format_size(native)}
    with deep_shrink(pipe, native=native, level=level, share=share) as handle:
        yield settings
        with warnings.catch_warnings():  # at the native size it warns that nothing was done
            warnings.simplefilter("ignore")
            settings["steps"] = max(row["steps"] if row["acted"] else 0 for row in handle.report())


@contextmanager
def _long_prompts(pipe: "DiffusionPipeline", chosen: PluginOptions) -> Iterator[dict[str, Any] | None]:
    if not chosen.long_prompts:
        yield None
        return
    from t2i_tools.bundled import LONG_CLIP
    from t2i_tools.longclip import long_prompts

    settings: dict[str, Any] = {"method": chosen.long_prompts}
    if chosen.long_clip:
        settings["long_clip"] = Path(chosen.long_clip).name
    weights = LONG_CLIP if chosen.long_clip == BUNDLED else chosen.long_clip
    with long_prompts(pipe, cast("Any", chosen.long_prompts), weights=weights) as handle:
        yield settings
        settings |= {name: value for name, value in handle.report()[0].items() if name != "encoder"}


@contextmanager
def _count_token(pipe: "DiffusionPipeline", chosen: PluginOptions) -> Iterator[list[dict[str, Any]] | None]:
    if not chosen.count_token:
        yield None
        return
    from t2i_tools.counting import count_token

    tokens = chosen.tokens()
    with ExitStack() as stack:
        for token in tokens:
            stack.enter_context(count_token(pipe, token))
        yield [
            {"file": Path(file).name, "word": token.word, "n": token.n}
            for file, token in zip(chosen.count_token, tokens, strict=True)
        ]


@contextmanager
def _embedding(pipe: "DiffusionPipeline", chosen: PluginOptions) -> Iterator[list[dict[str, Any]] | None]:
    if not chosen.embedding:
        yield None
        return
    from t2i_tools.counting.inversion import textual_inversion

    inversions = chosen.inversions()
    with ExitStack() as stack:
        for inversion in inversions:
            stack.enter_context(textual_inversion(pipe, inversion))
        yield [{"file": inversion.file, "word": inversion.word} for inversion in inversions]


def _draw(
    pipe: "DiffusionPipeline", chosen: PluginOptions, request: Request, on_step: OnStep | None
) -> "tuple[Image.Image, dict[str, Any]]":
    """The image of a request, in one pass or two, and what its file records of the first of two."""
    if not (chosen.two_pass and request.size):
        return generate_image(pipe, request, on_step), {}
    from t2i_tools.images.img2img import STRENGTH, first_size, two_pass

    native = chosen.native_of(pipe)
    strength = STRENGTH if chosen.two_pass_strength is None else chosen.two_pass_strength
    (image,) = two_pass(pipe, [request], strength=strength, native=native, on_step=on_step)
    first = first_size(pipe, request.size, native)
    passes = {"two_pass": {"strength": strength, "first": format_size(first), "native": format_size(native)}}
    return image, passes if first != request.size else {}


def side_by_side(left: "Image.Image", right: "Image.Image") -> "Image.Image":
    """Two pictures of one size as one."""
    from PIL import Image

    both = Image.new("RGB", (left.width + right.width, left.height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


def _switch(text: str) -> bool:
    if text not in ("off", "on"):
        raise InputError(f"{text!r} is not a valid value: use on or off")
    return text == "on"


def _reader(kind: Any) -> Callable[[str], Any]:
    """What makes a value of an option's type from its text. Raises ValueError or InputError."""
    if kind is bool:
        return _switch
    if {float, str} <= set(get_args(kind)):
        return number_or_text
    for number in (float, int):
        if number in (kind, *get_args(kind)):
            return number
    if list[str] in get_args(kind):
        return lambda text: None if text == "off" else [text]
    return (lambda text: None if text == "off" else text) if get_args(kind) else str


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")

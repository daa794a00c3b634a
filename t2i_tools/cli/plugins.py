"""The plugins that `t2i generate` switches on, and what a file tells about them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t2i_tools.errors import InputError
from t2i_tools.models import native_size
from t2i_tools.sizes import format_size, parse_size

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image


@dataclass(frozen=True)
class PluginOptions:
    """Each field is the option of the same name. Raises InputError for options without the plugin they belong to."""

    entropy_scaling: bool = False
    native: str | None = None
    compare: bool = False

    def __post_init__(self) -> None:
        if self.native and not self.entropy_scaling:
            raise InputError("--native goes with --entropy-scaling")
        if self.compare and not self.entropy_scaling:
            raise InputError("--compare shows a plugin's effect: add --entropy-scaling")
        if self.native:
            parse_size(self.native)


def with_plugins(
    pipe: "DiffusionPipeline", chosen: PluginOptions, make: Callable[[], "Image.Image"]
) -> "tuple[Image.Image, dict[str, Any]]":
    """An image made with the plugins, and its settings about them; --compare: the one without them at its left."""
    without = make() if chosen.compare else None
    with plugins_on(pipe, chosen) as settings:
        image = make()
    if without is None:
        return image, settings
    return side_by_side(without, image), {**settings, "compare": "off | on"}


@contextmanager
def plugins_on(pipe: "DiffusionPipeline", chosen: PluginOptions) -> Iterator[dict[str, Any]]:
    """While it lasts, the chosen plugins act; yields the settings that tell of them."""
    if not chosen.entropy_scaling:
        yield {}
        return
    from t2i_tools.entropy import entropy_scaling

    native = parse_size(chosen.native) if chosen.native else native_size(pipe)
    if native is None:
        raise InputError("--entropy-scaling: this model does not say at which size it was trained, add --native WxH")
    with entropy_scaling(pipe, native=native):
        yield {"entropy_scaling": {"rule": "sqrt-log", "strength": 1.0, "native": format_size(native)}}


def side_by_side(left: "Image.Image", right: "Image.Image") -> "Image.Image":
    """Two pictures of one size as one."""
    from PIL import Image

    both = Image.new("RGB", (left.width + right.width, left.height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both

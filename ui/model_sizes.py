"""The sizes that models were trained at and their usual steps, as far as that is known without opening them."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from t2i_tools.bundled import BUNDLED_SIZE, bundled_defaults
from t2i_tools.errors import ModelError
from t2i_tools.images.signature import call_default
from t2i_tools.images.sizes import Size
from t2i_tools.models.anatomy import native_size, size_multiple
from t2i_tools.models.outline import outline
from t2i_tools.workflows.open_model import BUNDLED_FEW_STEPS, BUNDLED_FORMS

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class ModelSize(NamedTuple):
    """native: (height, width) in pixels. multiple: of which each side has to be a whole one."""

    native: Size
    multiple: int


class ModelSizes:
    """Source of a model -> its size, which a folder's configuration says, and all others once they have been opened."""

    def __init__(self) -> None:
        self._known: dict[str, ModelSize | None] = dict.fromkeys(BUNDLED_FORMS, ModelSize(BUNDLED_SIZE, 8))
        self._steps: dict[str, int] = {
            form: bundled_defaults(few_steps=form == BUNDLED_FEW_STEPS)[0] for form in BUNDLED_FORMS
        }

    def of(self, source: str) -> ModelSize | None:
        """The size; None while it is not known."""
        if source not in self._known and Path(source).is_dir():
            try:
                self.learn(source, outline(Path(source)))
            except ModelError:
                self._known[source] = None
        return self._known.get(source)

    def steps(self, source: str) -> int | None:
        """The denoising steps of an image where none are asked for; None while they are not known."""
        return self._steps.get(source)

    def learn(self, source: str, pipe: "DiffusionPipeline") -> None:
        """Note what a pipeline says."""
        native = native_size(pipe)
        if steps := call_default(pipe, "num_inference_steps"):
            self._steps.setdefault(source, steps)
        self._known[source] = ModelSize(native, size_multiple(pipe)) if native else None

"""What the first job of each kind would import and open, done while the server has nothing else to do."""

from collections.abc import Callable
from functools import partial
from importlib import import_module

from t2i_tools.workflows.open_model import BUNDLED_FORMS

from .objects import bundled_judge
from .options import AppOptions

# Those that take long come last, for a job that is queued meanwhile waits for one of them.
MODULES = (
    "t2i_tools.images.eight_bits",
    "t2i_tools.images.img2img",
    "t2i_tools.counting.count_run",
    "t2i_tools.evaluation.grid",
    "t2i_tools.evaluation.runs.runner",
    "t2i_tools.evaluation.reports.report",
    "t2i_tools.padding.probe",
)


def preparations(options: AppOptions) -> list[Callable[[], object]]:
    """Return what to import and open for first jobs, as steps to run one after the other."""
    judge: list[Callable[[], object]] = [bundled_judge] if options.model in BUNDLED_FORMS else []
    return judge + [partial(import_module, name) for name in MODULES]

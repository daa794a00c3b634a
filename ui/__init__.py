"""The Gradio app: `t2i ui`, `python -m t2i_tools.ui`, or `launch()` in the app.py of a Space.

jobs/    what a job of each kind takes and does, over the library
pages/   one page each, of the parts in layout.py and panel.py; api.py the endpoints
"""

from typing import Any

__all__ = ["AppOptions", "launch"]


def __getattr__(name: str) -> Any:
    if name == "launch":
        from .app import launch

        return launch
    if name == "AppOptions":
        from .options import AppOptions

        return AppOptions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

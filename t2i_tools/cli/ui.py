"""`t2i ui`: the app in a browser."""

from typing import Any

from t2i_tools.cli import options
from t2i_tools.errors import InputError, install
from t2i_tools.workflows.limits import Limits
from t2i_tools.workflows.server_options import ServerOptions


@options.with_options(ServerOptions, Limits)
def ui(**option_values: Any) -> None:
    """Open the app: everything in the browser, with a queue of jobs that survives a restart."""
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise InputError(f"the app needs gradio: {install('app')}")
    server = options.pick(ServerOptions, option_values)
    from t2i_tools.ui import AppOptions, launch

    launch(AppOptions.of(server, options.pick(Limits, option_values)))

"""Gradio's server, set up so that nothing leaves this machine and nothing outside the output folder is served."""

import os
import webbrowser
from typing import Any

import gradio as gr
from fastapi import Request
from fastapi.responses import JSONResponse
from gradio.route_utils import FnIndexInferError
from starlette.middleware import Middleware

from t2i_tools.errors import InputError, first_line
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.disk import UploadLimit
from t2i_tools.ui.owner import OwnerCookie
from t2i_tools.ui.theme import CSS, theme

LOCAL, LOOKS = "127.0.0.1", 10
UNEXPECTED = (TypeError, ValueError, KeyError, FnIndexInferError, Exception)


def serve(page: gr.Blocks, desk: Desk) -> gr.Blocks:
    """Start the server and come back. Raises InputError when the port is taken or cannot be reached."""
    options = desk.options
    host = options.host or os.environ.get("GRADIO_SERVER_NAME") or LOCAL
    page.queue(max_size=None, default_concurrency_limit=None)
    for look in range(1, LOOKS + 1):
        try:
            _launch(page, host, desk)
            break
        except OSError as error:
            raise InputError(f"cannot serve at {host}: {first_line(error)}") from error
        except ValueError as error:  # Gradio looks at its own page for 3 s, in which a busy machine does not answer
            if look == LOOKS:
                raise InputError(f"cannot serve at {host}: {first_line(error)}") from error
    url = page.local_url
    print(f"t2i-tools at {url} (Ctrl-C ends it); images and queue in {desk.output}", flush=True)
    if options.browser:
        webbrowser.open(url)
    return page


def _launch(page: gr.Blocks, host: str, desk: Desk) -> None:
    """Start Gradio's server or, where it runs already, look at it again."""
    options = desk.options
    page.launch(
        server_name=host,
        server_port=options.port,
        auth=list(options.auth) or None,
        share=False,
        prevent_thread_lock=True,
        quiet=True,
        max_file_size=options.limits.upload_mib * 2**20,
        footer_links=["api"],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        app_kwargs={
            "exception_handlers": dict.fromkeys(UNEXPECTED, _one_line),
            "middleware": [Middleware(OwnerCookie), Middleware(UploadLimit, desk=desk)],
        },
        theme=theme(),
        css=CSS,
    )


async def _one_line(request: Request, error: Exception) -> Any:
    """What Gradio does not expect, such as a parameter that an endpoint does not have, as one line and no traceback."""
    if isinstance(error, KeyError):
        return JSONResponse({"detail": f"unknown endpoint {first_line(error)}"}, status_code=404)
    return JSONResponse({"detail": first_line(error)}, status_code=422)

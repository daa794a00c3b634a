"""Gradio's server, set up so that nothing leaves this machine and nothing outside the output folder is served."""

import os
import socket
import sys
import webbrowser
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import Request
from fastapi.responses import JSONResponse
from gradio.route_utils import FnIndexInferError
from starlette.middleware import Middleware

from t2i_tools.errors import InputError, first_line
from t2i_tools.files import UNUSABLE

from .identity import OwnerCookie
from .security import LOOPBACK, BodyLimit, HostCheck, LoginBrake, Logins, SafeHeaders, known_hosts
from .service import Service
from .sessions import MAX_SESSIONS
from .theme import CSS, theme
from .upload_quota import UploadLimit

HERE = Path(__file__).parent
LOCAL, LOOKS, SPARE = "127.0.0.1", 10, 64
UNEXPECTED = (TypeError, ValueError, KeyError, FnIndexInferError, OSError, Exception)


def serve(page: gr.Blocks, service: Service) -> gr.Blocks:
    """Start the server and come back. Raises InputError when the port is taken or cannot be reached."""
    options = service.options
    host = options.host or os.environ.get("GRADIO_SERVER_NAME") or LOCAL
    page.queue(max_size=None, default_concurrency_limit=None)
    check_host(host)
    for look in range(1, LOOKS + 1):
        try:
            _launch(page, host, service)
            break
        except OSError as error:
            raise InputError(f"cannot serve at {host}: {first_line(error)}") from error
        except ValueError as error:  # Gradio looks at its own page for 3 s, in which a busy machine does not answer
            if look == LOOKS:
                raise InputError(f"cannot serve at {host}: {first_line(error)}") from error
    url = page.local_url
    print(f"t2i-tools at {url} (Ctrl-C ends it); images and queue in {service.output}", flush=True)
    if options.root_path and host in LOOPBACK and not options.allowed_hosts:
        note = "POST requests to the proxy's public name will be refused: add --allowed-host NAME, the name in its URL"
        print(f"t2i: {note}", file=sys.stderr, flush=True)
    if options.browser:
        webbrowser.open(url)
    return page


def check_host(host: str) -> None:
    """Raise InputError for an address that this machine does not have: Gradio would talk of its ports."""
    try:
        family, kind, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as tried:
            tried.bind(address)
    except OSError as error:
        raise InputError(f"--host {host} is not an address of this machine: {error.strerror or error}") from error


def _launch(page: gr.Blocks, host: str, service: Service) -> None:
    """Start Gradio's server or, where it runs already, look at it again."""
    options = service.options
    page.launch(
        server_name=host,
        server_port=options.port,
        auth=Logins(options.auth) if options.auth else None,
        root_path=options.root_path or None,
        state_session_capacity=MAX_SESSIONS,
        max_threads=options.limits.queue + SPARE,  # every open job has an event of Gradio's, which must not run out
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
            "middleware": [
                Middleware(HostCheck, hosts=known_hosts(host, options.allowed_hosts)),
                Middleware(SafeHeaders),
                Middleware(LoginBrake),
                Middleware(OwnerCookie),
                Middleware(BodyLimit, mib=options.limits.upload_mib),
                Middleware(UploadLimit, service=service),
            ],
        },
        theme=theme(),
        css="\n".join([CSS, *_texts("*.css")]),
        head="".join(f"<script>{script}</script>" for script in _texts("*.js")),
    )


def _texts(pattern: str) -> list[str]:
    """Of the files beside this one."""
    return [path.read_text(encoding="utf-8") for path in sorted(HERE.glob(pattern))]


async def _one_line(request: Request, error: Exception) -> Any:
    """What Gradio does not expect, such as a parameter that an endpoint does not have, as one line and no traceback."""
    if isinstance(error, KeyError):
        return JSONResponse({"detail": f"unknown endpoint {first_line(error)}"}, status_code=404)
    if isinstance(error, OSError) and error.errno in UNUSABLE:  # an upload's, whose path is nobody's business
        message = f"the server cannot write a file ({error.strerror}): ask its operator to fix the disk"
        return JSONResponse({"detail": message}, status_code=507)
    return JSONResponse({"detail": first_line(error)}, status_code=422)

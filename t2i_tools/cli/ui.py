"""`t2i ui`: the app in a browser."""

from pathlib import Path
from typing import Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.errors import InputError
from t2i_tools.ui.limits import Limits


@options.with_options(Limits)
def ui(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The first free one from 7860 on.")] = None,
    host: Annotated[
        str | None, typer.Option(help="127.0.0.1: this machine alone; 0.0.0.0: everyone who can reach it.")
    ] = None,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Images and the queue.")] = Path("outputs"),
    model: Annotated[
        str, typer.Option(help="The one chosen at first: bundled, a name, folder or Hub id.")
    ] = options.BUNDLED,
    models: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Checkpoints to choose from; parts of them in loras/, vaes/, long-clips/, tokens/."
        ),
    ] = None,
    hub: Annotated[
        list[str] | None, typer.Option(metavar="OWNER/NAME", help="A Hub model to choose; may be repeated.")
    ] = None,
    auth: Annotated[
        list[str] | None, typer.Option(metavar="USER:PASSWORD", help="Ask for a login; may be repeated.")
    ] = None,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    *,
    device: options.Device = None,
    dtype: options.Dtype = None,
    **given: Any,
) -> None:
    """Open the app: generate and compare in the browser, with a queue that survives a restart."""
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise InputError("the app needs gradio: pip install 't2i-tools[app]'")
    if models and not models.is_dir():
        raise InputError(f"--models {models} is not a folder")
    from t2i_tools.ui import AppOptions, launch

    launch(
        AppOptions(
            output=output,
            model=model,
            models=models,
            hub=tuple(hub or ()),
            host=host,
            port=port,
            auth=tuple(map(parse_login, auth or ())),
            browser=browser,
            device=device,
            dtype=dtype,
            limits=options.pick(Limits, given),
        )
    )


def parse_login(text: str) -> tuple[str, str]:
    """ "user:password" as a pair. Raises InputError."""
    user, _, password = text.partition(":")
    if not (user and password):
        raise InputError("--auth takes USER:PASSWORD")
    return user, password

"""The `t2i` command: one module and one thin function a verb. No module here imports torch before its verb runs."""

import sys
from importlib import import_module
from typing import Annotated

import typer

from t2i_tools import __version__
from t2i_tools.errors import T2IError, first_line

VERBS = ("generate", "count", "tokens", "probe", "sizes", "advise", "detect", "evaluate", "grid", "ui", "doctor")
UsageError = typer.BadParameter.__base__  # click's own; typer names it nowhere, and newer ones carry click inside

app = typer.Typer(help="Text-to-image tools for diffusers, with a small bundled model.", add_completion=False)
for _verb in VERBS:
    _function = getattr(import_module(f"{__name__}.{_verb}"), _verb)
    if isinstance(_function, typer.Typer):  # a verb with verbs of its own
        app.add_typer(_function, name=_verb)
    else:
        app.command(_verb)(_function)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"t2i-tools {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _no_verb(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: list[str] | None = None) -> None:
    """Run `t2i` and leave with its exit code: 0, 2 after one line on what is wrong, 130 after Ctrl-C."""
    try:
        code = app(arguments, prog_name="t2i", standalone_mode=False)
    except T2IError as error:
        code = _complain(str(error))
    except ImportError as error:
        code = _complain(f"a package is missing or broken ({first_line(error)}): t2i doctor says which, and what to do")
    except UsageError as error:
        code = _complain(error.format_message())
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        sys.stderr.close()
        code = 141
    sys.exit(code or 0)


def _complain(message: str) -> int:
    print("t2i:", " ".join(message.split()), file=sys.stderr)
    return 2

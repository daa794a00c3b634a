"""`python -m t2i_tools.ui` serves the app without the shell, with the options of `t2i ui`."""

import argparse
import sys
import traceback
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any, get_origin

from t2i_tools.errors import T2IError, debugging
from t2i_tools.workflows.limits import Limits
from t2i_tools.workflows.server_options import ServerOptions, flag_of, kind_of

from . import AppOptions, launch


def main(arguments: list[str] | None = None) -> None:
    """Serve until interrupted; 2 is the exit code after one line on what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m t2i_tools.ui", description="Serve the app.")
    for one in (*fields(ServerOptions), *fields(Limits)):
        _add(parser, one)
    values = vars(parser.parse_args(arguments))
    try:
        server, limits = (
            kind(**{one.name: values[one.name] for one in fields(kind)}) for kind in (ServerOptions, Limits)
        )
        launch(AppOptions.of(server, limits))
    except T2IError as error:
        if debugging():
            traceback.print_exc()
        print("t2i:", error, file=sys.stderr)
        sys.exit(2)


def _add(parser: argparse.ArgumentParser, one: Field) -> None:
    """The option of a field."""
    about, kind = one.metadata, kind_of(one)
    names = [*filter(None, [about.get("short")]), flag_of(one)]
    shown: dict[str, Any] = {"dest": one.name, "default": one.default, "help": about["help"]}
    if kind is bool:
        parser.add_argument(*names, action="store_true", **shown)
    elif get_origin(kind) is list:
        parser.add_argument(*names, action="append", metavar=about["metavar"], **shown)
    else:
        parser.add_argument(*names, type=_number(one) if kind is int else kind, metavar=about["metavar"], **shown)


def _number(one: Field) -> Callable[[str], int]:
    """Reads a whole number within the field's bounds."""
    least, most = one.metadata["least"], one.metadata.get("most")

    def number(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(
                f"{value} is out of range: use {least} " + ("or more" if most is None else f"to {most}")
            )
        return value

    return number


if __name__ == "__main__":
    main()

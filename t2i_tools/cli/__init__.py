"""The `t2i` command: one module and one thin function per verb. No module here imports torch before its verb runs."""

import os
import re
import sys
import traceback
import warnings
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

import typer

from t2i_tools._version import __version__
from t2i_tools.cli.commands import Group, Verb
from t2i_tools.errors import DEBUG, InputError, T2IError, debugging, first_line
from t2i_tools.files import UNUSABLE, unwritable

VERBS = (
    "generate",
    "settings",
    "count",
    "tokens",
    "probe",
    "sizes",
    "advise",
    "detect",
    "detector",
    "evaluate",
    "grid",
    "ui",
    "doctor",
)
UsageError: Any = typer.BadParameter.__base__  # click's own; typer names it nowhere, and newer ones carry click inside

app = typer.Typer(
    cls=Group,
    help="Text-to-image tools for diffusers, with a small bundled model. In values such as best_of, - and _ are alike.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb in VERBS:
    _function = getattr(import_module(f"{__name__}.{_verb}"), _verb)
    if isinstance(_function, typer.Typer):  # it has subcommands
        app.add_typer(_function, name=_verb)
    else:
        app.command(_verb, cls=Verb)(_function)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"t2i-tools {__version__}")
        raise typer.Exit


def _debug(wanted: bool) -> None:
    if wanted:
        os.environ[DEBUG] = "1"


@app.callback(invoke_without_command=True)
def _no_verb(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            callback=_debug,
            is_eager=True,
            help="Show tracebacks and the warnings of libraries; before or after the verb. T2I_DEBUG=1 does the same.",
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
    elif context.invoked_subcommand != "ui" and not debugging():  # a server's log keeps its warnings
        _ignore_warnings()


def _ignore_warnings() -> None:
    """Ignore warnings here and in worker processes, unless the user has said which to show."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        os.environ["PYTHONWARNINGS"] = "ignore"


def main(arguments: list[str] | None = None) -> None:
    """Run `t2i` and leave with its exit code: 0, 2 after one line on what is wrong, 130 after Ctrl-C."""
    words = _debug_first(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(words, prog_name="t2i", standalone_mode=False)
        _flush()
    except T2IError as error:
        code = _complain(str(error))
    except ImportError as error:
        code = _complain(f"a package is missing or broken ({first_line(error)}): t2i doctor says which, and what to do")
    except UsageError as error:
        code = _complain(_with_hint(error.format_message()))
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        sys.stderr.close()
        code = 141
    except OSError as error:
        if "temporary directory" in str(error):  # of Python's own, which looks for one that it can write
            code = _complain("no writable folder for temporary files: free some space, or set TMPDIR to another folder")
        elif error.errno in UNUSABLE:
            code = _complain(str(_full_disk(error)))
        else:
            raise
    sys.exit(code or 0)


def _full_disk(error: OSError) -> InputError:
    """What to say of a verb's error, with the file if that can be known: one of write() does not name it."""
    try:
        _flush()
    except InputError as printed:
        return unwritable(error.filename, error) if error.filename else printed
    return unwritable(error.filename or "a file or what is printed", error)


def _flush() -> None:
    """Write what is printed now: at exit nobody could say what is wrong with it. Raises InputError on a full disk."""
    try:
        print(end="", flush=True)
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise
        with suppress(OSError):  # Python's end is to find no output that it would fail to write once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise unwritable("what is printed", error) from error


def _with_hint(message: str) -> str:
    """What the parser says, and what is probably wrong."""
    if "unexpected extra argument" in message:
        return f"{message}: put a text of several words in quotes"
    if number := re.fullmatch(r"No such option:? '?(-[0-9.]+)'?.*", message):
        return f"{number[1]} is not an option, and no argument can be below 0"
    return message


def _debug_first(arguments: list[str]) -> list[str]:
    """The arguments with `--debug` moved before the verb; behind `--` nothing is an option."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    others = [word for word in arguments[:end] if word != "--debug"]
    return [*["--debug"] * (len(others) < end), *others, *arguments[end:]]


def _complain(message: str) -> int:
    if debugging():
        traceback.print_exc()
    print("t2i:", " ".join(message.split()), file=sys.stderr)
    return 2

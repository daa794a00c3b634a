"""The options of the app's server: one table for `t2i ui` and `python -m t2i_tools.ui`."""

from dataclasses import Field, dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from t2i_tools.errors import InputError, first_line
from t2i_tools.models.dtypes import dtype_name
from t2i_tools.workflows.open_model import BUNDLED, DEVICE_HELP, DTYPE_HELP, MODEL_HELP


def option(default: Any, metavar: str, text: str, **more: Any) -> Any:
    """A field and its option: what its value is called, its help text; least, most, short letter, or `shared`, which
    stands for an option that other verbs have as well."""
    return field(default=default, metadata={"metavar": metavar, "help": text, **more})


@dataclass(frozen=True)
class ServerOptions:
    """How the app is served; each field is an option. Raises InputError."""

    port: int | None = option(None, "N", "The port; the first free one from 7860 by default.", least=1, most=65535)
    host: str | None = option(
        None,
        "NAME",
        "The address to serve: 127.0.0.1, the default, is for this machine alone, 0.0.0.0 for all who can reach it.",
    )
    output: Path = option(Path("outputs"), "FOLDER", "Where images and the queue of jobs are kept.", short="-o")
    model: str = option(BUNDLED, "bundled|FOLDER|FILE|HUB_ID", MODEL_HELP, short="-m", shared=True)
    models: Path | None = option(
        None,
        "FOLDER",
        "Models to choose from; their parts lie in its loras/, vaes/, embeddings/, long-clips/ and tokens/, the "
        "configuration of NAME.safetensors in configs/NAME/.",
    )
    hub: list[str] | None = option(None, "OWNER/NAME", "A model of the Hub that users may choose; may be repeated.")
    auth: list[str] | None = option(None, "USER:PASSWORD", "Ask for a login; may be repeated.")
    auth_file: Path | None = option(
        None,
        "FILE",
        "Ask for a login: one USER:PASSWORD per line. Unlike those of --auth, they are not in the list of processes.",
    )
    root_path: str = option("", "PATH", "The path at which a proxy shows the app, for instance /t2i.")
    allowed_host: list[str] | None = option(None, "NAME", "A name of this server besides 127.0.0.1; may be repeated.")
    open: bool = option(False, "", "Open the page in the browser.")
    device: str | None = option(None, "NAME", DEVICE_HELP, shared=True)
    dtype: str | None = option(None, "fp32|fp16|bf16", DTYPE_HELP, shared=True)

    def __post_init__(self) -> None:
        if self.models and not self.models.is_dir():
            raise InputError(f"--models {self.models} is not a folder")
        if self.dtype is not None:
            object.__setattr__(self, "dtype", dtype_name(self.dtype))

    def logins(self) -> tuple[tuple[str, str], ...]:
        """(user, password) of all logins. Raises InputError."""
        return (*map(parse_login, self.auth or ()), *(read_logins(self.auth_file) if self.auth_file else ()))


def flag_of(one: Field) -> str:
    """The option of a field: "--max-open-jobs" of the limit open_jobs, "--auth-file" of auth_file."""
    return f"--{one.metadata.get('prefix', '')}{one.name.replace('_', '-')}"


def kind_of(one: Field) -> Any:
    """The type of a field's value where it has one: int of `int | None`."""
    kinds = [kind for kind in get_args(one.type) if kind is not NoneType]
    return kinds[0] if kinds else one.type


def parse_login(text: str) -> tuple[str, str]:
    """ "user:password" as a pair. Raises InputError, which never repeats a password."""
    user, _, password = text.partition(":")
    if not (user and password):
        raise InputError("--auth takes USER:PASSWORD")
    return user, password


def read_logins(path: Path) -> tuple[tuple[str, str], ...]:
    """The logins in a file, one USER:PASSWORD per line; blank lines and those that start with # are passed over.

    Raises InputError, which never repeats a line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read --auth-file {path}: {first_line(error)}") from error
    logins = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            user, _, password = line.partition(":")
            if not (user and password):
                raise InputError(f"--auth-file {path}, line {number}: not USER:PASSWORD")
            logins.append((user, password))
    if not logins:
        raise InputError(f"--auth-file {path} holds no login")
    return tuple(logins)

"""What the server is started with."""

from dataclasses import dataclass, field
from pathlib import Path

from t2i_tools.workflows.limits import Limits
from t2i_tools.workflows.open_model import BUNDLED
from t2i_tools.workflows.server_options import ServerOptions


@dataclass(frozen=True)
class AppOptions:
    """model: the one chosen at first. models: a folder of checkpoints, with parts in loras/, vaes/, long-clips/,
    embeddings/ and tokens/ below it. hub: Hub ids that may be opened. output: where images and the queue stay. auth:
    (user, password) pairs. root_path: where a proxy shows the app. allowed_hosts: names by which it may be called
    besides those of this machine.
    """

    output: Path = Path("outputs")
    model: str = BUNDLED
    models: Path | None = None
    hub: tuple[str, ...] = ()
    host: str | None = None
    port: int | None = None
    auth: tuple[tuple[str, str], ...] = ()
    browser: bool = False
    device: str | None = None
    dtype: str | None = None
    limits: Limits = field(default_factory=Limits)
    root_path: str = ""
    allowed_hosts: tuple[str, ...] = ()

    @classmethod
    def of(cls, server: ServerOptions, limits: Limits) -> "AppOptions":
        """From what the command line says. Raises InputError."""
        return cls(
            output=server.output,
            model=server.model,
            models=server.models,
            hub=tuple(server.hub or ()),
            host=server.host,
            port=server.port,
            auth=server.logins(),
            browser=server.open,
            device=server.device,
            dtype=server.dtype,
            limits=limits,
            root_path=server.root_path,
            allowed_hosts=tuple(server.allowed_host or ()),
        )

    def __post_init__(self) -> None:
        if self.auth:
            object.__setattr__(self, "limits", self.limits.shared())

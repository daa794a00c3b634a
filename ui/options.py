"""What the server is started with."""

from dataclasses import dataclass, field
from pathlib import Path

from t2i_tools.cli.options import BUNDLED
from t2i_tools.ui.limits import Limits


@dataclass(frozen=True)
class AppOptions:
    """model: the one chosen at first. models: a folder of checkpoints, with parts in loras/, vaes/, long-clips/ and
    tokens/ below it. hub: Hub ids that may be opened. output: where images and the queue stay. auth: (user, password)
    pairs.
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

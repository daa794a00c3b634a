"""Finds `t2i_tools.ui` and `t2i_tools.pipelines` in a checkout, where they are the folders beside the package.

An installed package holds both, and needs none of this.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing and pathlib would double the time that `import t2i_tools` takes
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
FOLDERS = {f"{__package__}.{name}": os.path.join(ROOT, name) for name in ("ui", "pipelines")}


class FinderBeside:
    """Finds the two packages and nothing else; their modules are then found inside them as usual."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of one of the two packages, None for every other name."""
        if name not in FOLDERS:
            return None
        from importlib.util import spec_from_file_location

        folder = FOLDERS[name]
        return spec_from_file_location(name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])


def install() -> None:
    """Find the two, before an editable installation of another checkout could."""
    is_checkout = os.path.isfile(os.path.join(ROOT, "pyproject.toml")) and all(map(os.path.isdir, FOLDERS.values()))
    if is_checkout and not any(isinstance(finder, FinderBeside) for finder in sys.meta_path):
        sys.meta_path.insert(0, FinderBeside())

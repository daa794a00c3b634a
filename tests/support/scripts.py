"""Modules of the examples, which import each other by bare name from the folder of the script."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parents[2] / "examples"


def example_module(path: str) -> ModuleType:
    """The module of examples/PATH.py, as a script in its folder would import it."""
    folder, name = str((EXAMPLES / path).parent), Path(path).name
    sys.path.insert(0, folder)
    try:
        return import_module(name)
    finally:
        sys.path.remove(folder)

"""Sphinx: `sphinx-build -W docs docs/_build` makes the pages."""

import sys
from importlib import metadata
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
import house  # noqa: E402
import reference_pages  # noqa: E402
import results  # noqa: E402

project = "t2i-tools"
copyright = "2026, the t2i-tools authors"
try:
    release = metadata.version("t2i-tools")
except metadata.PackageNotFoundError:
    release = "checkout"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "imports.md", "reference/names.md"]
html_theme = "furo"
html_title = f"t2i-tools {release}"

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
nitpicky = False

results.write(Path(__file__).parent)
house.write(Path(__file__).parent)
reference_pages.write(Path(__file__).parent)

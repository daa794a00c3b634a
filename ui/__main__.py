"""`python -m t2i_tools.ui` is `t2i ui`."""

import sys

from t2i_tools.cli import main

main(["ui", *sys.argv[1:]])

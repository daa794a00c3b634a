"""`python -m t2i_tools` is the `t2i` command; `accelerate launch -m t2i_tools` gives it to every rank."""

from t2i_tools.cli import main

main()

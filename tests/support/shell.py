"""The shell, run in this process."""

import re

import pytest

from t2i_tools.cli import main


def run_shell(capsys, *arguments):
    """(exit code, stdout, stderr) of `t2i ARGUMENTS`."""
    with pytest.raises(SystemExit) as left:
        main([*map(str, arguments)])
    captured = capsys.readouterr()
    return left.value.code, captured.out, captured.err


def complains(result, says):
    """Exit code 2 and one line on stderr that matches, nothing on stdout."""
    code, out, err = result
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("t2i: ")
    assert re.search(says, err), err

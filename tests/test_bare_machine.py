"""What we import runs on a machine without a desktop's libraries, as in a slim container."""

import shutil
import subprocess
import sys

import pytest

CODE = """
import cv2, ultralytics.nn.tasks
import t2i_tools.detectors, t2i_tools.images.generate
files = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line and "site-packages" in line}
print(*sorted(file for file in files if "/nvidia/" not in file and "/torch/" not in file), sep="\\n")
"""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("ldd") is None, reason="needs ldd")
def test_no_native_module_asks_for_libgl():
    pytest.importorskip("ultralytics")
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    modules = [line for line in result.stdout.splitlines() if line.startswith("/")]
    assert any("cv2" in module for module in modules)
    listed = subprocess.run(["ldd", *modules], capture_output=True, text=True).stdout
    assert not [line.strip() for line in listed.splitlines() if "libGL." in line]

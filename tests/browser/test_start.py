"""How long it takes from `t2i ui` to a page that is ready, and from there to the first image."""

import os
import re
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow


def test_ready_in_fifteen_seconds_and_an_image_in_ten_more(browser, tmp_path):
    """Seconds on an idle machine; on a busy one the server's own CPU time, which cannot be less than that."""
    psutil = pytest.importorskip("psutil")
    busy = os.getloadavg()[0] > (os.cpu_count() or 1) / 2
    start = time.perf_counter()
    command = [sys.executable, "-m", "t2i_tools", "ui", "--output", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    spent = psutil.Process(process.pid).cpu_times

    def clock():
        times = spent()
        return time.perf_counter() - start, times.user + times.system

    try:
        url = re.search(r"http://\S+", process.stdout.readline()).group()
        page = browser.new_page()
        page.goto(url, timeout=300_000)
        page.locator("#generate-run:enabled").wait_for(timeout=300_000)
        ready = clock()
        page.locator("#generate-run").click()
        page.locator(".t2i-results:visible img[src*='.png']").first.wait_for(timeout=300_000)
        drawn = clock()
        page.close()
    finally:
        process.kill()
        process.wait()
    image = [late - early for late, early in zip(drawn, ready, strict=True)]
    for what, (seconds, work) in {"page ready": ready, "first image": image}.items():
        print(f"{what}: {seconds:.1f} s, {work:.1f} s of the server's CPU time, load {os.getloadavg()[0]:.1f}")
    assert ready[busy] <= 15
    assert image[busy] <= 10

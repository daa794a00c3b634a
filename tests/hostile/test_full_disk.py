"""Every verb that writes, on a disk that is full or cannot be written: one line, and afterwards the same bytes."""

import json
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from support.folders import tree, verbs
from support.heatmaps import save_heatmap
from support.shell import complains, run_shell

FULL = "cannot write .*: No space left on device: free some space and try again\n$"
NAMES = ("generate", "grid", "count", "sizes", "evaluate", "merge")


@contextmanager
def mounted(place, options):
    """A file system of its own in a folder; the test is skipped where this user may not mount one."""
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def remount(place, options):
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


@pytest.fixture
def known(tiny_folder, tmp_path, capsys):
    """Name -> the arguments of its verb, but for --output. The two shards to merge are made."""
    rows = [{"prompt": f"{1 + i % 3} cats, {i}", "class": "cat", "count": 1 + i % 3} for i in range(4)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shards = [tmp_path / "one", tmp_path / "two"]
    judge = save_heatmap(tmp_path / "judge.safetensors")
    found = {name: verb.arguments for name, verb in verbs(tiny_folder, judge, tmp_path / "p.jsonl", shards).items()}
    tiny = ["--model", tiny_folder, "--device", "cpu", "--size", "16x16", "--steps", "1", "--seed", "5", "--quiet"]
    found["generate"] = ["generate", "a cat", *tiny, "--negative", "x" * 9000]  # a file of several pages
    for place, shard in enumerate(shards, 1):
        done = run_shell(capsys, *found["evaluate"], "--shard", f"{place}/2", "--output", shard)
        assert done[0] == 0, done
    return found


def attempt(capsys, arguments, output):
    """One call of a verb into a folder; of an image without name the one file."""
    return run_shell(capsys, *arguments, "--output", output / "image.png" if arguments[0] == "generate" else output)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk(name, known, capsys, tmp_path):
    """Full at one moment after another: no room for content, then no room for another file."""
    assert attempt(capsys, known[name], tmp_path / "whole")[0] == 0
    whole, ends = tree(tmp_path / "whole"), 0
    for kind, sizes in (("size={}k", range(4, 400, 8)), ("nr_inodes={}", range(2, 80))):
        for size in sizes:
            with mounted(tmp_path / "disk", kind.format(size)) as disk:
                result = attempt(capsys, known[name], disk / "out")
                if result[0] == 0:
                    break
                ends += 1
                complains(result, FULL)
                assert not list(disk.rglob("*.part"))
                remount(disk, "size=64m,nr_inodes=10000")
                result = attempt(capsys, known[name], disk / "out")
                assert result[0] == 0, result
                assert tree(disk / "out") == whole
        else:
            raise AssertionError("never enough room")
    print(f"{name}: {ends} moments")
    assert ends > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_cannot_be_written(name, known, capsys, tmp_path):
    with mounted(tmp_path / "disk", "size=64m") as disk:
        remount(disk, "ro")
        complains(attempt(capsys, known[name], disk / "out"), "cannot write .*disk.*: the file system is read-only")
        remount(disk, "rw")
        assert attempt(capsys, known[name], disk / "out")[0] == 0
        whole = tree(disk / "out")
        for path in list((disk / "out").glob("score/*")):  # there is something left to do
            path.unlink()
        remount(disk, "ro")
        complains(attempt(capsys, known[name], disk / "out"), "cannot write .*disk.*: the file system is read-only")
        remount(disk, "rw")
        assert attempt(capsys, known[name], disk / "out")[0] == 0
        assert tree(disk / "out") == whole


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /dev/full")
def test_a_full_disk_behind_what_is_printed(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "t2i_tools", "--help"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == b"t2i: cannot write what is printed: No space left on device: free some space and try again\n"


FULL_VERB = """
import errno, os
from t2i_tools import cli

def verb(*arguments, **options):
    print({printed})
    if {fails}:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write() of any file does, which names none

cli.app = verb
cli.main([])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /dev/full")
@pytest.mark.parametrize("fails", [False, True])
def test_a_full_disk_behind_more_than_python_keeps_of_what_is_printed(fails):
    code = FULL_VERB.format(printed="'x' * 99999", fails=fails)
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("t2i: cannot write what is printed: No space left on device: free some space")


def test_a_full_disk_behind_a_file_that_is_not_named():
    code = FULL_VERB.format(printed="'made'", fails=True)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "made\n", 1)
    assert done.stderr.startswith("t2i: cannot write a file or what is printed: No space left on device: free some")


def test_a_line_that_a_full_disk_tore_takes_no_other_with_it(tmp_path):
    from t2i_tools.evaluation.rows_io import append_row, read_log

    append_row(tmp_path / "log", {"row": 1})
    with open(tmp_path / "log", "a") as log:
        log.write('{"row": 2, "se')
    append_row(tmp_path / "log", {"row": 3})
    append_row(tmp_path / "log", {"row": 4})
    assert read_log(tmp_path / "log") == [{"row": 1}, {"row": 3}, {"row": 4}]


def test_the_app_outlives_a_full_disk(tiny_folder, tmp_path):
    """A job that it cannot keep is refused in one line; the one that runs fails with one, and the next is done."""
    pytest.importorskip("gradio")
    from t2i_tools.errors import InputError
    from t2i_tools.ui import queue
    from t2i_tools.ui.options import AppOptions
    from t2i_tools.ui.service import Service

    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny").symlink_to(tiny_folder)
    values = {"model": "tiny", "prompt": "a cat", "size": "64x64", "steps": 1, "seed": 1}
    with mounted(tmp_path / "disk", "size=1m") as disk:
        filler = disk / "filler"

        def fill():
            with open(filler, "ab", buffering=0) as file:
                while True:
                    try:
                        file.write(b"x" * 512)
                    except OSError:
                        return

        fill()
        options = AppOptions(output=disk / "out", models=tmp_path / "models", model="tiny", device="cpu")
        with pytest.raises(InputError, match=r"^(cannot write .*|the server cannot use its queue.*)"):
            Service(options)
        filler.unlink()
        service = Service(options)
        waiting = service.submit("me", "generate", {**values, "number": 2})
        fill()
        with pytest.raises(InputError, match=r"^the server cannot use its queue, jobs.sqlite3 .*free some space"):
            service.submit("me", "generate", values)
        service.worker.start()
        time.sleep(1)
        assert service.worker.is_alive()
        filler.unlink()
        assert ended(service, waiting).state == queue.DONE  # it was only late
        long = service.submit("me", "generate", {**values, "steps": 40, "number": 2})
        while service.jobs.get(long.id).state == queue.QUEUED:
            time.sleep(0.01)
        fill()
        time.sleep(2)
        filler.unlink()
        after = service.submit("me", "generate", values)
        assert ended(service, after).state == queue.DONE
        failed = service.jobs.get(long.id)
        if failed.state == queue.FAILED:  # else the image before or after had room
            assert failed.error.endswith("No space left on device: free some space and try again")
        assert not list(disk.rglob("*.part"))
        service.close()


def ended(service, job):
    until = time.monotonic() + 60
    while service.jobs.get(job.id).open and time.monotonic() < until:
        time.sleep(0.05)
    return service.jobs.get(job.id)

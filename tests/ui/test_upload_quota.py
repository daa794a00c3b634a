"""What uploads take of the disk has a bound."""

import hashlib
import http.client
import os
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from PIL import Image

from t2i_tools.errors import InputError
from t2i_tools.ui.jobs.generate import start_path
from t2i_tools.ui.service import Service
from t2i_tools.ui.upload_quota import check_room, make_room
from t2i_tools.ui.uploads import keep_start
from t2i_tools.workflows.limits import Limits

from .conftest import QUICK

KIB = 1024


@pytest.fixture
def service(options, tmp_path):
    """A server's work, where uploads take up to 1 MiB."""
    service = Service(replace(options, output=tmp_path / "out", limits=Limits(uploads_mib=1)))
    yield service
    service.close()


def upload(service, age, size=400 * KIB):
    """A file as Gradio puts it down, so many seconds old."""
    path = service.files / hashlib.sha256(str(age).encode()).hexdigest() / "a.png"
    path.parent.mkdir()
    path.write_bytes(bytes(size))
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_the_oldest_uploads_go_first_and_nothing_else(service):
    image = service.files / "00001-0123456789abcdef" / "01-cat-7.png"  # what a job has made
    image.parent.mkdir()
    image.write_bytes(bytes(2000 * KIB))
    old, new, middle = (upload(service, age) for age in (3, 1, 2))
    make_room(service)
    assert [path.exists() for path in (old.parent, middle, new, image)] == [False, True, True, True]


def test_a_picture_that_an_open_job_starts_from_stays(service):
    source = service.files / "a.png"
    Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 20).convert("RGB").save(source)
    name = keep_start(service, str(source))
    start = start_path(service.output, name)
    job = service.submit("me", "generate", {"prompt": "x", **QUICK, "image": name})
    os.utime(start, (0, 0))
    news = [upload(service, age, 500 * KIB) for age in (1, 2)]
    start.write_bytes(start.read_bytes() + bytes(100 * KIB))  # no room for all three
    os.utime(start, (0, 0))
    make_room(service)
    assert [path.exists() for path in (start, *news)] == [True, True, False]
    service.cancel(job)
    upload(service, 0, 1000 * KIB)
    make_room(service)
    assert not start.exists()


def test_count_tokens_are_kept_up_to_the_same_size(service, tmp_path):
    folder = tmp_path / "tokens"
    (folder / "of somebody").mkdir(parents=True)
    (folder / "of somebody" / "a.safetensors").write_bytes(bytes(1000 * KIB))
    check_room(service, folder, 24 * KIB)
    with pytest.raises(InputError, match="the space for count tokens on this server .1 MiB. is full"):
        check_room(service, folder, 25 * KIB)


@pytest.mark.parametrize("header", [("Content-Length", str(2**40)), ("Transfer-Encoding", "chunked")])
def test_an_upload_without_end_is_refused_before_it_comes(server, header):
    there = http.client.HTTPConnection(urlsplit(server[0]).netloc, timeout=60)
    there.putrequest("POST", "/gradio_api/upload")
    there.putheader("Content-Type", "multipart/form-data; boundary=x")
    there.putheader(*header)
    there.endheaders()
    answer = there.getresponse()
    assert (answer.status, answer.read()) == (
        413,
        b'{"detail":"an upload has to say its length, of up to 2048 MiB"}',
    )
    there.close()

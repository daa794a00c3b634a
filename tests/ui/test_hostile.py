"""A hundred hostile inputs: each gets one line, nothing outside the output folder is read, and the server lives on."""

import io
import json

import httpx
import pytest
from PIL import Image

from t2i_tools.ui.kinds import KINDS

from .conftest import QUICK

SECRET = "the secret outside"
OK = {"prompt": "x", **QUICK}
PATHS = ["/etc/passwd", "../../../etc/passwd", "..\\..\\secret", "~/.ssh/id_rsa", "file:///etc/passwd", "\x00", "a/b"]
VALUES = [
    *({**OK, "model": path} for path in PATHS),
    *({**OK, "loras": [path]} for path in PATHS),
    *({**OK, "count_token": path} for path in PATHS),
    *({**OK, "image": path} for path in PATHS),
    *({**OK, "image": {"path": path}} for path in PATHS),
    *({**OK, "image": {"path": path, "meta": {"_type": "gradio.FileData"}}} for path in PATHS),
    *({**OK, "size": size} for size in ("0x0", "-1x5", "99999999x1", "1e3x1e3", "8192x8192", "x", "64x64x64", "٣x٣")),
    *({**OK, "steps": steps} for steps in (-1, 0, 10**30, 1.5, "ten", [], {})),
    *({**OK, "guidance": value} for value in ("inf", "nan", 1e300, [1], "much")),
    *({**OK, "seed": value} for value in (-1, 2**63, 1e30, "0x10", [0])),
    *({**OK, "number": value} for value in (0, -5, 10**9, "many")),
    *({**OK, "prompt": value} for value in ("", "   ", "x" * 30_000, 5, ["x"], {"a": 1})),
    *({**OK, "entropy_scaling": value} for value in ("yes", 7)),
    *({**OK, "scheduler": value} for value in ("os.system", "__class__")),
    *({**OK, "strength": value} for value in (0, 2, "half")),
    {**OK, "loras": "abc"},
    {**OK, "two_pass": "perhaps"},
    {**OK, "entropy_scaling": "on", "entropy_rule": "__import__('os')"},
    {**OK, "entropy_scaling": "on", "native": "1e9x1"},
    {**OK, "long_prompts": "everything"},
    {**OK, "unknown": 1},
    {},
]
OTHERS = [
    ("count", {"prompt": "no place for it"}),
    ("count", {"n": 10**6}),
    ("count", {"budget": 10**6}),
    ("count", {"detector": "/etc/passwd"}),
    ("probe", {}),
    ("probe", {"prompts": ["x"], "conditions": ["everything"]}),
    ("probe", {"prompts": ["x"] * 10_000, "seeds": 100}),
    ("probe", {"prompts": ["x"], "clip": "/etc"}),
    ("grid", {"prompt": "x", "axes": ["steps=" + ",".join(map(str, range(1, 2000)))]}),
    ("grid", {"prompt": "x {a.__class__}", "axes": ["a=1,2"]}),
    ("grid", {"prompt": "x", "axes": ["size=8192x8192"]}),
    ("evaluate", {"name": "../../up"}),
    ("evaluate", {"judge": "/etc/passwd"}),
    ("evaluate", {"prompts": [{"prompt": "x"}]}),
    ("evaluate", {"sizes": ["8192x8192"]}),
    ("cancel", {"job": "'; DROP TABLE jobs; --"}),
    ("status", {"job": "../../etc/passwd"}),
]


def bomb():
    """A picture of 30,000 x 30,000 pixels in a few kilobytes."""
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {
    "empty.png": b"",
    "text.png": b"not a picture",
    "cut.png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "pickle.png": b"\x80\x04\x95cposix\nsystem\n",
    "page.html": b"<script>alert(1)</script>",
    "plain.png": None,
    "bomb.png": bomb,
}


def ask(url, endpoint, values):
    """(status, text) of a call as it ends, without gradio_client, which would check the values first."""
    with httpx.Client(base_url=url, timeout=120) as http:
        posted = http.post(f"gradio_api/call/v2/{endpoint}", json=values)
        if posted.status_code != 200:
            return posted.status_code, posted.text
        return 200, http.get(f"gradio_api/call/v2/{endpoint}/{posted.json()['event_id']}").text


def is_one_line(answer):
    status, text = answer
    if status != 200:
        message = json.loads(text)["detail"]
        message = message if isinstance(message, str) else json.dumps(message)
    else:
        last = [line for line in text.splitlines() if line.startswith(("event: ", "data: "))][-2:]
        assert last[0] == "event: error", text
        message = json.dumps(json.loads(last[1].removeprefix("data: ")))
    assert "\n" not in message
    assert "Traceback" not in message
    assert "root:" not in message  # of /etc/passwd
    return message


@pytest.fixture(scope="module")
def url(server):
    return server[0]


@pytest.mark.parametrize("values", VALUES, ids=lambda values: json.dumps(values)[-70:])
def test_generate(url, values):
    assert is_one_line(ask(url, "generate", values))


@pytest.mark.parametrize(("endpoint", "values"), OTHERS)
def test_the_other_endpoints(url, endpoint, values):
    assert is_one_line(ask(url, endpoint, values))


@pytest.mark.parametrize("name", FILES)
def test_uploads(url, name):
    content = FILES[name]
    if content is None:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "PNG")  # a picture, and no settings in it
        content = buffer.getvalue()
    content = content() if callable(content) else content
    (path,) = httpx.post(f"{url}gradio_api/upload", files={"files": (name, content)}).json()
    given = {"path": path, "meta": {"_type": "gradio.FileData"}}
    assert is_one_line(ask(url, "settings", {"image": given}))
    if name != "plain.png":
        assert is_one_line(ask(url, "generate", {**OK, "image": given}))


@pytest.mark.parametrize("body", [{"data": [1]}, {"data": 5}, {"data": []}, {}, {"data": [None] * 60}])
@pytest.mark.parametrize("endpoint", ["generate", "nothing"])
def test_calls_without_names(url, endpoint, body):
    with httpx.Client(base_url=url, timeout=60) as http:
        posted = http.post(f"gradio_api/call/{endpoint}", json=body)
        if posted.status_code == 200:
            text = http.get(f"gradio_api/call/{endpoint}/{posted.json()['event_id']}").text
            assert "event: error" in text
            assert "Traceback" not in text
        else:
            assert posted.status_code in (404, 422)


def test_no_file_from_outside_is_served(url, server, tmp_path):
    desk = server[1]
    (tmp_path / "secret.txt").write_text(SECRET)
    (desk.output / "beside.txt").write_text(SECRET)
    paths = [tmp_path / "secret.txt", "/etc/passwd", desk.output / "jobs.sqlite3", desk.output / "beside.txt"]
    paths += [f"{desk.files}/../jobs.sqlite3", f"{desk.files}/..%2fbeside.txt", desk.output / ".lock", "http://[::1]/"]
    for path in paths:
        answer = httpx.get(f"{url}gradio_api/file={path}")
        assert answer.status_code in (400, 403, 404), path
        assert SECRET not in answer.text


def test_there_are_a_hundred_and_the_server_lives(url, client):
    assert len(VALUES) + len(OTHERS) + len(FILES) >= 100
    assert client.predict(**OK, api_name="/generate")[1]["state"] == "done"


def test_every_kind_refuses_what_it_does_not_know(url):
    for kind in KINDS:
        assert "nonsense" in is_one_line(ask(url, kind, {"nonsense": 1}))

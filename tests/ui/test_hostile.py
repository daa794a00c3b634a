"""A hundred hostile inputs: each gets one line, nothing outside the output folder is read, and the server lives on."""

import io
import json

import httpx
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save
from support.sampling import sample

from t2i_tools.bundled import load_bundled
from t2i_tools.counting.token import start_token
from t2i_tools.ui.jobs import KINDS

from .conftest import QUICK

SECRET = "the secret outside"
OK = {"prompt": "x", **QUICK}
PATHS = ["/etc/passwd", "../../../etc/passwd", "..\\..\\secret", "~/.ssh/id_rsa", "file:///etc/passwd", "\x00", "a/b"]
VALUES = [
    *({**OK, "model": path} for path in PATHS),
    *({**OK, "loras": [path]} for path in PATHS),
    *({**OK, "count_tokens": [path]} for path in PATHS),
    *({**OK, "embeddings": [path]} for path in PATHS),
    *({**OK, "vae": path} for path in PATHS),
    *({**OK, "long_prompts": "stretch", "long_clip": path} for path in PATHS),
    *({**OK, "noise": path} for path in PATHS),
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
    {**OK, "deep_shrink": True, "two_pass": True},
    *({**OK, "deep_shrink": True, "deep_shrink_share": value} for value in (-0.1, 2, "half")),
    *({**OK, "deep_shrink": True, "deep_shrink_level": value} for value in (0, -1, "deep")),
    {**OK, "entropy_scaling": "on", "entropy_rule": "__import__('os')"},
    {**OK, "entropy_scaling": "on", "native": "1e9x1"},
    {**OK, "long_prompts": "everything"},
    {**OK, "unknown": 1},
    {},
]
OTHERS = [
    ("count", {"prompt": "no place for it"}),
    ("count", {"counts": {"cat": 10**6}}),
    ("count", {"counts": {"cat": "many"}}),
    ("count", {"counts": {}}),
    ("count", {"counts": {"{cat}": 1}}),
    ("count", {"counts": dict.fromkeys("abcdefgh", 1)}),
    ("count", {"counts": ["cat", 3]}),
    ("count", {"budget": 10**6}),
    ("count", {"detector": "/etc/passwd"}),
    ("probe", {}),
    ("probe", {"prompts": ["x"], "conditions": ["everything"]}),
    ("probe", {"prompts": ["x"] * 10_000, "seeds": 100}),
    ("probe", {"prompts": ["x"], "clip": "/etc"}),
    ("grid", {"prompt": "x", "axes": ["steps=" + ",".join(map(str, range(1, 2000)))]}),
    ("grid", {"prompt": "x {a.__class__}", "axes": ["a=1,2"]}),
    ("grid", {"prompt": "x", "axes": ["size=8192x8192"]}),
    *(("grid", {"prompt": "{count} x", "axes": [f"count-token={path}|{path}."]}) for path in PATHS),
    *(("grid", {"prompt": "x", "axes": [f"long-clip={path}|{path}.", "long-prompts=stretch"]}) for path in PATHS),
    ("grid", {"prompt": "x", "axes": ["steps=1,2"], "clip": "/etc"}),
    ("evaluate", {"name": "../../up"}),
    ("evaluate", {"split": "test"}),
    ("evaluate", {"split": "test", "protocol": {"split": "dev"}}),
    ("evaluate", {"split": "secret"}),
    ("evaluate", {"protocol": "/etc/passwd"}),
    ("evaluate", {"protocol": {"unit": ["prompt"]}}),
    ("evaluate", {"protocol": {"margin": -1}}),
    ("evaluate", {"clip": "/etc/passwd"}),
    ("evaluate", {"judge": "/etc/passwd"}),
    ("evaluate", {"prompts": [{"prompt": "x"}]}),
    ("evaluate", {"sizes": ["8192x8192"]}),
    ("cancel", {"job": "'; DROP TABLE jobs; --"}),
    ("status", {"job": "../../etc/passwd"}),
]


def bomb():
    """A picture of 30,000 x 30,000 pixels in a few kilobytes; made by its test alone, since it takes a second."""
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    return buffer.getvalue()


def picture(settings=None):
    """A PNG that tells of these settings, or of none."""
    buffer, told = io.BytesIO(), PngInfo()
    if settings is not None:
        told.add_text("t2i_tools", settings)
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=told)
    return buffer.getvalue()


FILES = {
    "empty.png": b"",
    "text.png": b"not a picture",
    "cut.png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "pickle.png": b"\x80\x04\x95cposix\nsystem\n",
    "page.html": b"<script>alert(1)</script>",
    "bomb.png": None,
}
SETTINGS = {
    "plain.png": picture(),
    "crooked.png": picture('{"prompt": ["x"], "lora": 5, "image": {"sha256": "../../x"}}'),
    "deep.png": picture('{"prompt": "x", "count_token": [{"file": {}}], "noise": "/etc/passwd"}'),
}
TOKENS = {
    "empty.safetensors": b"",
    "text.safetensors": b"not a token" * 100,
    "huge-header.safetensors": (2**40).to_bytes(8, "little") + b"{}",
    "pickle.safetensors": b"\x80\x04\x95cposix\nsystem\n",
    "other.safetensors": save({"weight": torch.zeros(2, 2)}),
    "crooked.safetensors": save({"weight": torch.zeros(1, 2)}, {"t2i-tools count token": '{"keys": {"x": "y"}}'}),
    "large.safetensors": save({"weight": torch.zeros(2**20)}),
    "token.pt": b"\x80\x04\x95cposix\nsystem\n",
    "token.bin": b"",
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


def is_usual(values):
    """What the fast suite sends: every path as a model, and two of them in each other place."""
    text = json.dumps(values)
    return values.get("model") in PATHS or not any(json.dumps(path)[1:-1] in text for path in PATHS[2:])


@pytest.fixture(scope="module")
def url(server):
    return server[0]


@pytest.mark.parametrize("values", sample(VALUES, is_usual), ids=lambda values: json.dumps(values)[-70:])
def test_generate(url, values):
    assert is_one_line(ask(url, "generate", values))


@pytest.mark.parametrize(("endpoint", "values"), sample(OTHERS, lambda endpoint, values: is_usual(values)))
def test_the_other_endpoints(url, endpoint, values):
    assert is_one_line(ask(url, endpoint, values))


def upload(url, name, content):
    """What a client sends for a file that it has uploaded."""
    (path,) = httpx.post(f"{url}gradio_api/upload", files={"files": (name, content)}).json()
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize("name", FILES)
def test_uploads(url, name):
    content = FILES[name]
    given = upload(url, name, bomb() if content is None else content)
    assert is_one_line(ask(url, "settings", {"image": given}))
    assert is_one_line(ask(url, "generate", {**OK, "image": given}))


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_in_uploads(url, name):
    assert is_one_line(ask(url, "settings", {"image": upload(url, name, SETTINGS[name])}))


@pytest.mark.parametrize("name", TOKENS)
def test_uploaded_count_tokens(url, server, name):
    before = set(server[1].output.glob("tokens/**/*"))
    message = is_one_line(ask(url, "token", {"file": upload(url, name, TOKENS[name])}))
    assert name in message  # by its name, without the folder it was put into
    assert str(server[1].output) not in message
    assert set(server[1].output.glob("tokens/**/*")) == before


@pytest.mark.parametrize("path", PATHS)
def test_count_tokens_that_were_not_uploaded(url, path):
    assert is_one_line(ask(url, "token", {"file": {"path": path}}))
    assert is_one_line(ask(url, "token", {"file": {"path": path, "meta": {"_type": "gradio.FileData"}}}))


def test_a_file_outside_that_really_exists_is_refused_unread(url, tmp_path):
    image, token = tmp_path / "outside.png", tmp_path / "outside.safetensors"
    image.write_bytes(picture(json.dumps({"prompt": SECRET})))
    start_token(load_bundled(), 3, "cat").save(token)
    for endpoint, values, name, path in (
        ("settings", {}, "image", image),
        ("generate", OK, "image", image),
        ("token", {}, "file", token),
    ):
        message = is_one_line(ask(url, endpoint, {**values, name: {"path": str(path)}}))
        assert f"'{path.name}' was not uploaded here" in message
        assert SECRET not in message


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
    service = server[1]
    (tmp_path / "secret.txt").write_text(SECRET)
    (service.output / "beside.txt").write_text(SECRET)
    paths = [tmp_path / "secret.txt", "/etc/passwd", service.output / "jobs.sqlite3", service.output / "beside.txt"]
    paths += [
        f"{service.files}/../jobs.sqlite3",
        f"{service.files}/..%2fbeside.txt",
        service.output / ".lock",
        "http://[::1]/",
    ]
    for path in paths:
        answer = httpx.get(f"{url}gradio_api/file={path}")
        assert answer.status_code in (400, 403, 404), path
        assert SECRET not in answer.text


def test_there_are_a_hundred_and_the_server_lives(url, client):
    assert len(VALUES) + len(OTHERS) + len(FILES) + len(SETTINGS) + len(TOKENS) >= 100
    assert client.predict(**OK, api_name="/generate")[1]["state"] == "done"


def test_every_kind_refuses_what_it_does_not_know(url):
    for kind in KINDS:
        assert "nonsense" in is_one_line(ask(url, kind, {"nonsense": 1}))

"""What stands before Gradio: hosts, headers, cookies, logins; and that folders of others cannot be guessed."""

import hashlib
import json
from dataclasses import replace

import httpx
import pytest
from gradio_client import Client

from t2i_tools.ui.security import MISSES, Logins, known_hosts

from .conftest import QUICK, another_server

LOGINS = (("alice", "a:b"), ("bob", "c"))


def test_other_names_of_this_machine_are_refused(server):
    url = server[0]
    port = url.rstrip("/").rsplit(":", 1)[1]
    for name in (f"localhost:{port}", f"127.0.0.1:{port}"):
        assert httpx.get(url, headers={"Host": name}).status_code == 200
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "["):
        answer = httpx.get(url, headers={"Host": name})
        assert answer.status_code == 403
        assert "--allowed-host" in answer.json()["detail"]


def test_pages_of_other_sites_cannot_upload(server):
    files = {"files": ("a.png", b"x")}
    answer = httpx.post(f"{server[0]}gradio_api/upload", files=files, headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403
    mine = {"Origin": server[0].rstrip("/")}
    assert httpx.post(f"{server[0]}gradio_api/upload", files=files, headers=mine).status_code == 200


def test_a_server_for_others_takes_any_name_unless_it_is_given_some():
    assert known_hosts("0.0.0.0", ()) == ()
    assert "t2i.example" in known_hosts("0.0.0.0", ("t2i.example",))
    assert "t2i.example" in known_hosts("127.0.0.1", ("t2i.example",))


def test_headers(server):
    headers = httpx.get(server[0]).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "frame-ancestors 'self'"


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [({}, "SameSite=Lax"), ({"X-Forwarded-Proto": "https"}, "SameSite=None; Secure; Partitioned")],
)
def test_the_cookie_reaches_a_frame_where_that_is_possible(server, forwarded, expected):
    cookie = httpx.get(server[0], headers=forwarded).headers["set-cookie"]
    assert expected in cookie
    assert "HttpOnly" in cookie


def test_behind_a_path_of_a_proxy(options, tmp_path, capsys):
    with another_server(replace(options, output=tmp_path, root_path="/t2i")) as (url, _):
        answer = httpx.get(url.replace("/t2i", ""))
        assert "t2i_owner" in answer.headers["set-cookie"]
        assert "/t2i" in answer.text
        assert "--allowed-host NAME" in capsys.readouterr().err


def test_behind_a_proxy_whose_name_is_known(options, tmp_path, capsys):
    """The app answers with and without the path before its own, and to posts from the public name."""
    public = {"X-Forwarded-Host": "t2i.example.org", "X-Forwarded-Proto": "https", "Origin": "https://t2i.example.org"}
    named = replace(options, output=tmp_path, root_path="/t2i", allowed_hosts=("t2i.example.org",))
    with another_server(named) as (url, _):
        bare = url.replace("/t2i", "").rstrip("/")
        for base in (bare, f"{bare}/t2i"):
            assert "https://t2i.example.org/t2i" in httpx.get(f"{base}/", headers=public).text
            assert httpx.post(f"{base}/gradio_api/queue/join", headers=public, json={}).status_code == 422
        assert "--allowed-host" not in capsys.readouterr().err


@pytest.fixture
def logins(options, tmp_path):
    """(url, service) of a server with two users."""
    with another_server(replace(options, output=tmp_path, auth=LOGINS)) as server:
        yield server


def test_an_evaluation_of_another_user_cannot_be_found(logins):
    url, service = logins
    alice, bob = (Client(url, auth=login, verbose=False, httpx_kwargs={"timeout": 120}) for login in LOGINS)
    values = {"prompts": [{"prompt": "a secret cat", "label": "cat", "count": 1}], "model": "tiny", "steps": 1}
    alice.predict(**values, name="mine", api_name="/evaluate")
    bob.predict(**values, name="mine", api_name="/evaluate")
    hers, his = (folder(service, user) for user in ("alice", "bob"))
    assert hers != his
    guessed = hashlib.sha256(b"user alice").hexdigest()[:16]
    assert guessed not in hers.name
    assert his.name.split("-")[1] != hers.name.split("-")[1]
    assert "a secret cat" in (hers / "rows.jsonl").read_text()


def folder(service, user):
    (job,) = service.jobs.of(f"user {user}", "evaluate")
    return service.paths(job)[0].parent


def test_passwords_cannot_be_tried_for_ever(logins):
    def login(password):
        return httpx.post(f"{logins[0]}login", data={"username": "alice", "password": password})

    assert login("a:b").status_code == 200
    answers = [login(f"wrong {i}").status_code for i in range(MISSES + 3)]
    assert answers == [400] * MISSES + [429] * 3
    refused = login("a:b")
    assert refused.status_code == 429
    assert refused.json()["detail"].startswith("too many wrong passwords: try again in ")


def test_logins():
    right = Logins((("alice", "a:b"), ("bob", "c")))
    assert right("alice", "a:b") and right("bob", "c")
    assert not any((right("alice", "c"), right("eve", ""), right("", ""), right("bob", "\ud800")))


def test_errors_always_say_something(server):
    with httpx.Client(base_url=server[0], timeout=60) as http:
        for endpoint, values in (
            ("status", {"job": ["x"]}),
            ("status", {"job": {"a": 1}}),
            ("cancel", {"job": 2**63}),
            ("settings", {"image": {"path": "\x00"}}),
            ("token", {"file": {"path": "\x00", "meta": {"_type": "gradio.FileData"}}}),
            ("settings", {"image": {"path": "x", "url": "http://127.0.0.1:9/x", "meta": {"_type": "gradio.FileData"}}}),
            ("generate", {"prompt": "x", "image": {"url": "http://[::1", "meta": {"_type": "gradio.FileData"}}}),
        ):
            posted = http.post(f"gradio_api/call/v2/{endpoint}", json=values)
            if posted.status_code == 200:
                text = http.get(f"gradio_api/call/v2/{endpoint}/{posted.json()['event_id']}").text
                assert "event: error" in text, (endpoint, values, text)
                answer = json.loads(text.rsplit("data: ", 1)[1])
                assert answer["error"].strip() and "\n" not in answer["error"], (endpoint, values, text)


def test_a_job_has_a_time_limit(options, tmp_path):
    from t2i_tools.ui.job_context import JobContext, OutOfTime
    from t2i_tools.ui.service import Service

    service = Service(replace(options, output=tmp_path))
    job = service.submit("me", "generate", {"prompt": "x", **QUICK})
    JobContext(job, service.output, service.registry, minutes=1).check()
    with pytest.raises(OutOfTime):
        JobContext(replace(job, worked=61.0), service.output, service.registry, minutes=1).check()
    service.close()

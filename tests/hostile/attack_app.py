"""Attacks on a server of its own, with a tiny model: `python tests/hostile/attack_app.py [NAME...]`, of these:

calls    fuzzed calls, seeded: tracebacks, empty errors, seconds, memory
pages    another client's page while requests of up to 20 MiB arrive, in pairs with an idle server
crowd    130 jobs of one client, and another's image of some three seconds
users    what one user can read, cancel or use of another's, with and without logins
memory   resident memory after 50 and 250 jobs

Seconds are by the wall: on a busy machine they say how busy it is, so an idle measurement stands beside each.
"""

import argparse
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx  # noqa: E402
from PIL import Image  # noqa: E402
from PIL.PngImagePlugin import PngInfo  # noqa: E402
from support import pipezoo  # noqa: E402
from support.mutations import ODD, mutate  # noqa: E402

QUICK = {"model": "tiny", "size": "64x64", "steps": 2}
SLOW, MIB = 2.0, 2**20
EVALUATION = {"model": "tiny", "sizes": ["64x64"], "steps": 1, "split": "dev", "counts": "1", "judge": "bundled_judge"}


@dataclass
class Server:
    """A server in a process of its own, whose log is a file."""

    url: str
    process: subprocess.Popen
    log: Path
    output: Path

    def memory(self) -> float:
        """Resident MiB."""
        return _status(self.process.pid, "VmRSS") / 1024

    def peak(self) -> float:
        """The most resident MiB so far."""
        return _status(self.process.pid, "VmHWM") / 1024

    def seconds(self) -> float:
        """Of the processor, over all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, name: str) -> int:
    return int(re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


@contextmanager
def serving(models: Path, *options: str) -> Iterator[Server]:
    """A server that is ready to draw."""
    with tempfile.TemporaryDirectory() as output, tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        command = [sys.executable, "-u", "-m", "t2i_tools", "ui", "--models", str(models), "--model", "tiny"]
        command += ["--device", "cpu", "--output", output, *options]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + 300
            while not (found := re.search(r"at (http://\S+)", Path(log.name).read_text())):
                assert process.poll() is None and time.monotonic() < end, Path(log.name).read_text()
                time.sleep(0.2)
            yield Server(found[1].rstrip("/") + "/", process, Path(log.name), Path(output))
        finally:
            process.terminate()
            process.wait(60)


class Client:
    """One user: its own session and cookies."""

    def __init__(self, server: Server, login: tuple[str, str] | None = None):
        self.http = httpx.Client(base_url=server.url, timeout=120)
        self.http.get("/")
        if login:
            self.http.post("login", data={"username": login[0], "password": login[1]}).raise_for_status()

    def start(self, endpoint: str, values: dict) -> tuple[int, str]:
        """(status, event id or message)."""
        content = json.dumps(values).encode("utf-8", "surrogatepass")
        posted = self.http.post(
            f"gradio_api/call/v2/{endpoint}", content=content, headers={"content-type": "application/json"}
        )
        return posted.status_code, posted.json().get("event_id") if posted.status_code == 200 else posted.text

    def events(self, endpoint: str, event: str) -> Iterator[tuple[str, object]]:
        """(kind, data) as they come."""
        with self.http.stream("GET", f"gradio_api/call/v2/{endpoint}/{event}") as stream:
            kind = ""
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: ") and kind != "heartbeat":
                    yield kind, json.loads(line.removeprefix("data: "))

    def call(self, endpoint: str, values: dict) -> object:
        """What a call ends with; an error is {"error": ...}."""
        status, event = self.start(endpoint, values)
        if status != 200:
            return {"error": event}
        last = None
        for kind, data in self.events(endpoint, event):
            last = data if kind != "error" else {"error": data}
        return last

    def upload(self, name: str, content: bytes) -> dict:
        """What a call takes for an uploaded file."""
        answer = self.http.post("gradio_api/upload", files={"files": (name, content)})
        path = answer.json()[0] if answer.status_code == 200 else "refused"
        return {"path": path, "meta": {"_type": "gradio.FileData"}}


def png(texts: dict[str, str], size: int = 8) -> bytes:
    """A PNG that carries these texts."""
    info, buffer = PngInfo(), io.BytesIO()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (size, size)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


# Fuzzed calls ---------------------------------------------------------------------------------------------------------

PLAIN = {
    "generate": {"prompt": "two cats", **QUICK, "seed": 3, "guidance": 2.0, "negative": "dog"},
    "count": {"counts": {"cat": 2}, **QUICK, "budget": 4, "detector": "bundled_counter", "judge": "bundled_judge"},
    "grid": {"prompt": "a {color} cat", "axes": ["color=red,blue"], **QUICK},
    "evaluate": {**EVALUATION, "name": "mine"},
    "probe": {"prompts": ["two cats"], "conditions": ["pads"], "model": "tiny", "size": "64x64"},
}
WORDS = [
    "",
    " ",
    "\0",
    "🦊" * 500,
    "x" * 30_000,
    "(" * 5000,
    "(a:" + "9" * 5000,
    "{a|b",
    "__x__",
    "<script>",
    "../../etc",
]
WORDS += ["a BREAK b AND c", "%s%n", "1e999", "8192x8192", "steps=" + "1," * 5000, "\ud800", "٣x٣", "-1", "nan"]


def fuzzed(chance: random.Random, known: dict[str, list[str]], client: Client) -> tuple[str, dict]:
    """An endpoint and values for it, some of them odd."""
    endpoint = chance.choice([*PLAIN, *PLAIN, "status", "cancel", "settings", "token", "forget_token"])
    if endpoint in ("settings", "token"):
        whole = png({"t2i_tools": json.dumps(PLAIN["generate"]), "parameters": "a\nSteps: 5, Seed: 3"})
        content = mutate(whole, bytes(chance.randbytes(200)), "png", chance)
        file = client.upload(chance.choice(("a.png", "a.safetensors", "a.html")), content)
        return endpoint, {"image" if endpoint == "settings" else "file": chance.choice((file, file, *ODD))}
    values = dict(PLAIN.get(endpoint, {}))
    for _ in range(chance.choice((1, 1, 2, 3))):
        names = known[endpoint] or ["job", "name"]
        values[chance.choice([*names, "surprise"])] = chance.choice((*ODD, *WORDS, [chance.choice(WORDS)], {"a": "b"}))
    return endpoint, values


def calls(models: Path, number: int, seed: int) -> None:
    """Fuzzed calls, one after the other."""
    with serving(models) as server:
        client = Client(server)
        client.call("generate", PLAIN["generate"])
        described = client.http.get("gradio_api/info").json()["named_endpoints"]
        known = {one.strip("/"): [p["parameter_name"] for p in about["parameters"]] for one, about in described.items()}
        kinds, waits, work, first = Counter(), [], [], server.memory()
        for place in range(number):
            chance = random.Random(f"{seed} {place}")
            endpoint, values = fuzzed(chance, known, client)
            used, start = server.seconds(), time.monotonic()
            kind, data = answer(client, endpoint, values)
            waits.append(time.monotonic() - start)
            work.append(server.seconds() - used)
            kinds[kind] += 1
            if kind in ("empty", "lines", "silent") or kind.startswith("5"):
                print(f"call {place} {endpoint} {json.dumps(values)[:300]}: {kind} {data}"[:600])
        client.call("cancel", {})
        log = server.log.read_text()
        tracebacks = log.count("Traceback (most recent call last)")
        print(f"calls: {number}, seed {seed}: {dict(kinds)}; tracebacks in the log {tracebacks}")
        print(
            f"calls: over {SLOW:.0f} s {sum(w > SLOW for w in waits)} by the wall, "
            f"{sum(w > SLOW for w in work)} by the processor; median {sorted(waits)[number // 2]:.3f} s, "
            f"longest {max(waits):.2f} s and {max(work):.2f} s; memory {first:.0f} -> {server.memory():.0f} MiB, "
            f"peak {server.peak():.0f} MiB"
        )
        if tracebacks:
            print(log[log.index("Traceback") :][:3000])


def answer(client: Client, endpoint: str, values: dict) -> tuple[str, object]:
    """(kind, data) of the first answer; a job that began is cancelled."""
    status, event = client.start(endpoint, values)
    if status != 200:
        return str(status), event
    for kind, data in client.events(endpoint, event):
        if kind == "error":
            text = data.get("error") if isinstance(data, dict) else data
            return ("empty" if not text else "lines" if "\n" in str(text).strip() else "one line"), data
        if endpoint in PLAIN and isinstance(data, list) and len(data) == 2:
            client.call("cancel", {"job": data[1]["job"]})
        return "result", data
    return "silent", None


# Large requests -------------------------------------------------------------------------------------------------------


def pages(models: Path, pairs: int) -> None:
    """p99 of another client's page: idle and under large requests, by turns."""
    large = large_requests()
    with serving(models) as server:
        greedy, other = Client(server), Client(server)
        other.call("generate", PLAIN["generate"])
        idle, busy, worst = [], [], {}
        for _ in range(pairs):
            for name, send in large.items():
                idle += looked(other, lambda: time.sleep(1.5))
                under = looked(other, lambda send=send: send(greedy))
                busy += under
                worst[name] = max(worst.get(name, 0.0), *under)
        rest, load = (sorted(one)[int(0.99 * len(one))] for one in (idle, busy))
        print(f"pages: p99 idle {rest:.3f} s (n = {len(idle)}), under large requests {load:.3f} s (n = {len(busy)})")
        print("pages: " + ", ".join(f"{name} at most {seconds:.2f} s" for name, seconds in worst.items()))
        print(f"pages: above idle {load - rest:+.3f} s; peak {server.peak():.0f} MiB")


def large_requests() -> dict[str, Callable[[Client], object]]:
    """Name -> sends it: uploads, bodies, and files that are then read."""
    size = 19 * MIB
    noise = random.Random(0).randbytes(size)
    blanks = png({"parameters": "x\nSteps: 1," + " " * (2 * 10**6)})
    deep = "[" * size
    long = {"prompt": "x " * (size // 2), **QUICK}
    many = {"prompts": ["x"] * (size // 5), "model": "tiny"}
    return {
        "upload": lambda client: client.upload("a.bin", noise),
        "prompt": lambda client: client.start("generate", long),
        "list": lambda client: client.start("probe", many),
        "nested": lambda client: client.http.post("gradio_api/call/v2/generate", content=deep),
        "settings": lambda client: client.call("settings", {"image": client.upload("a.png", blanks)}),
        "token": lambda client: client.call("token", {"file": client.upload("a.safetensors", noise)}),
    }


def looked(client: Client, work: Callable[[], object]) -> list[float]:
    """Seconds of each look at a page while the work is done."""
    thread = threading.Thread(target=work)
    thread.start()
    found = []
    while thread.is_alive() or not found:
        start = time.monotonic()
        client.http.get("theme.css").raise_for_status()
        found.append(time.monotonic() - start)
        time.sleep(0.02)
    thread.join()
    return found


# Crowds, users, memory ------------------------------------------------------------------------------------------------


def crowd(models: Path, rounds: int) -> None:
    """130 jobs of one client; another's first answer and its image, beside the same when nobody else asks."""
    with serving(models) as server:
        greedy, other = Client(server), Client(server)
        other.call("generate", PLAIN["generate"])
        for _ in range(rounds):
            alone = first_and_last(other)
            for _ in range(130):
                greedy.start(
                    "generate", {"prompt": "a cat", "model": "tiny", "size": "256x256", "steps": 60, "number": 6}
                )
            crowded = first_and_last(other)
            greedy.call("cancel", {})
            print(
                f"crowd: first answer {crowded[0]:.2f} s (alone {alone[0]:.2f}), image {crowded[1]:.1f} s "
                f"(alone {alone[1]:.1f})"
            )


def first_and_last(client: Client) -> tuple[float, float]:
    """Seconds to the first answer and to the image of a call."""
    start, first = time.monotonic(), None
    status, event = client.start("generate", PLAIN["generate"] | {"steps": 10})
    assert status == 200, event
    for kind, data in client.events("generate", event):
        assert kind != "error", data
        first = first or time.monotonic() - start
    return first or 0.0, time.monotonic() - start


def users(models: Path) -> None:
    """What B can do with A's, with and without logins."""
    logins = (("alice", "wonder"), ("bob", "builder"))
    for auth in (True, False):
        options = [word for user, password in logins for word in ("--auth", f"{user}:{password}")] if auth else []
        with serving(models, *options) as server:
            a, b = (Client(server, login if auth else None) for login in logins)
            report(a, b, server, "with a login" if auth else "without")


def report(a: Client, b: Client, server: Server, title: str) -> None:
    """Let A make something of each kind, and B look for it."""
    made = {kind: a.call(kind, PLAIN[kind] | ({"keep_tokens": True} if kind == "count" else {})) for kind in PLAIN}
    files = [one["path"] for result in made.values() if isinstance(result, list) for one in result[0]]
    reached: Counter = Counter()
    a.start("generate", {"prompt": "a cat", "model": "tiny", "size": "256x256", "steps": 60, "number": 6})
    time.sleep(0.5)
    reached["cancelled"] = b.call("cancel", {})[0]["cancelled"]
    tokens = [path.stem for path in server.output.glob("tokens/*/*.safetensors")]
    for token in tokens:
        reached["tokens deleted"] += "error" not in str(b.call("forget_token", {"name": token}))
        reached["tokens used"] += "error" not in str(
            b.call("generate", {"prompt": "{count} x", **QUICK, "count_tokens": [token]})
        )
        reached["tokens listed"] += token in b.http.get("config").text
    theirs = b.call("evaluate", PLAIN["evaluate"])
    own = {one["path"] for one in theirs[0]} if isinstance(theirs, list) else set()
    reached["evaluations shared"] = len(own & set(files))
    for place in {str(Path(path).parent) for path in files} | {str(server.output / "files"), str(server.output)}:
        for path in (place, f"{place}/", f"{place}/../", f"{server.output}/jobs.sqlite3", f"{server.output}/.secret"):
            reached["folders listed"] += b.http.get(f"gradio_api/file={path}").status_code == 200
    for word in ("0" * 16, "1", "00001", *(f"{n:05}" for n in range(1, 9))):
        reached["jobs guessed"] += "error" not in str(b.call("status", {"job": word}))
    stranger = httpx.Client(base_url=server.url)
    reached["files without a login"] = (
        sum(stranger.get(f"gradio_api/file={path}").status_code == 200 for path in files) if "with a" in title else 0
    )
    print(f"users {title}: A has {len(files)} files, {len(tokens)} tokens; B reached {dict(reached)}")
    a.call("cancel", {})


def memory(models: Path, jobs: int) -> None:
    """Resident memory as jobs go by."""
    with serving(models) as server:
        client, seen = Client(server), {}
        for place in range(1, jobs + 1):
            size = ("64x64", "128x64", "128x128")[place % 3]
            client.call("generate", {"prompt": f"{place} cats", "model": "tiny", "size": size, "steps": 2})
            if place in (50, 100, 150, 200, 250):
                seen[place] = server.memory()
        first, last = seen[50], seen[max(seen)]
        print("memory: " + ", ".join(f"{n} jobs {mib:.0f} MiB" for n, mib in seen.items()))
        print(f"memory: {100 * (last / first - 1):+.1f} % since 50 jobs")


def main() -> None:
    """Run the attacks that are named, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["calls", "pages", "crowd", "users", "memory"])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=250)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        pipezoo.build("stable_diffusion").save_pretrained(models / "tiny")
        attacks = {
            "calls": lambda: calls(models, asked.calls, asked.seed),
            "pages": lambda: pages(models, asked.pairs),
            "crowd": lambda: crowd(models, 3),
            "users": lambda: users(models),
            "memory": lambda: memory(models, asked.jobs),
        }
        for name in asked.what:
            attacks[name]()


if __name__ == "__main__":
    main()

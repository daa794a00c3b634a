"""What stands before Gradio: names of hosts, headers, and logins that cannot be tried for ever."""

import hmac
import os
import time
from collections import deque
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MISSES, WINDOW = 5, 60.0  # wrong passwords of one address, and the seconds after which the first is forgotten
MOST_ADDRESSES = 10_000
MOST_VALUES = 400_000  # of one request: 10,000 rows of prompt, class and count, with twenty commas in each prompt
UPLOADS = "/gradio_api/upload"  # Gradio's route; a call of an endpoint may end in "upload" as well
SPACES = "'self' https://huggingface.co https://*.hf.space"


def known_hosts(host: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """The names by which a server may be called; none, which means any, for one that others reach and that names none.

    A server of this machine alone is called by its own names only: a page elsewhere could have its own name resolve to
    127.0.0.1 and read the answers (DNS rebinding).
    """
    return (*LOOPBACK, *allowed) if host in LOOPBACK or allowed else ()


class HostCheck:
    """ASGI middleware that refuses requests for other hosts, and posts from pages of other hosts."""

    def __init__(self, app: Any, hosts: Sequence[str]):
        self.app, self.hosts = app, frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if self.hosts and scope["type"] == "http" and (wrong := self._wrong(scope)) is not None:
            about = f"this server is not called {wrong[:100]!r}: start it with --allowed-host NAME if it is"
            await JSONResponse({"detail": about}, status_code=403)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _wrong(self, scope: dict[str, Any]) -> str | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = _host(f"//{headers.get(b'host', '')}")
        if host not in self.hosts:
            return host
        origin = headers.get(b"origin")
        if origin and scope["method"] not in ("GET", "HEAD", "OPTIONS") and _host(origin) not in self.hosts:
            return _host(origin)
        return None


class BodyLimit:
    """ASGI middleware that rejects request bodies that are too large or hold more values than any job accepts.

    Values are counted by the commas in the raw body, before Gradio parses it. Uploads have a separate limit.
    """

    def __init__(self, app: Any, mib: int):
        self.app, self.most = app, mib * 2**20

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if not (scope["type"] == "http" and scope["method"] == "POST") or is_upload(scope):
            await self.app(scope, receive, send)
            return
        body, values, more = bytearray(), 1, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            part = message.get("body", b"")
            body += part
            values += part.count(b",")
            more = message.get("more_body", False)
            if len(body) > self.most or values > MOST_VALUES:
                about = f"the request is too large: send at most {self.most >> 20} MiB with {MOST_VALUES:,} values"
                await JSONResponse({"detail": about}, status_code=413)(scope, receive, send)
                return
        whole = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def received() -> Any:
            return whole.pop() if whole else await receive()

        await self.app(scope, received, send)


class SafeHeaders:
    """ASGI middleware: browsers guess no types, give other sites no addresses, and show the page in no foreign frame.

    A Space is shown in a frame of the Hub's.
    """

    def __init__(self, app: Any):
        ancestors = SPACES if os.environ.get("SPACE_ID") else "'self'"
        self.app = app
        self.headers = [
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
            (b"content-security-policy", f"frame-ancestors {ancestors}".encode()),
        ]

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def sending(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                more = [(name, value) for name, value in self.headers if name not in present]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self.app(scope, receive, sending if scope["type"] == "http" else send)


class Logins:
    """Whether a user has this password; takes as long for a wrong one as for a right one."""

    def __init__(self, pairs: Sequence[tuple[str, str]]):
        self._passwords = {user: password.encode() for user, password in pairs}

    def __call__(self, user: str, password: str) -> bool:
        right = hmac.compare_digest(self._passwords.get(user, b""), password.encode("utf-8", "surrogatepass"))
        return right and user in self._passwords


class LoginBrake:
    """ASGI middleware: after some wrong passwords an address waits before it may try again."""

    def __init__(self, app: Any):
        self.app = app
        self._misses: dict[str, deque[float]] = {}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if not (scope["type"] == "http" and scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/login")):
            await self.app(scope, receive, send)
            return
        address = (scope.get("client") or ("",))[0]
        misses = self._misses.get(address, deque())
        while misses and time.monotonic() - misses[0] > WINDOW:
            misses.popleft()
        if len(misses) >= MISSES:
            seconds = max(1, round(WINDOW - (time.monotonic() - misses[0])))
            answer = {"detail": f"too many wrong passwords: try again in {seconds} s"}
            response = JSONResponse(answer, status_code=429, headers={"Retry-After": str(seconds)})
            await response(scope, receive, send)
            return
        misses.append(time.monotonic())  # counted before it is looked at, or many at once would all be looked at
        self._misses[address] = misses
        if len(self._misses) > MOST_ADDRESSES:
            del self._misses[next(iter(self._misses))]

        async def sending(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                self._misses.pop(address, None)
            await send(message)

        await self.app(scope, receive, sending)


def is_upload(scope: dict[str, Any]) -> bool:
    """Whether a request brings files."""
    return scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith(UPLOADS)


def _host(url: str) -> str:
    """The host of a URL in lower case; "" where there is none."""
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""

"""Whose jobs are whose: a login's, else a browser's by a cookie that cannot be guessed, else a client session's."""

import secrets
from http.cookies import SimpleCookie
from typing import Any

import gradio as gr

COOKIE = "t2i_owner"
YEAR = 365 * 24 * 3600


def owner_of(request: gr.Request) -> str:
    """The owner of the jobs that a page or an API client starts."""
    if request.username:
        return f"user {request.username}"
    secret = request.cookies.get(COOKIE)
    return f"browser {secret}" if secret else f"client {request.session_hash}"


def source_of(request: gr.Request) -> str:
    """Where a request comes from, for limits: its login, else its network address, since cookies cost nothing."""
    if request.username or not request.client:
        return owner_of(request)
    return f"address {request.client.host}"


class OwnerCookie:
    """ASGI middleware that gives a browser its cookie with the page, before anything can be asked for."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        wanted = scope["type"] == "http" and _is_page(scope) and COOKIE not in _cookies(scope)

        async def sending(message: dict[str, Any]) -> None:
            if wanted and message["type"] == "http.response.start":
                cookie = f"{COOKIE}={secrets.token_urlsafe(16)}; Path=/; Max-Age={YEAR}; HttpOnly; {_same_site(scope)}"
                message = {**message, "headers": [*message["headers"], (b"set-cookie", cookie.encode())]}
            await send(message)

        await self.app(scope, receive, sending)


def _is_page(scope: dict[str, Any]) -> bool:
    """Whether it asks for the page itself, at whatever path a proxy shows it."""
    accepts = dict(scope["headers"]).get(b"accept", b"*/*")
    return scope["method"] == "GET" and scope["path"].endswith("/") and (b"text/html" in accepts or b"*/*" in accepts)


def _same_site(scope: dict[str, Any]) -> str:
    """A Space shows the page in a frame of another site, into which no other kind of cookie is sent; it needs https."""
    forwarded = dict(scope["headers"]).get(b"x-forwarded-proto", b"").split(b",")[0].strip()
    https = scope.get("scheme") == "https" or forwarded == b"https"
    return "SameSite=None; Secure; Partitioned" if https else "SameSite=Lax"


def _cookies(scope: dict[str, Any]) -> SimpleCookie:
    return SimpleCookie(b"; ".join(value for name, value in scope["headers"] if name == b"cookie").decode("latin-1"))

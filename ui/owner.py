"""Whose jobs are whose: a login's, else a browser's by a cookie that cannot be guessed, else a client session's."""

import secrets
from http.cookies import SimpleCookie
from typing import Any

import gradio as gr

COOKIE = "t2i_owner"
YEAR = 365 * 24 * 3600


def page_owner(request: gr.Request) -> str:
    """The owner of what a page asks for."""
    secret = request.cookies.get(COOKIE)
    return f"browser {secret}" if secret and not request.username else client_owner(request)


def client_owner(request: gr.Request) -> str:
    """The owner of what a client of the API asks for."""
    return f"user {request.username}" if request.username else f"client {request.session_hash}"


class OwnerCookie:
    """ASGI middleware that gives a browser its cookie with the page, before anything can be asked for."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        wanted = scope["type"] == "http" and scope["path"] == "/" and COOKIE not in _cookies(scope)

        async def sending(message: dict[str, Any]) -> None:
            if wanted and message["type"] == "http.response.start":
                cookie = f"{COOKIE}={secrets.token_urlsafe(16)}; Path=/; Max-Age={YEAR}; HttpOnly; SameSite=Lax"
                message = {**message, "headers": [*message["headers"], (b"set-cookie", cookie.encode())]}
            await send(message)

        await self.app(scope, receive, sending)


def _cookies(scope: dict[str, Any]) -> SimpleCookie:
    return SimpleCookie(b"; ".join(value for name, value in scope["headers"] if name == b"cookie").decode("latin-1"))

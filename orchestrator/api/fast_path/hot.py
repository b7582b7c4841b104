"""What comes all the time, answered without a database query and before any route is looked at.

A page view without news is noted in memory; one with news is stored and published at once with those of others; a
message is published. Whatever is not exactly that goes on to the application, which judges it as a whole. So nothing
is refused here, and nothing is accepted that would have been refused there; `tenants.process.cache` says within which
time that holds.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.http.metrics import Counting, count
from tenants.process.services import Services

Answer = Callable[[Services, Scope, bytes], Awaitable[ASGIApp | None]]
"""Answers a call with that body; None: the application is to judge it, and nothing has changed."""


@dataclass(frozen=True, slots=True)
class Ready:
    """ASGI application that gives one answer, which is ready to be sent."""

    status: int
    content_type: bytes
    body: bytes

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % len(self.body)), (b"content-type", self.content_type)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class HotPath:
    """ASGI application around the other one, whose middleware and routes alone would take longer than all of this.

    Args:
        app: the other one.
        answers: by the last part of the path, and for bodies of how many bytes.
    """

    def __init__(self, app: FastAPI, answers: Mapping[str, tuple[Answer, int]]) -> None:
        self._app = app
        self._answers = answers
        self._counted = Counting(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._answers.get(scope["path"].rpartition("/")[2]) if scope["type"] == "http" else None
        if found is None or scope["method"] != "POST":
            await self._counted(scope, receive, send)
            return
        answer, max_body = found
        message = await receive()
        app = (
            await answer(self._app.state.services, scope, message.get("body", b""))
            if _is_whole(message, max_body)
            else None
        )
        if isinstance(app, Ready):
            count(scope, app.status)
            await app(scope, receive, send)
        else:
            await (Counting(app) if app else self._counted)(scope, _again(message, receive), send)


def _is_whole(message: Message, max_body: int) -> bool:
    return (
        message["type"] == "http.request"
        and not message.get("more_body", False)
        and len(message.get("body", b"")) <= max_body
    )


def _again(message: Message, receive: Receive) -> Receive:
    """Receives this message once more, then what follows."""
    first: list[Message] = [message]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again

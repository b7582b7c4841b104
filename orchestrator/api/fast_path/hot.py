"""What comes all the time, answered without a database query and before any route is looked at.

A page view without news is noted in memory; one with news is stored and published at once with those of others; a
message is published. Whatever is not exactly that goes on to the application, which judges it as a whole. So nothing
is refused here, and nothing is accepted that would have been refused there; `tenants.process.cache` says within which
time that holds.
"""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.fast_path import hot_lhc, hot_pageviews
from orchestrator.api.fast_path.ready import Ready
from orchestrator.api.http.metrics import Counting, count
from tenants.process.services import Services

Answer = Callable[[Services, Scope, bytes], Awaitable[ASGIApp | None]]
"""Answers a call with that body; None: the application is to judge it, and nothing has changed."""

_ANSWERS: dict[str, tuple[Answer, int]] = {
    "xmpp": (hot_lhc.view_page, hot_lhc.MAX_BODY),
    "xmpp-send-message": (hot_lhc.send_message, hot_lhc.MAX_BODY),
    "pageviews": (hot_pageviews.view_page, hot_pageviews.MAX_BODY),
}
"""By the last part of the path, and for bodies of how many bytes."""


class HotPath:
    """ASGI application around the other one, whose middleware and routes alone would take longer than all of this."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._counted = Counting(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _ANSWERS.get(scope["path"].rpartition("/")[2]) if scope["type"] == "http" else None
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

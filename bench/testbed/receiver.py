"""Where LHC would receive callbacks: a real HTTP server that keeps what it was sent."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.testbed.waiting import DEADLINE, until


@dataclass(frozen=True, slots=True)
class Callback:
    """One request as it came. `at` is on the monotonic clock."""

    host: str
    path: str
    content_type: str
    headers: Mapping[str, str]
    raw: bytes
    at: float

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.raw.decode(), keep_blank_values=True))


Behaviour = Callable[[Callback], Awaitable[int | Response]]
"""What to do with a callback: the status to answer with, or the whole answer."""


async def _received(_callback: Callback) -> int:
    return 200


@dataclass
class Receiver:
    """Receives the callbacks of all tenants on one port; each is told by its Host header."""

    port: int
    callbacks: list[Callback] = field(default_factory=list)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    """By Host name."""

    async def __aenter__(self) -> Self:
        app = Starlette(routes=[Route("/{path:path}", self._handle, methods=["POST"])])
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_config=None, lifespan="off")
        self._server = uvicorn.Server(config)
        # not `serve`, which takes over the signals of the whole program
        self._task = asyncio.create_task(self._server._serve())  # noqa: SLF001 - uvicorn offers no other way
        await until(lambda: self._server.started or self._task.done(), "the receiver starts")
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        await self._task

    async def message(self, body: str, seconds: float = DEADLINE) -> Callback:
        """Wait for a chat message with that body."""
        return await until(lambda: next(iter(self.messages(body)), None), f"callback with {body[:60]!r}", seconds)

    def messages(self, body: str) -> list[Callback]:
        """The chat messages with that body."""
        return [
            callback
            for callback in self.callbacks
            if callback.path == "/xmppservice/processmessage" and callback.form.get("body") == body
        ]

    async def status(self, raw: str, count: int = 1, seconds: float = DEADLINE) -> Callback:
        """Wait for the count-th operator status with exactly that body."""
        return await until(
            lambda: self.statuses(raw)[count - 1] if len(self.statuses(raw)) >= count else None,
            f"{count} of {raw}; got {[callback.raw for callback in self.callbacks][-5:]}",
            seconds,
        )

    def statuses(self, raw: str) -> list[Callback]:
        """The operator statuses with exactly that body."""
        return [
            callback
            for callback in self.callbacks
            if callback.path == "/xmppservice/operatorstatus" and callback.raw == raw.encode()
        ]

    async def _handle(self, request: Request) -> Response:
        callback = Callback(
            host=request.headers["host"].partition(":")[0],
            path=request.url.path,
            content_type=request.headers.get("content-type", ""),
            headers=request.headers,
            raw=await request.body(),
            at=time.monotonic(),
        )
        self.callbacks.append(callback)
        answer = await self.behaviours.get(callback.host, _received)(callback)
        return answer if isinstance(answer, Response) else Response(status_code=answer)

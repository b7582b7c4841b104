"""Answers that are ready to be sent."""

from dataclasses import dataclass

from starlette.types import Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class Ready:
    """ASGI application that gives one answer."""

    status: int
    content_type: bytes
    body: bytes

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % len(self.body)), (b"content-type", self.content_type)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})

"""The least that a page view can cost here: uvicorn, and msgspec to decode the body."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

_HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-length", b"2"), (b"content-type", b"text/html; charset=utf-8")],
}
_BODY = {"type": "http.response.body", "body": b"ok"}
_decoder = msgspec.json.Decoder(dict[str, str])


async def app(
    _scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Answer `ok` to a JSON object of strings."""
    message = await receive()
    _decoder.decode(message["body"])
    await send(_HEAD)
    await send(_BODY)

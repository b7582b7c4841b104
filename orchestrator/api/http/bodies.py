"""What a request's body may be, seen from its headers before anything reads it."""

from email.message import Message
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.api.http.problems import PREFIX, refuse

MAX_BODY = 512 * 1024
"""Bytes of a request: a message of 64 KB is six times as large when each character is escaped.

One without a length is cut off by the routers' own limit.
"""


class BodyRules:
    """ASGI middleware: in the panel's API bodies are JSON, and not too large."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refusal(Headers(scope=scope)) if _is_ours(scope) else None
        await (refusal or self._app)(scope, receive, send)


def _is_ours(scope: Scope) -> bool:
    return bool(scope["type"] == "http" and scope["path"].startswith(PREFIX))


def _refusal(headers: Headers) -> Response | None:
    length = int(headers.get("content-length", "0"))
    if length > MAX_BODY:
        return refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body must be of {MAX_BODY:,} bytes at most")
    has_body = length > 0 or "transfer-encoding" in headers
    if has_body and not _is_json(headers.get("content-type", "")):
        return refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be application/json")
    return None


def _is_json(content_type: str) -> bool:
    message = Message()
    message["Content-Type"] = content_type
    return message.get_content_maintype() == "application" and (
        message.get_content_subtype() == "json" or message.get_content_subtype().endswith("+json")
    )

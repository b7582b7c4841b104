"""Where LHC instances call: the JSON and XML-RPC faces, at the root and under `/t/{instance_name}`.

A plain ASGI application: the answers must be those of LHC's old server to the byte, errors included.
"""

import html
import json
import math
import re
from collections.abc import Mapping
from email.message import Message
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestrator.api.lhc import json_calls, rpc_calls
from orchestrator.api.lhc.calls import ApplicationError, Call, MissingKeyError, tenant_of_path
from tenants.core.digests import same
from tenants.core.errors import DomainError, QuotaExceededError, UnavailableError
from tenants.lifecycle import keys
from tenants.process.rate_limits import CallKind
from tenants.process.services import Services
from tenants.store.database import DATABASE_AWAY

log = structlog.get_logger(__name__)

MAX_BODY = 100 * 1024
"""Bytes: the limit of LHC's old server."""

_OK = "text/html; charset=utf-8"
_WAIT = {"Retry-After": "5"}
_PLAIN_ANSWER = {"xmpp", "xmpp-send-message"}
_OF_VISITORS = {*_PLAIN_ANSWER, "xmpp-register-online-visitor"}
_PAGE_VIEWS = {"xmpp", "xmpp-register-online-visitor"}
_TESTING = {"xmpp-testing-json", "xmpp-testing-body"}
_RPC = "rpc"
_TENANT_PATH = re.compile(r"/t/([^/]+)(/.*)?")


class RefusedError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class LhcFace:
    """The ASGI application; `services` is set on the surrounding application's state."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self._respond(request, request.app.state.services)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _respond(self, request: Request, services: Services) -> Response:
        # Mounted at the root, so the path is whole. The old server told no case, and minded no trailing slash.
        path = request.url.path.lower()
        confined_to = None
        if found := _TENANT_PATH.fullmatch(path):
            confined_to, path = found[1], found[2] or "/"
        endpoint = path.strip("/")
        if not endpoint and request.method in {"GET", "HEAD"}:
            return Response("ok", media_type=_OK)
        known = endpoint in json_calls.HANDLERS or endpoint in _TESTING or endpoint == _RPC
        if request.method != "POST" or not known:
            return _not_found(request)
        with structlog.contextvars.bound_contextvars(endpoint=endpoint, instance_name=tenant_of_path(confined_to)):
            try:
                body = await _read_body(request)
                if endpoint == _RPC:
                    return Response(await rpc_calls.answer(services, confined_to, body), media_type="text/xml")
                data = _decode(request, body)
            except RefusedError as refused:
                log.warning("refused", reason=str(refused))
                return _error_response(request, refused.status, str(refused))
            if endpoint in _TESTING:
                return _json_response({"status": True})
            return await self._call(request, services, endpoint, confined_to, data)

    async def _call(
        self, request: Request, services: Services, endpoint: str, confined_to: str | None, data: Any
    ) -> Response:
        try:
            if not await _may_call(services, endpoint, confined_to, data):
                # PHP sends an empty body when it cannot encode a text
                log.warning("no key, or a wrong one", is_empty=not data)
                return Response("Forbidden", 403, media_type="text/plain; charset=utf-8")
            call = Call(services, data, confined_to, hosting_wide=confined_to is None)
            call = await call.located(data.get("host"))
            structlog.contextvars.bind_contextvars(instance_name=call.tenant())
            await call.count(CallKind.PAGE_VIEW if endpoint in _PAGE_VIEWS else CallKind.OTHER)
            message = await json_calls.HANDLERS[endpoint](call)
        except MissingKeyError:
            log.warning("a key is absent")
            # the old server called this one case no error
            return _json_response({"error": endpoint != "xmpp-unregister", "msg": "Invalid arguments"})
        except QuotaExceededError as error:
            log.warning("over quota", error=str(error))
            wait = {"Retry-After": str(math.ceil(error.retry_after))}
            return _json_response({"error": True, "msg": str(error)}, 429, "application/json", wait)
        except (UnavailableError, *DATABASE_AWAY) as error:
            return unavailable(request, endpoint, error)
        except (ApplicationError, DomainError) as error:
            log.warning("not done", error=type(error).__name__, reason=str(error).strip())
            return _json_response({"error": True, "msg": str(error)})
        if endpoint in _PLAIN_ANSWER:
            return Response("ok", media_type=_OK)
        return _json_response({"error": False, "msg": message})


def unavailable(request: Request, endpoint: str, error: Exception) -> Response:
    """The answer to a call that could not be accepted, and may be repeated: `UnavailableError`, or `DATABASE_AWAY`."""
    if isinstance(error, UnavailableError):
        log.warning("not accepted", endpoint=endpoint, error=str(error))
        return _error_response(request, 503, str(error), _WAIT)
    # without the statement, which holds what people wrote
    log.error("database", endpoint=endpoint, error=type(error).__name__)
    return _error_response(request, 503, "the database cannot be reached", _WAIT)


async def _may_call(services: Services, endpoint: str, confined_to: str | None, data: Any) -> bool:
    """Whether `secret_key` opens the door: the tenant's own key on its path, the hosting key at the root."""
    key = data.get("secret_key") if isinstance(data, Mapping) else None
    if not isinstance(key, str):
        return False
    if confined_to is None:
        return same(key, services.settings.hosting_key.get_secret_value())
    # what visitors do holds the tenant once more
    known = services.cache.tenants.get(confined_to) if endpoint in _OF_VISITORS else None
    if known is not None and keys.key_opens(known, key, services.clock()):
        return True
    return await keys.opens(services, confined_to, key)


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise RefusedError(413, "request entity too large")
    return bytes(body)


def _decode(request: Request, body: bytes) -> Any:
    """The JSON body. One that is not said to be JSON is ignored, so the key is missing from it."""
    content_type = Message()
    content_type["Content-Type"] = request.headers.get("content-type", "")
    if content_type.get_content_type() != "application/json" or not body:
        return {}
    charset = content_type.get_content_charset("utf-8")
    if not charset.startswith("utf-"):
        raise RefusedError(415, f'unsupported charset "{charset.upper()}"')
    try:
        data = json.loads(body.decode(charset), parse_constant=_no_constant)
    except (ValueError, LookupError, RecursionError):
        raise RefusedError(400, "the body is not valid JSON") from None
    if not isinstance(data, dict | list):
        raise RefusedError(400, "the body must be a JSON object")
    return data


def _no_constant(name: str) -> None:
    """Python's decoder would take NaN and Infinity, which JSON does not know."""
    raise ValueError(name)


def _json_response(
    data: dict[str, Any], status: int = 200, media_type: str = _OK, headers: Mapping[str, str] | None = None
) -> Response:
    # `msg` may repeat what the caller sent, lone surrogates included
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    return Response(text, status, headers, media_type)


def _error_response(request: Request, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    wants_json = request.headers.get("accept", "").startswith("application/json")
    content_type = "application/json" if wants_json else _OK
    return _json_response({"error": True, "msg": message}, status, content_type, headers)


def _not_found(request: Request) -> Response:
    return Response(
        f"<!DOCTYPE html>\n<title>Error</title>\n<pre>Cannot {html.escape(request.method)} "
        f"{html.escape(request.url.path)}</pre>\n",
        404,
        media_type=_OK,
    )

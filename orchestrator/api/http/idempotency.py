"""`Idempotency-Key` on `POST`: a route class, so that it holds for each endpoint of a router and is seen in none."""

import hashlib
import json
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from fastapi import Request, Response
from fastapi.routing import APIRoute

from orchestrator.api.http.auth import bearer, check_text, get_caller
from tenants.access import idempotency
from tenants.lifecycle import registry
from tenants.process.services import Services
from tenants.store.database import DATABASE_AWAY

log = structlog.get_logger(__name__)

_SHOWN_ONCE = ("secret_key", "signing_key", "token")
_KEPT_HEADERS = ("location", "content-type")

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class IdempotentRoute(APIRoute):
    """Answers a repeated `POST` as the first time. Secrets in the answer are shown once, so null in the repetition."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_once(request: Request) -> Response:
            key = request.headers.get("idempotency-key")
            if request.method != "POST" or key is None:
                return await handle(request)
            return await _answer_once(request, key, handle)

        return handle_once


async def _answer_once(request: Request, key: str, handle: Handler) -> Response:
    services: Services = request.app.state.services
    # before anything else: a token that was revoked is not given answers of its former life
    await get_caller(services, await bearer(request))
    await check_text(request)
    # whoever bears the same token is the same sender; a tenant that is made anew was never asked anything
    tenant = await registry.find(services.database, request.path_params.get("instance_name", ""))
    sender = f"{request.headers.get('authorization', '')}\n{tenant.incarnation if tenant else ''}"
    actor = hashlib.sha256(sender.encode()).hexdigest()
    known = await idempotency.begin(services, actor, key, await _fingerprint(request))
    if known is not None:
        return Response(known.body, known.status, {**known.headers, "Idempotent-Replayed": "true"})
    try:
        response = await handle(request)
    except BaseException:
        await idempotency.abandon(services.database, actor, key)
        raise
    headers = {name: value for name, value in response.headers.items() if name in _KEPT_HEADERS}
    answer = idempotency.StoredAnswer(response.status_code, headers, _without_secrets(bytes(response.body)))
    try:
        await idempotency.finish(services.database, actor, key, answer)
    except DATABASE_AWAY as error:
        # it is done, and its secrets are shown now or never
        log.error("an answer is not kept for its repetition", error=type(error).__name__)  # noqa: TRY400 - the statement holds the answer
    return response


async def _fingerprint(request: Request) -> str:
    whole = f"{request.method} {request.url.path}?{request.url.query}\n".encode() + await request.body()
    return hashlib.sha256(whole).hexdigest()


def _without_secrets(body: bytes) -> str:
    data = json.loads(body) if body else None
    if isinstance(data, dict):
        data |= {name: None for name in _SHOWN_ONCE if name in data}
    return json.dumps(data)

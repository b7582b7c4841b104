"""Page views of known visitors through the tenant's own API: see `orchestrator.api.fast_path.hot`."""

from collections.abc import Iterable
from http import HTTPStatus

import msgspec
from pydantic import ValidationError
from starlette.types import ASGIApp, Scope

from orchestrator.api.fast_path.hot import Ready
from orchestrator.api.http.views import instant
from tenants.access import tokens
from tenants.core.errors import DomainError
from tenants.core.naming import AccountKind, AccountName
from tenants.process.services import Services
from tenants.shards.queues import QueueUnavailableError
from tenants.store.database import DATABASE_AWAY
from tenants.store.models import Token
from tenants.visitors import page_views
from tenants.visitors.page_view_request import PageViewRequest
from tenants.visitors.page_views import Recalled

MAX_BODY = 64 * 1024
"""Bytes: more than any page view has."""


async def view_page(services: Services, scope: Scope, body: bytes) -> ASGIApp | None:
    """Answer a page view of a known visitor."""
    try:
        known = _recall(services, scope)
        if known is None:
            return None
        view = PageViewRequest.model_validate_json(body)
        status = view.status()
        until = await page_views.view_known_page(services, known, password=None, nick=view.nick, status=status)
    except (ValidationError, DomainError):
        return None
    except (QueueUnavailableError, *DATABASE_AWAY):
        # the application says which
        return None
    if until is None:
        return None
    shown = {"username": known.visitor.username, "status": status, "online_until": instant(until)}
    return Ready(HTTPStatus.ACCEPTED, b"application/json", msgspec.json.encode(shown))


def _recall(services: Services, scope: Scope) -> Recalled | None:
    """The visitor of the tenant whose own token the call bears, if both are known."""
    path = scope["path"].split("/")
    if len(path) != 7 or path[:3] != ["", "v1", "tenants"] or path[4] != "visitors" or scope["query_string"]:  # noqa: PLR2004 - its parts
        return None
    token = _token(services, scope["headers"])
    if token is None:
        return None
    name = AccountName(AccountKind.VISITOR, path[5], path[3])
    known = page_views.recall(services, services.naming.username(name))
    if known is None or not tokens.is_of(token, known.tenant):
        return None
    # a username can be put together in several ways; the account is of one kind and of one tenant
    is_this = (known.visitor.kind, known.visitor.instance_name) == (name.kind, name.instance)
    return known if is_this and known.tenant.instance_name == name.instance else None


def _token(services: Services, headers: Iterable[tuple[bytes, bytes]]) -> Token | None:
    """The token that the headers bear, if they say nothing else that matters."""
    token = None
    is_json = False
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            token = tokens.recall(services, value[7:].decode("latin-1"))
        elif name == b"content-type":
            is_json = value == b"application/json"
        elif name == b"idempotency-key":
            return None
    return token if is_json else None

"""Page views of known visitors through the tenant's own API: see `orchestrator.api.fast_path.hot`."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated

import msgspec
from starlette.types import ASGIApp, Scope

from orchestrator.api.fast_path.ready import Ready
from orchestrator.api.http.views import instant
from tenants.access import tokens
from tenants.core.errors import DomainError
from tenants.core.naming import AccountKind, AccountName
from tenants.core.text import DEFAULT_NICK, check_text
from tenants.lifecycle import admission
from tenants.process.cache import KnownVisitor
from tenants.process.rate_limits import CallKind
from tenants.process.services import Services
from tenants.store.database import DATABASE_AWAY
from tenants.store.models import Tenant, Token
from tenants.visitors import presence, status_text
from tenants.visitors.status_text import PageView

MAX_BODY = 64 * 1024
"""Bytes: more than any page view has."""

_Text = Annotated[str, msgspec.Meta(max_length=2000)]
_Name = Annotated[str, msgspec.Meta(max_length=100)]


class _View(msgspec.Struct, forbid_unknown_fields=True):
    """As `orchestrator.api.resources.visitors.PageViewRequest`, which judges whatever this one does not take."""

    nick: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = DEFAULT_NICK
    page: _Text | None = None
    referrer: _Text | None = None
    country: _Name | None = None
    city: _Name | None = None
    time_zone: _Name | None = None
    visits: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    department: _Name | None = None

    def page_view(self) -> PageView:
        """What operators read of it.

        Raises:
            InvalidInputError: it holds what XML forbids.
        """
        texts = {name: getattr(self, name) for name in ("page", "referrer", "country", "city", "time_zone")}
        texts["department"] = self.department
        checked = {name: text if text is None else check_text(text, name) for name, text in texts.items()}
        return PageView(**checked, visits=self.visits)


_decoder = msgspec.json.Decoder(_View)


async def view_page(services: Services, scope: Scope, body: bytes) -> ASGIApp | None:
    """Answer a page view of a known visitor, if it may come in; then it is counted."""
    try:
        found = _find(services, scope)
        if found is None:
            return None
        tenant, visitor = found
        view = _decoder.decode(body)
        nick, status = check_text(view.nick, "nick"), status_text.render(view.page_view())
        services.calls.admit_known(tenant, CallKind.PAGE_VIEW)
    except (msgspec.DecodeError, UnicodeDecodeError, DomainError):
        return None
    try:
        await presence.show_known(services, tenant, visitor, nick, status)
    except (DomainError, *DATABASE_AWAY):
        # it was not quite as it was known, or it cannot be stored; the application says which
        services.cache.forget_visitor(visitor.username)
        return None
    until = instant(services.clock() + tenant.online_seconds)
    shown = {"username": visitor.username, "status": status, "online_until": until}
    return Ready(HTTPStatus.ACCEPTED, b"application/json", msgspec.json.encode(shown))


def _find(services: Services, scope: Scope) -> tuple[Tenant, KnownVisitor] | None:
    """The tenant, whose own token it is, and its visitor, as far as both are known."""
    path = scope["path"].split("/")
    if len(path) != 7 or path[:3] != ["", "v1", "tenants"] or path[4] != "visitors" or scope["query_string"]:  # noqa: PLR2004 - its parts
        return None
    instance_name, visitor_id = path[3], path[5]
    token = _token(services, scope["headers"])
    tenant = services.cache.tenants.get(instance_name)
    if token is None or tenant is None or not tokens.is_of(token, tenant):
        return None
    if admission.refusal(tenant, AccountKind.VISITOR):
        return None
    visitor = services.cache.visitor(
        services.naming.username(AccountName(AccountKind.VISITOR, visitor_id, instance_name)), tenant.incarnation
    )
    # a name can be put together in several ways; the account is of one kind and of one tenant
    if visitor is None or (visitor.kind, visitor.instance_name) != (AccountKind.VISITOR, instance_name):
        return None
    return tenant, visitor


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

"""The first page: the whole system at a glance, as it is now."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.routing import route

from orchestrator.api.resources import health
from orchestrator.console.access import person_of, services_of
from orchestrator.console.pages import Page
from tenants.status import attention, overview, traffic
from tenants.store.models import Role, TenantState

_MINUTES = 60
_ORDER = tuple(TenantState)


class OverviewPage(Page):
    """Tenants by state, who is online, messages by the minute, what is undelivered, and the servers."""

    menu_label = "Overview"
    icon = "fa-solid fa-gauge-high"
    path = "/"
    add_to_menu = True

    @route("")
    async def index(self, request: Request) -> Response:
        context = {"title": "Overview", **await _look(request)}
        return self._answer(request, "overview.html", context)

    @route("/live/overview", name="live-overview")
    async def live(self, request: Request) -> Response:
        """The part that changes."""
        return self._answer(request, "parts/overview.html", await _look(request))


async def _look(request: Request) -> dict[str, Any]:
    services, person = services_of(request), person_of(request)
    seen, needed, minutes, ready = await asyncio.gather(
        overview.look(services),
        attention.look_at_all(services),
        traffic.last(services, _MINUTES),
        health.look(services),
    )
    return {
        "seen": seen,
        "needed": needed,
        "is_support": person.may(Role.SUPPORT),
        "is_admin": person.may(Role.ADMIN),
        "minutes": minutes,
        "parts": ready,
        "states": [(state, seen.tenants[state]) for state in _ORDER if seen.tenants.get(state)],
    }

"""The first page: the whole system at a glance, as it is now."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.routing import route

from orchestrator.api.resources import health
from orchestrator.console.access import services_of
from orchestrator.console.pages import Page
from tenants.process.services import Services
from tenants.status import overview, traffic
from tenants.store.models import TenantState

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
        context = {"title": "Overview", **await _look(services_of(request))}
        return self._answer(request, "overview.html", context)

    @route("/live/overview", name="live-overview")
    async def live(self, request: Request) -> Response:
        """The part that changes."""
        return self._answer(request, "parts/overview.html", await _look(services_of(request)))


async def _look(services: Services) -> dict[str, Any]:
    seen, minutes, ready = await asyncio.gather(
        overview.look(services), traffic.last(services, _MINUTES), health.look(services)
    )
    return {
        "seen": seen,
        "minutes": minutes,
        "parts": ready,
        "states": [(state, seen.tenants[state]) for state in _ORDER if seen.tenants.get(state)],
    }

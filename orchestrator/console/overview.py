"""The first page: the whole system at a glance, as it is now."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.routing import route
from starlette_admin.views import CustomView

from orchestrator.api import health
from orchestrator.console.access import services_of
from tenants import overview, traffic
from tenants.models import TenantState
from tenants.services import Services

_MINUTES = 60
_ORDER = tuple(TenantState)


class OverviewPage(CustomView):
    """Tenants by state, who is online, messages by the minute, what is undelivered, and the servers."""

    menu_label = "Overview"
    icon = "fa-solid fa-gauge-high"
    path = "/"

    @route("")
    async def index(self, request: Request) -> Response:
        assert self.templates is not None  # noqa: S101 - starlette-admin sets it
        context = {"title": "Overview", **await _look(services_of(request))}
        return self.templates.TemplateResponse(request, "overview.html", context)

    @route("/live/overview", name="live-overview")
    async def live(self, request: Request) -> Response:
        """The part that changes."""
        assert self.templates is not None  # noqa: S101 - starlette-admin sets it
        return self.templates.TemplateResponse(request, "parts/overview.html", await _look(services_of(request)))


async def _look(services: Services) -> dict[str, Any]:
    seen, minutes, ready = await asyncio.gather(
        overview.look(services), traffic.last(services, _MINUTES), health.look(services)
    )
    return {
        "seen": seen,
        "minutes": minutes,
        "parts": ready,
        "states": [(state, seen.tenants[state]) for state in _ORDER if seen.tenants.get(state)],
        "now": services.clock(),
    }

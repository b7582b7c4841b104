"""The HTTP server: `uvicorn --factory orchestrator.api.app:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline

from config.celery import make_celery
from config.settings import Settings
from config.wakeup import celery_wake
from orchestrator import telemetry
from orchestrator.api import deliveries, health, panel, problems
from orchestrator.api.lhc_face import LhcFace
from tenants.services import open_services


def create_app() -> FastAPI:
    """The application with all its faces, and the connections it holds while it runs."""
    settings = Settings.load()
    telemetry.set_up_logging(settings)
    telemetry.set_up_sentry(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings, celery_wake(make_celery(settings, "api"))) as services:
            app.state.services = services
            yield

    # the plain one loads its pages' scripts from elsewhere, which a browser in a private network cannot
    app = FastAPIOffline(
        title="LHC XMPP orchestrator",
        version="1",
        description="Tenants of a hosting company, their rosters and accounts in ejabberd, and their messages.",
        lifespan=lifespan,
    )
    problems.add_handlers(app)
    app.include_router(health.router)
    app.include_router(panel.router)
    app.include_router(deliveries.router)

    @app.api_route("/v1/{path:path}", methods=["GET", "PUT", "POST", "DELETE", "PATCH"], include_in_schema=False)
    async def unknown(path: str) -> JSONResponse:
        return problems.problem(HTTPStatus.NOT_FOUND, f"there is nothing at /v1/{path}")

    # last, because it answers every path that nobody else does
    app.mount("/", LhcFace())
    return app

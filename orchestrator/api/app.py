"""The HTTP server: `uvicorn --factory orchestrator.api.app:create_server`."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from config.celery import make_celery
from config.settings import Settings
from config.wakeup import celery_wake
from orchestrator import telemetry
from orchestrator.api.fast_path import hot_lhc, hot_pageviews
from orchestrator.api.fast_path.hot import HotPath
from orchestrator.api.http import documentation, metrics, problems
from orchestrator.api.http.auth import check_text
from orchestrator.api.http.bodies import MAX_BODY, BodyRules
from orchestrator.api.lhc.face import LhcFace
from orchestrator.api.resources import (
    attention,
    audit,
    chats,
    deliveries,
    health,
    hosts,
    operations,
    operators,
    reconcile,
    rooms,
    tenants,
    tokens,
    visitors,
)
from orchestrator.console import onboarding
from orchestrator.console.public_address import PublicAddress
from orchestrator.console.site import Console
from tenants.process.services import open_services
from tenants.visitors import write_behind

_TITLE = "LHC XMPP orchestrator"
_DESCRIPTION = "Tenants of a hosting company, their rosters and accounts in ejabberd, and their messages."


def create_app() -> FastAPI:
    """The application with all its faces, and the connections it holds while it runs."""
    settings = Settings.load()
    telemetry.set_up_logging(settings)
    telemetry.set_up_sentry(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            open_services(settings, celery_wake(make_celery(settings, "api"))) as services,
            write_behind.running(services),
        ):
            app.state.services = services
            if console is not None:
                console.open(services)
            # what is there now stays: no pause to look for garbage in it
            gc.collect()
            gc.freeze()
            yield

    # FastAPI itself loads the scripts of its pages from elsewhere, which a browser in a private network cannot
    app = FastAPIOffline(title=_TITLE, version="1", description=_DESCRIPTION, lifespan=lifespan)
    console = Console(settings) if settings.console_key.get_secret_value() else None
    app.add_middleware(BodyRules)
    problems.add_handlers(app)
    if console is not None:
        app.add_middleware(PublicAddress, public_url=settings.public_url)
        # first: for each link in its pages, Starlette looks through the routes from the beginning
        console.mount(app)
    _serve_resources(app)
    if console is not None:
        app.include_router(onboarding.router, max_body_size=MAX_BODY)

    # last, because it answers every path that nobody else does
    app.mount("/", LhcFace())
    return app


def _serve_resources(app: FastAPI) -> None:
    app.include_router(health.router)
    app.include_router(metrics.router)
    for resource in (
        tenants,
        hosts,
        operators,
        visitors,
        chats,
        rooms,
        deliveries,
        operations,
        reconcile,
        tokens,
        audit,
        attention,
    ):
        app.include_router(resource.router, max_body_size=MAX_BODY, dependencies=[Depends(check_text)])
    documentation.complete(app)
    problems.answer_unknown_paths(app)


def create_server() -> ASGIApp:
    """What uvicorn serves: the application, and before it what must not take its time."""
    return HotPath(
        create_app(),
        {
            "xmpp": (hot_lhc.view_page, hot_lhc.MAX_BODY),
            "xmpp-send-message": (hot_lhc.send_message, hot_lhc.MAX_BODY),
            "pageviews": (hot_pageviews.view_page, hot_pageviews.MAX_BODY),
        },
    )

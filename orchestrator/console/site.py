"""The console as a whole: its pages, its login, and the headers of every answer."""

import logging
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import FormData, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette_admin.base import BaseAdmin
from starlette_admin.export import ExportConfig
from starlette_admin.i18n import TimezoneConfig
from starlette_admin.routing import route
from starlette_admin.theme import DefaultTheme, TablerSettings
from starlette_admin.views import BaseModelView

from config.settings import Settings
from orchestrator.api.http.problems import describe
from orchestrator.console import shown
from orchestrator.console.access import Access
from orchestrator.console.audit import AuditTable
from orchestrator.console.conversation import ConversationPage
from orchestrator.console.deliveries import DeliveriesTable
from orchestrator.console.operations import OperationParts, OperationsTable
from orchestrator.console.overview import OverviewPage
from orchestrator.console.sessions import SessionsTable
from orchestrator.console.tables import ReadingSession
from orchestrator.console.tenant import TenantParts
from orchestrator.console.tenants import TenantsTable
from orchestrator.console.users import UsersTable
from tenants.core.errors import DomainError
from tenants.process.services import Services
from tenants.store.database import DATABASE_AWAY
from tenants.store.models import AuditEntry, CallbackMessage, ConsoleSession, ConsoleUser, Operation, Tenant

_HERE = Path(__file__).parent
_MOST_EXPORTED = 10_000
"""Rows in one export at most, because all of them are in memory at once. For more, people must filter."""
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""starlette-admin's pages have scripts in them. What people write is escaped, and nothing goes elsewhere."""
_BROKEN_FORM = "A field of the form is missing, or is not what it is to be."
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Console(BaseAdmin):
    """The pages below `/console`. starlette-admin's own database session is not used: see `ReadingSession`."""

    def __init__(self, settings: Settings) -> None:
        # otherwise it logs what people write in forms
        logging.getLogger("starlette_admin").setLevel(logging.ERROR)
        super().__init__(
            title="LHC XMPP orchestrator",
            base_url="/console",
            route_name="console",
            templates_dir=str(_HERE / "templates"),
            static_dir=str(_HERE / "static"),
            index_view=OverviewPage(),
            theme=DefaultTheme(TablerSettings(base="slate", primary="blue")),
            auth_provider=Access(),
            secret_key=settings.console_key.get_secret_value(),
            middlewares=[Middleware(Headers), Middleware(NoZeroBytes), Middleware(ReadingSession)],
            export_config=ExportConfig(max_rows=_MOST_EXPORTED),
            timezone_config=TimezoneConfig(use_user_locale_timezone=False),
        )
        for show in (shown.when, shown.ago, shown.span, shown.setting, shown.points):
            self.templates.env.filters[show.__name__] = show
        for view in (
            TenantsTable(Tenant),
            OperationsTable(Operation),
            DeliveriesTable(CallbackMessage),
            AuditTable(AuditEntry),
            UsersTable(ConsoleUser),
            SessionsTable(ConsoleSession),
            TenantParts(),
            ConversationPage(),
            OperationParts(),
        ):
            self.add_view(view)

    def open(self, services: Services) -> None:
        """Give the pages what they read from."""
        self.app.state.services = services

    def mount(self, app: FastAPI) -> None:
        """Serve the pages."""
        self.mount_to(app)
        self.app.add_exception_handler(DomainError, self._refused)
        for away in DATABASE_AWAY:
            self.app.add_exception_handler(away, self._away)

    @route("/_api/{key}/action", methods=["POST"], name="action")
    async def handle_action(self, request: Request) -> Response:
        if not request.query_params.get("name"):
            raise HTTPException(HTTPStatus.BAD_REQUEST, "The action is not named.")
        response: Response = await super().handle_action(request)
        return response

    @route("/_api/{key}/relation-lookup", methods=["GET"], name="relation-lookup")
    async def _render_relation_lookup(self, _request: Request) -> Response:
        raise HTTPException(HTTPStatus.NOT_FOUND, "No form has a field that looks up rows.")

    async def _parse_form_data(self, request: Request, form_data: FormData, view: BaseModelView) -> dict[str, Any]:
        """What a form holds; one that no page of ours has made may lack fields, or hold what is no number."""
        try:
            return await super()._parse_form_data(request, form_data, view)
        except (TypeError, ValueError, OverflowError) as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, _BROKEN_FORM) from error

    async def _refused(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, DomainError):
            raise error
        return self._error(request, HTTPStatus(describe(error).status), str(error))

    async def _away(self, request: Request, _error: Exception) -> Response:
        return self._error(request, HTTPStatus.SERVICE_UNAVAILABLE, "The database cannot be reached; try again soon.")

    def _error(self, request: Request, status: HTTPStatus, detail: str) -> Response:
        context = {"exc": {"status_code": status.value, "detail": detail}}
        return self._template_response(request, "error.html", context, status.value)


class NoZeroBytes:
    """ASGI middleware: refuses an address with a zero byte, which no name holds and PostgreSQL cannot be asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_zero = scope["type"] == "http" and ("\0" in scope["path"] or b"%00" in scope["query_string"])
        refusal = PlainTextResponse("An address must not hold a zero byte.", HTTPStatus.BAD_REQUEST)
        await (refusal if has_zero else self._app)(scope, receive, send)


class Headers:
    """ASGI middleware: what every answer bears; pages are kept by nobody."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                if "/static/" not in scope["path"]:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        await self._app(scope, receive, sending)

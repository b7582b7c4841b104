"""The page of an invitation: an operator sets a password, once, and sees how to connect. Nobody else ever sees it.

It belongs to no login: whoever has the link is the operator. So it stands apart from the console, and has no script.
"""

from http import HTTPStatus
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import segno
from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, Response
from starlette.templating import Jinja2Templates

from orchestrator.api.http.auth import ServicesDep
from orchestrator.console.access import address_of
from tenants.access import one_time_links, passwords
from tenants.access.one_time_links import Invitation
from tenants.accounts import operators
from tenants.core.errors import DomainError, InvalidInputError
from tenants.lifecycle import hosts
from tenants.process.services import Services
from tenants.store.models import Purpose

_templates = Jinja2Templates(directory=Path(__file__).parent / "templates")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

router = APIRouter(include_in_schema=False)


@router.get("/onboarding/{secret}", name="onboarding")
async def show(request: Request, secret: str, services: ServicesDep) -> Response:
    """Show the page. A program that only fetches it, as mail servers do, does not use the link up."""
    invitation = await one_time_links.find_invitation(services, secret)
    return await _page(request, services, invitation) if invitation else _gone(request)


@router.post("/onboarding/{secret}")
async def set_password(
    request: Request,
    secret: str,
    services: ServicesDep,
    password: Annotated[str, Form(max_length=1000)] = "",
    again: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Set the password, and use the link up; when it is refused, the link stays good."""
    invitation = await one_time_links.find_invitation(services, secret)
    if invitation is None:
        return _gone(request)
    if (rule := _broken_rule(password, again, invitation.operator, invitation.instance_name)) is not None:
        return await _page(request, services, invitation, error=rule)
    try:
        await operators.get(services, invitation.instance_name, invitation.operator)
        if await one_time_links.take(services, Purpose.ONBOARDING, secret) is None:
            return _gone(request)
        await operators.accept_invitation(services, invitation, password, address_of(request))
    except DomainError as error:
        return await _page(request, services, invitation, error=str(error))
    return await _page(request, services, invitation, done=True)


def _broken_rule(password: str, again: str, operator: str, instance_name: str) -> str | None:
    try:
        passwords.check_chosen(password, unlike=passwords.names(operator, instance_name))
    except InvalidInputError as error:
        return f"The password {error.rule}."
    return "The two passwords are not the same." if password != again else None


async def _page(
    request: Request, services: Services, invitation: Invitation, *, error: str | None = None, done: bool = False
) -> Response:
    account = services.naming.username(operators.name_of(invitation.instance_name, invitation.operator))
    host = await hosts.of(services, invitation.instance_name)
    jid = f"{account}@{host}"
    uri = f"xmpp:{quote(jid, safe='@.')}"
    context = {
        "jid": jid,
        "server": host,
        "uri": uri,
        "qr": segno.make(uri, error="m").svg_data_uri(scale=5, border=2, light="#fff"),
        "error": error,
        "done": done,
        "shortest": passwords.SHORTEST,
        "longest": passwords.LONGEST,
    }
    status = HTTPStatus.UNPROCESSABLE_ENTITY if error else HTTPStatus.OK
    return _templates.TemplateResponse(request, "onboarding.html", context, status, headers=_HEADERS)


def _gone(request: Request) -> HTMLResponse:
    return _templates.TemplateResponse(request, "onboarding.html", {"gone": True}, HTTPStatus.GONE, headers=_HEADERS)

"""A tenant's visitors, for the tenant itself: page views make them contacts of its operators."""

from datetime import datetime
from http import HTTPStatus

from fastapi import APIRouter
from pydantic import BaseModel, Field

from orchestrator.api.http.auth import VIEWS_FOR_TENANT, ServicesDep
from orchestrator.api.http.idempotency import IdempotentRoute
from orchestrator.api.http.views import instant, problems
from tenants.core.naming import AccountKind, AccountName, check_identifier
from tenants.visitors import page_views
from tenants.visitors.page_view_request import PageViewRequest


class VisitorOnline(BaseModel):
    """A visitor whom operators see from now on."""

    username: str = Field(description="The account's name.")
    status: str = Field(description="The text beside the visitor's name.")
    online_until: datetime = Field(description="Unless there is another page view.")


router = APIRouter(
    prefix="/v1/tenants/{instance_name}/visitors",
    tags=["visitors"],
    route_class=IdempotentRoute,
    responses=problems(404, 409, 429),
)


@router.post("/{visitor_id}/pageviews", status_code=HTTPStatus.ACCEPTED, dependencies=[VIEWS_FOR_TENANT])
async def view_page(instance_name: str, visitor_id: str, view: PageViewRequest, services: ServicesDep) -> VisitorOnline:
    """The visitor is on a page: a contact of the operators, online for the tenant's window; made when it is new."""
    visitor = AccountName(AccountKind.VISITOR, check_identifier(visitor_id, "visitor_id"), instance_name)
    status = view.status()
    until = await page_views.view_page(services, visitor, password=None, nick=view.nick, status=status)
    return VisitorOnline(username=services.naming.username(visitor), status=status, online_until=instant(until))

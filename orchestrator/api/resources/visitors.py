"""A tenant's visitors, for the tenant itself: page views make them contacts of its operators."""

from datetime import datetime
from http import HTTPStatus

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.http.auth import VIEWS_FOR_TENANT, ServicesDep
from orchestrator.api.http.idempotency import IdempotentRoute
from orchestrator.api.http.views import XmlText, instant, problems
from tenants.accounts import accounts
from tenants.core.naming import AccountKind, AccountName, check_identifier
from tenants.core.text import DEFAULT_NICK
from tenants.lifecycle import admission
from tenants.visitors import presence, status_text
from tenants.visitors.status_text import PageView


class PageViewRequest(BaseModel):
    """What is known of a page view; operators read it as the visitor's status."""

    model_config = ConfigDict(extra="forbid")

    nick: XmlText = Field(DEFAULT_NICK, min_length=1, max_length=200)
    page: XmlText | None = Field(None, max_length=2000, description="Title or address of the page.")
    referrer: XmlText | None = Field(None, max_length=2000)
    country: XmlText | None = Field(None, max_length=100)
    city: XmlText | None = Field(None, max_length=100)
    time_zone: XmlText | None = Field(None, max_length=100)
    visits: int | None = Field(None, strict=True, ge=0, le=2**31 - 1)
    department: XmlText | None = Field(None, max_length=100)

    def status(self) -> str:
        """The text that operators read."""
        return status_text.render(PageView(**self.model_dump(exclude={"nick"})))


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
    tenant = await admission.recent(services, instance_name, AccountKind.VISITOR)
    await presence.check_quota(services, tenant, visitor)
    await accounts.ensure(services, tenant, visitor, view.nick)
    await presence.show(services, tenant, visitor, view.nick, view.status())
    return VisitorOnline(
        username=services.naming.username(visitor),
        status=view.status(),
        online_until=instant(services.clock() + tenant.online_seconds),
    )

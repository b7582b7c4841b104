"""A tenant's operators, for the tenant itself: accounts, what they are for, and who is online."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from orchestrator.api.http.auth import ACTS_FOR_TENANT, READS_TENANT, CauseDep, ServicesDep
from orchestrator.api.http.idempotency import IdempotentRoute
from orchestrator.api.http.pages import Page, rows_named
from orchestrator.api.http.views import instant, problems
from tenants.access import passwords
from tenants.accounts import operators
from tenants.core.naming import AccountKind
from tenants.core.text import XmlText
from tenants.lifecycle import admission

Department = Annotated[str, Field(min_length=1, max_length=100)]


class OperatorRequest(BaseModel):
    """What an operator is to be. What is left out keeps its value."""

    model_config = ConfigDict(extra="forbid")

    password: SecretStr | None = Field(
        None,
        min_length=1,
        max_length=1000,
        json_schema_extra=passwords.SCHEMA,
        description="A new operator's, or a new one of an operator that exists. None of the commonest ones.",
    )
    lhc_user_id: int | None = Field(None, strict=True, ge=0, le=2**31 - 1, description="The tenant's own number of it.")
    nick: XmlText | None = Field(None, min_length=1, max_length=200, description="As colleagues and visitors see it.")
    departments: list[Department] | None = Field(
        None, max_length=100, description="Chats of these departments; null: of all of them."
    )
    receives_new_chats: bool = Field(default=True, strict=True, description="Whether new chats are offered.")


class ConnectionView(BaseModel):
    """One device of an operator."""

    resource: str
    show: str = Field(description="`available`, `away`, `chat`, `dnd` or `xa`.")
    status: str
    online_since: datetime


class OperatorView(BaseModel):
    """An operator, and where it is online."""

    username: str
    lhc_user_id: int | None
    nick: str | None
    departments: list[str] | None
    receives_new_chats: bool
    online: bool = Field(description="Whether messages reach it now.")
    connections: list[ConnectionView] = Field(description="The devices that messages reach.")
    created_at: datetime

    @classmethod
    def of(cls, operator: operators.OperatorSummary, now: float) -> "OperatorView":
        """The operator as its tenant sees it."""
        names = ("username", "lhc_user_id", "nick", "departments", "receives_new_chats")
        return cls(
            **{name: getattr(operator, name) for name in names},
            online=any(one.is_available for one in operator.connections),
            connections=[
                ConnectionView(
                    resource=one.resource, show=one.show, status=one.status, online_since=instant(now - one.seconds)
                )
                for one in operator.connections
                if one.is_available
            ],
            created_at=datetime.fromtimestamp(operator.created_at, UTC),
        )


class OperatorPage(Page[OperatorView, str], alias_generator=rows_named("operators")):
    """Some operators, by name."""


class Kicked(BaseModel):
    """How many connections were ended."""

    connections: int


router = APIRouter(
    prefix="/v1/tenants/{instance_name}/operators",
    tags=["operators"],
    route_class=IdempotentRoute,
    responses=problems(404, 409, 429),
)


@router.get("", dependencies=[READS_TENANT])
async def list_operators(
    instance_name: str,
    services: ServicesDep,
    after: Annotated[str, Query(max_length=64, description="Names behind this one.")] = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> OperatorPage:
    """The operators with their devices that are online."""
    found = await operators.find(services, instance_name, after=after, limit=limit + 1)
    now = services.clock()
    return OperatorPage.of(found, limit, lambda operator: OperatorView.of(operator, now), by="username")


@router.get("/{username}", dependencies=[READS_TENANT])
async def get_operator(instance_name: str, username: str, services: ServicesDep) -> OperatorView:
    """The operator with its devices that are online."""
    return OperatorView.of(await operators.get(services, instance_name, username), services.clock())


@router.put(
    "/{username}",
    dependencies=[ACTS_FOR_TENANT],
    responses={HTTPStatus.CREATED: {"model": OperatorView, "description": "The operator is new."}},
)
async def put_operator(
    instance_name: str, username: str, wanted: OperatorRequest, services: ServicesDep, response: Response
) -> OperatorView:
    """Create the operator, or change it."""
    tenant = await admission.get(services, instance_name, AccountKind.OPERATOR)
    changes = wanted.model_dump(exclude_unset=True, exclude={"password"})
    password = wanted.password.get_secret_value() if wanted.password else None
    if await operators.put(services, tenant, username, changes, password):
        response.status_code = HTTPStatus.CREATED
    return OperatorView.of(await operators.get(services, instance_name, username), services.clock())


@router.delete("/{username}", status_code=HTTPStatus.NO_CONTENT, dependencies=[ACTS_FOR_TENANT])
async def delete_operator(instance_name: str, username: str, services: ServicesDep) -> None:
    """Remove the operator; one that is gone already is a success."""
    await operators.remove(services, instance_name, username)


@router.post("/{username}/kick", dependencies=[ACTS_FOR_TENANT])
async def kick_operator(instance_name: str, username: str, services: ServicesDep, cause: CauseDep) -> Kicked:
    """End all connections of the operator, who may log in again."""
    return Kicked(connections=await operators.kick(services, instance_name, username, cause))

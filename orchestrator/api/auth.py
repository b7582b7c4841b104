"""Who calls, and what they may do: bearer tokens of three scopes, as FastAPI dependencies."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, HTTPException, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tenants import audit, registry, tokens
from tenants.errors import NotFoundError
from tenants.models import Scope
from tenants.secrets import same
from tenants.services import Services
from tenants.states import Cause

_bearer = HTTPBearer(auto_error=False, description="A token of the scope `panel:read`, `panel:write` or `tenant`.")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose token was presented. `instance_name`: the one tenant that a token of scope `tenant` opens."""

    actor: str
    scope: Scope
    instance_name: str | None = None


def get_services(request: Request) -> Services:
    """The services of this process."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def get_caller(
    services: ServicesDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """Refuse who bears no token, or one that opens nothing."""
    presented = credentials.credentials if credentials else ""
    if same(presented, services.settings.panel_token.get_secret_value()):
        return Caller("panel", Scope.PANEL_WRITE)
    token = await tokens.check(services, presented)
    if token is None:
        raise HTTPException(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong", {"WWW-Authenticate": "Bearer"})
    return Caller(token.name, token.scope, token.instance_name)


CallerDep = Annotated[Caller, Depends(get_caller)]


def reads(caller: CallerDep) -> None:
    """Of all tenants: the panel."""
    if caller.scope is Scope.TENANT:
        raise HTTPException(HTTPStatus.FORBIDDEN, "this token opens one tenant's own resources alone")


def writes(caller: CallerDep) -> None:
    """The panel, with a token that may change something."""
    if caller.scope is not Scope.PANEL_WRITE:
        raise HTTPException(HTTPStatus.FORBIDDEN, "this token may not change anything here")


async def reads_tenant(caller: CallerDep, services: ServicesDep, instance_name: Annotated[str, Path()]) -> None:
    """The panel, or the tenant itself. Whose token is another tenant's is not told which others there are."""
    if caller.scope is Scope.TENANT and caller.instance_name != instance_name:
        raise NotFoundError(f"there is no tenant '{instance_name}'")
    await registry.get(services, instance_name)


async def writes_tenant(caller: CallerDep, services: ServicesDep, instance_name: Annotated[str, Path()]) -> None:
    """The panel, for a tenant that there is."""
    writes(caller)
    await registry.get(services, instance_name)


def get_cause(
    caller: CallerDep,
    reason: Annotated[
        str | None, Query(max_length=audit.REASON_LIMIT, description="Why; it is kept in the audit log.")
    ] = None,
) -> Cause:
    """Who wants it, and why."""
    return Cause(caller.actor, reason)


CauseDep = Annotated[Cause, Depends(get_cause)]
READS, WRITES, READS_TENANT, WRITES_TENANT = (
    Depends(needed) for needed in (reads, writes, reads_tenant, writes_tenant)
)

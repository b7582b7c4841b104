"""Who calls, and what they may do: bearer tokens of three scopes, as FastAPI dependencies.

All of them are coroutines, also those that wait for nothing: FastAPI runs plain functions in threads.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, HTTPException, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tenants import admission, audit, registry, tokens
from tenants.errors import InvalidInputError, NotFoundError
from tenants.models import Scope
from tenants.secrets import same
from tenants.services import Services
from tenants.states import Cause

bearer = HTTPBearer(auto_error=False, description="A token of the scope `panel:read`, `panel:write` or `tenant`.")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose token was presented. `instance_name`: the one tenant that a token of scope `tenant` opens."""

    actor: str
    scope: Scope
    instance_name: str | None = None


async def get_services(request: Request) -> Services:
    """The services of this process."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def get_caller(
    services: ServicesDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
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


async def reads(caller: CallerDep) -> None:
    """Of all tenants: the panel."""
    if caller.scope is Scope.TENANT:
        raise HTTPException(HTTPStatus.FORBIDDEN, "this token opens one tenant's own resources alone")


async def writes(caller: CallerDep) -> None:
    """The panel, with a token that may change something."""
    if caller.scope is not Scope.PANEL_WRITE:
        raise HTTPException(HTTPStatus.FORBIDDEN, "this token may not change anything here")


async def reads_tenant(caller: CallerDep, services: ServicesDep, instance_name: Annotated[str, Path()]) -> None:
    """The panel, or the tenant itself. Whose token is another tenant's is not told which others there are."""
    _check_own(caller, instance_name)
    await registry.get(services, instance_name)


async def reads_history(caller: CallerDep, services: ServicesDep, instance_name: Annotated[str, Path()]) -> None:
    """As `reads_tenant`, but what is kept of a destroyed tenant can be read as well."""
    _check_own(caller, instance_name)
    await registry.check_known(services, instance_name)


async def writes_tenant(caller: CallerDep, services: ServicesDep, instance_name: Annotated[str, Path()]) -> None:
    """The panel, for a tenant that there is."""
    await writes(caller)
    await registry.get(services, instance_name)


async def acts_for_tenant(caller: CallerDep, services: ServicesDep, instance_name: Annotated[str, Path()]) -> None:
    """The tenant itself, or the panel in its stead; its calls are counted."""
    _check_own(caller, instance_name)
    if caller.scope is Scope.PANEL_READ:
        raise HTTPException(HTTPStatus.FORBIDDEN, "this token may not change anything here")
    services.calls.admit_known(await admission.look(services, instance_name))


def _check_own(caller: Caller, instance_name: str) -> None:
    if caller.scope is Scope.TENANT and caller.instance_name != instance_name:
        raise NotFoundError(f"there is no tenant '{instance_name}'")


async def check_text(request: Request) -> None:
    """Refuse what no name, id or reason holds, and PostgreSQL cannot be asked for."""
    for name, value in [*request.path_params.items(), *request.query_params.multi_items()]:
        if "\0" in str(value):
            raise InvalidInputError(name, "must not hold a zero byte")


async def get_cause(
    caller: CallerDep,
    reason: Annotated[
        str | None, Query(max_length=audit.REASON_LIMIT, description="Why; it is kept in the audit log.")
    ] = None,
) -> Cause:
    """Who wants it, and why."""
    return Cause(caller.actor, reason)


CauseDep = Annotated[Cause, Depends(get_cause)]
READS, WRITES, READS_TENANT, READS_HISTORY, WRITES_TENANT, ACTS_FOR_TENANT = (
    Depends(needed) for needed in (reads, writes, reads_tenant, reads_history, writes_tenant, acts_for_tenant)
)

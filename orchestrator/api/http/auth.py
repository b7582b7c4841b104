"""Who calls, and what they may do: bearer tokens, each of one scope, as FastAPI dependencies.

All of them are coroutines, also those that wait for nothing: FastAPI runs plain functions in threads.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, HTTPException, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tenants.access import tokens
from tenants.core.digests import same
from tenants.core.errors import InvalidInputError, NotFoundError
from tenants.lifecycle import admission, audit, registry
from tenants.lifecycle.audit import Cause
from tenants.process.rate_limits import CallKind
from tenants.process.services import Services
from tenants.store.models import PANEL_SCOPES, Scope, Tenant

bearer = HTTPBearer(auto_error=False, description=f"A token of the scope {', '.join(f'`{scope}`' for scope in Scope)}.")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose token was presented. `instance_name`, `incarnation`: the tenant that a token of scope `tenant` opens."""

    actor: str
    scope: Scope
    instance_name: str | None = None
    incarnation: str = ""


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
    return Caller(token.name, token.scope, token.instance_name, token.incarnation)


CallerDep = Annotated[Caller, Depends(get_caller)]


async def reads(caller: CallerDep) -> None:
    """Of all tenants: the panel."""
    if caller.scope is Scope.TENANT:
        raise HTTPException(HTTPStatus.FORBIDDEN, "this token opens one tenant's own resources alone")
    _check_reads(caller)


async def reads_metrics(caller: CallerDep) -> None:
    """Prometheus, and the panel."""
    if caller.scope is not Scope.METRICS:
        await reads(caller)


async def writes(caller: CallerDep) -> None:
    """The panel, with a token that may change something."""
    if caller.scope is not Scope.PANEL_WRITE:
        raise HTTPException(HTTPStatus.FORBIDDEN, "this token may not change anything here")


async def reads_tenant(caller: CallerDep, services: ServicesDep, instance_name: Annotated[str, Path()]) -> None:
    """The panel, or the tenant itself. Whose token is another tenant's is not told which others there are."""
    _check_reads(caller)
    _check_name(caller, instance_name)
    _check_own(caller, await registry.get(services, instance_name))


async def reads_messages(caller: CallerDep, services: ServicesDep, instance_name: Annotated[str, Path()]) -> None:
    """As `reads_tenant`, but what people said needs more than a look at the panel."""
    await reads_tenant(caller, services, instance_name)
    if caller.scope is Scope.PANEL_READ:
        raise HTTPException(HTTPStatus.FORBIDDEN, f"what people said needs the scope {Scope.PANEL_MESSAGES}")


async def reads_history(caller: CallerDep, services: ServicesDep, instance_name: Annotated[str, Path()]) -> float:
    """As `reads_tenant`, but what is kept of a destroyed tenant can be read as well.

    Returns:
        since when (Unix seconds): a tenant is told nothing of one that bore its name before.
    """
    _check_reads(caller)
    _check_name(caller, instance_name)
    tenant = await registry.get_known(services.database, instance_name)
    _check_own(caller, tenant)
    return tenant.created_at if caller.scope is Scope.TENANT else 0.0


async def writes_tenant(caller: CallerDep, services: ServicesDep, instance_name: Annotated[str, Path()]) -> None:
    """The panel, for a tenant that there is."""
    await writes(caller)
    await registry.get(services, instance_name)


async def acts_for_tenant(caller: CallerDep, services: ServicesDep, instance_name: Annotated[str, Path()]) -> None:
    """The tenant itself, or the panel in its stead; its calls are counted."""
    await services.calls.admit_known(await _check_acts(caller, services, instance_name), CallKind.OTHER)


async def views_for_tenant(caller: CallerDep, services: ServicesDep, instance_name: Annotated[str, Path()]) -> None:
    """As `acts_for_tenant`, for a page view."""
    await services.calls.admit_known(await _check_acts(caller, services, instance_name), CallKind.PAGE_VIEW)


async def _check_acts(caller: Caller, services: Services, instance_name: str) -> Tenant:
    _check_name(caller, instance_name)
    if caller.scope not in {Scope.TENANT, Scope.PANEL_WRITE}:
        raise HTTPException(HTTPStatus.FORBIDDEN, "this token may not change anything here")
    tenant = await admission.look(services, instance_name)
    _check_own(caller, tenant)
    return tenant


def _check_reads(caller: Caller) -> None:
    if caller.scope is not Scope.TENANT and caller.scope not in PANEL_SCOPES:
        raise HTTPException(HTTPStatus.FORBIDDEN, f"a token of the scope {caller.scope} opens nothing here")


def _check_name(caller: Caller, instance_name: str) -> None:
    """Before the tenant is looked for: others' names tell nothing."""
    if caller.scope is Scope.TENANT and caller.instance_name != instance_name:
        raise NotFoundError(f"there is no tenant '{instance_name}'")


def _check_own(caller: Caller, tenant: Tenant) -> None:
    """Not one that bore the name before, whose token this process may know for a moment more."""
    if caller.scope is Scope.TENANT and caller.incarnation != tenant.incarnation:
        raise NotFoundError(f"there is no tenant '{tenant.instance_name}'")


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
READS, READS_METRICS, WRITES = (Depends(needed) for needed in (reads, reads_metrics, writes))
READS_TENANT, READS_MESSAGES, READS_HISTORY = (
    Depends(needed) for needed in (reads_tenant, reads_messages, reads_history)
)
HistorySince = Annotated[float, READS_HISTORY]
WRITES_TENANT, ACTS_FOR_TENANT, VIEWS_FOR_TENANT = (
    Depends(needed) for needed in (writes_tenant, acts_for_tenant, views_for_tenant)
)

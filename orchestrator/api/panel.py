"""The control panel's API: tenants as resources, workflows as operations."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, HttpUrl

from tenants import operations, registry
from tenants.models import Operation, Tenant
from tenants.secrets import same
from tenants.services import Services
from tenants.states import Cause

_bearer = HTTPBearer(auto_error=False, description="The control panel's token.")


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class TenantRequest(BaseModel):
    """What a tenant is to be. What is left out keeps its value, or takes its default."""

    model_config = ConfigDict(extra="forbid")

    callback_url: HttpUrl | None = Field(
        None, description="Base URL of the tenant's LHC. By default made from its name: every dash becomes a dot."
    )
    online_seconds: float | None = Field(
        None, gt=0, le=86400, description="How long a page view keeps a visitor online."
    )
    idle_hours: float | None = Field(
        None, gt=0, le=8760, description="Idle visitor accounts are removed after this time."
    )
    secret_key: str | None = Field(
        None, min_length=20, max_length=200, description="The tenant's own key; one is made when none is given."
    )


class StepView(BaseModel):
    """One step of a workflow."""

    name: str
    state: str
    attempts: int
    done: int
    total: int
    error: str | None
    started_at: datetime | None
    finished_at: datetime | None


class OperationView(BaseModel):
    """One run of a workflow."""

    id: str
    instance_name: str
    kind: str
    state: str
    requested_by: str
    progress: float = Field(description="From 0 to 1.")
    error: str | None
    celery_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    steps: list[StepView]


class TenantView(BaseModel):
    """A tenant."""

    instance_name: str
    state: str
    rosters: list[str]
    callback_url: str | None
    online_seconds: float
    idle_hours: float
    accounts: dict[str, int]
    created_at: datetime
    updated_at: datetime
    operation: OperationView | None = Field(description="The newest operation.")
    secret_key: str | None = Field(None, description="Shown once, in the answer that made it.")


def get_services(request: Request) -> Services:
    """The services of this process."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


def require_panel(
    services: ServicesDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Refuse who is not the control panel."""
    token = credentials.credentials if credentials else ""
    if not same(token, services.settings.panel_token.get_secret_value()):
        raise HTTPException(
            HTTPStatus.UNAUTHORIZED, "the control panel's token is missing or wrong", {"WWW-Authenticate": "Bearer"}
        )


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in (401, 404, 409, 422, 503)
}
router = APIRouter(prefix="/v1", tags=["control panel"], dependencies=[Depends(require_panel)], responses=PROBLEMS)


@router.put("/tenants/{instance_name}", responses={200: {"model": TenantView}, 202: {"model": TenantView}})
async def put_tenant(
    instance_name: str, services: ServicesDep, response: Response, wanted: TenantRequest | None = None
) -> TenantView:
    """Create the tenant, or change it. May be repeated at will.

    202 while its provisioning is under way, 200 when it is active.
    """
    wanted = wanted or TenantRequest()
    spec = registry.TenantSpec(
        changes=wanted.model_dump(mode="json", exclude_unset=True, exclude={"secret_key"}), secret_key=wanted.secret_key
    )
    created = await registry.put(services, instance_name, spec, Cause("panel"))
    if created.operation is not None:
        response.status_code = HTTPStatus.ACCEPTED
        response.headers["Location"] = f"/v1/operations/{created.operation.id}"
    view = await _tenant_view(services, created.tenant)
    view.secret_key = created.secret_key
    return view


@router.get("/tenants/{instance_name}")
async def get_tenant(instance_name: str, services: ServicesDep) -> TenantView:
    """The tenant as it is now."""
    return await _tenant_view(services, await registry.get(services, instance_name))


@router.delete("/tenants/{instance_name}", status_code=HTTPStatus.ACCEPTED)
async def delete_tenant(instance_name: str, services: ServicesDep, response: Response) -> OperationView:
    """End the tenant: its sessions, accounts and rosters are removed. The operation tells how far it is."""
    operation = await registry.destroy(services, instance_name, Cause("panel"))
    response.headers["Location"] = f"/v1/operations/{operation.id}"
    return operation_view(operation)


@router.get("/operations/{operation_id}")
async def get_operation(operation_id: str, services: ServicesDep) -> OperationView:
    """An operation, with its steps and how far it is."""
    return operation_view(await operations.get(services, operation_id))


async def _tenant_view(services: Services, tenant: Tenant) -> TenantView:
    async with services.database.read() as session:
        accounts = await registry.count_accounts(session, tenant.instance_name)
    operation = await operations.latest(services, tenant.instance_name)
    return TenantView(
        instance_name=tenant.instance_name,
        state=tenant.state,
        rosters=registry.groups(services, tenant.instance_name),
        callback_url=tenant.callback_url,
        online_seconds=tenant.online_seconds,
        idle_hours=tenant.idle_hours,
        accounts={kind.value: count for kind, count in accounts.items()},
        created_at=_instant(tenant.created_at),
        updated_at=_instant(tenant.updated_at),
        operation=operation_view(operation) if operation else None,
    )


def operation_view(operation: Operation) -> OperationView:
    """The operation as the panel sees it."""
    steps = operation.steps
    progress = sum(step.done / max(step.total, 1) for step in steps) / len(steps) if steps else 0.0
    return OperationView(
        id=operation.id,
        instance_name=operation.instance_name,
        kind=operation.kind,
        state=operation.state,
        requested_by=operation.requested_by,
        progress=round(progress, 3),
        error=operation.error,
        celery_id=operation.celery_id,
        created_at=_instant(operation.created_at),
        started_at=_maybe_instant(operation.started_at),
        finished_at=_maybe_instant(operation.finished_at),
        steps=[
            StepView(
                name=step.name,
                state=step.state,
                attempts=step.attempts,
                done=step.done,
                total=step.total,
                error=step.error,
                started_at=_maybe_instant(step.started_at),
                finished_at=_maybe_instant(step.finished_at),
            )
            for step in steps
        ],
    )


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _maybe_instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else _instant(seconds)

"""Reconciliation with ejabberd, and the import of tenants that exist there."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from orchestrator.api.http.auth import READS, READS_HISTORY, WRITES, WRITES_TENANT, CauseDep, ServicesDep
from orchestrator.api.http.idempotency import IdempotentRoute
from orchestrator.api.http.pages import AfterId, Limit, Page, rows_named
from orchestrator.api.http.views import OperationView, View, problems
from orchestrator.api.resources.tenants import KEY, TenantView, accepted, made_view
from tenants.lifecycle.registry import TenantSpec
from tenants.lifecycle.tenant_settings import TenantSettings
from tenants.process.services import Services
from tenants.workflows import drift_records, imports, reconcile
from tenants.workflows.drift import DriftKind


class ImportRequest(TenantSettings):
    """What the imported tenant is to be."""

    secret_key: str | None = KEY


class DriftView(View):
    """A difference between the registry and ejabberd."""

    id: int
    instance_name: str = Field(description="`*` for what belongs to no tenant.")
    kind: DriftKind
    subject: str
    detail: str | None
    found_at: datetime
    mended_at: datetime | None


class DriftPage(Page[DriftView, int], alias_generator=rows_named("drift")):
    """Some differences, oldest first."""


DryRun = Annotated[bool, Query(description="Only report what would be mended.")]
Anyway = Annotated[
    bool, Query(description="Mend however much would be removed or made anew (`ORCHESTRATOR_RECONCILE_LIMIT`).")
]
Unmended = Annotated[bool, Query(description="False: also what was mended within the last month.")]

router = APIRouter(prefix="/v1", tags=["reconciliation"], route_class=IdempotentRoute)


@router.post("/reconcile", status_code=HTTPStatus.ACCEPTED, dependencies=[WRITES], responses=problems(409))
async def reconcile_all(
    services: ServicesDep,
    response: Response,
    cause: CauseDep,
    *,
    dry_run: DryRun = False,
    anyway: Anyway = False,
) -> OperationView:
    """Compare all tenants with ejabberd, and mend what differs."""
    return accepted(response, await reconcile.start(services, cause, dry_run=dry_run, anyway=anyway))


@router.post(
    "/tenants/{instance_name}/reconcile",
    status_code=HTTPStatus.ACCEPTED,
    dependencies=[WRITES_TENANT],
    responses=problems(404, 409),
)
async def reconcile_one(
    instance_name: str,
    services: ServicesDep,
    response: Response,
    cause: CauseDep,
    *,
    dry_run: DryRun = False,
    anyway: Anyway = False,
) -> OperationView:
    """Compare the tenant with ejabberd, and mend what differs."""
    return accepted(response, await reconcile.start(services, cause, instance_name, dry_run=dry_run, anyway=anyway))


@router.get("/drift", dependencies=[READS], responses=problems())
async def list_drift(
    services: ServicesDep, *, unmended: Unmended = True, after: AfterId = 0, limit: Limit = 50
) -> DriftPage:
    """What differed when it was last compared, of all tenants, and of names that are none."""
    return await _page(services, None, unmended=unmended, after=after, limit=limit)


@router.get("/tenants/{instance_name}/drift", dependencies=[READS_HISTORY], responses=problems(404))
async def list_drift_of_tenant(
    instance_name: str, services: ServicesDep, *, unmended: Unmended = True, after: AfterId = 0, limit: Limit = 50
) -> DriftPage:
    """What differed when the tenant was last compared."""
    return await _page(services, instance_name, unmended=unmended, after=after, limit=limit)


@router.post(
    "/tenants/{instance_name}/import",
    status_code=HTTPStatus.ACCEPTED,
    dependencies=[WRITES],
    responses=problems(409),
)
async def import_tenant(
    instance_name: str, services: ServicesDep, response: Response, cause: CauseDep, wanted: ImportRequest | None = None
) -> TenantView:
    """Read a tenant that exists in ejabberd, made by another system, into the registry."""
    wanted = wanted or ImportRequest()
    spec = TenantSpec(wanted.changes(), secret_key=wanted.secret_key)
    return await made_view(services, response, await imports.start(services, instance_name, cause, spec))


async def _page(services: Services, instance_name: str | None, *, unmended: bool, after: int, limit: int) -> DriftPage:
    found = await drift_records.find(services.database, instance_name, unmended=unmended, after=after, limit=limit + 1)
    return DriftPage.of(found, limit, DriftView.model_validate)

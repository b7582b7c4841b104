"""The audit log: who did what to which tenant, when and why."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from orchestrator.api.http.auth import READS, HistorySince, ServicesDep
from orchestrator.api.http.pages import BeforeId, Limit, Page, rows_named
from orchestrator.api.http.views import View, problems
from tenants.lifecycle import audit
from tenants.process.services import Services
from tenants.store.models import TenantState


class AuditView(View):
    """Something that was done."""

    id: int
    at: datetime
    actor: str
    action: str
    instance_name: str | None
    operation_id: str | None
    old_state: TenantState | None
    new_state: TenantState | None
    reason: str | None


class AuditPage(Page[AuditView, int], alias_generator=rows_named("entries")):
    """Some entries, newest first."""

    next: int | None = Field(description="`before` of the next page; null on the last one.")


router = APIRouter(prefix="/v1", tags=["audit"])


@router.get("/audit", dependencies=[READS], responses=problems())
async def list_entries(
    services: ServicesDep,
    instance_name: Annotated[str | None, Query(max_length=63)] = None,
    before: BeforeId = None,
    limit: Limit = 50,
) -> AuditPage:
    """What was done to one tenant, or to all; also to tenants that are gone."""
    return await _page(services, instance_name, before, limit)


@router.get("/tenants/{instance_name}/audit", responses=problems(404))
async def list_entries_of_tenant(
    instance_name: str, services: ServicesDep, since: HistorySince, before: BeforeId = None, limit: Limit = 50
) -> AuditPage:
    """What was done to the tenant; it can be read when the tenant is gone, too."""
    return await _page(services, instance_name, before, limit, since)


async def _page(
    services: Services, instance_name: str | None, before: int | None, limit: int, since: float = 0
) -> AuditPage:
    found = await audit.entries(services.database, instance_name, before=before, since=since, limit=limit + 1)
    return AuditPage.of(found, limit, AuditView.model_validate)

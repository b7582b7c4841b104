"""What needs attention: the list that `orchestrator doctor` and the console show."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from orchestrator.api.http.auth import READS, READS_TENANT, ServicesDep
from orchestrator.api.http.views import View, problems
from tenants.status import attention
from tenants.status.attention import Attention
from tenants.status.attention_items import SHOWN, Kind


class ItemView(View):
    """One thing that needs attention."""

    kind: Kind
    instance_name: str | None = Field(description="The tenant's; null: it concerns the system.")
    cause: str = Field(description="One sentence for people.")
    since: datetime | None = Field(description="Null when nobody knows.")
    action: str = Field(description="What mends it; a command stands between backticks.")
    is_problem: bool = Field(description="Something is broken or refused now; false: it is only to be looked at.")
    subject: str | None = Field(description="What it is about: the id of an operation, the name of a setting or part.")


class AttentionView(BaseModel):
    """What needs attention, problems first."""

    items: list[ItemView] = Field(description=f"The first {SHOWN} of each question.")
    counts: dict[Kind, int] = Field(description="How many there are of each kind.")

    @classmethod
    def of(cls, found: Attention) -> "AttentionView":
        """The list as the panel sees it."""
        return cls(items=[ItemView.model_validate(item) for item in found.items], counts=found.counts)


router = APIRouter(prefix="/v1", tags=["health"])


@router.get("/attention", dependencies=[READS], responses=problems())
async def list_attention(services: ServicesDep) -> AttentionView:
    """What needs attention in the whole system, with the action that mends it."""
    return AttentionView.of(await attention.look_at_all(services))


@router.get("/tenants/{instance_name}/attention", dependencies=[READS_TENANT], responses=problems(404))
async def list_attention_of_tenant(instance_name: str, services: ServicesDep) -> AttentionView:
    """What needs attention of the tenant, with the action that mends it."""
    return AttentionView.of(await attention.look(services, instance_name))

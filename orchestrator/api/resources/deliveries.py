"""What became of messages, for tenant and panel: deliveries, the circuit breaker, and what came back.

What people wrote is shown nowhere: nobody needs it to see that an LHC is down, or to send it again.
"""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from orchestrator.api.http.auth import ACTS_FOR_TENANT, READS_TENANT, CauseDep, ServicesDep
from orchestrator.api.http.idempotency import IdempotentRoute
from orchestrator.api.http.pages import AfterId, Limit, Page, rows_named
from orchestrator.api.http.views import View, problems
from tenants.conversations import bounces
from tenants.delivery import circuits, history
from tenants.delivery.circuits import CircuitState
from tenants.store.models import MAX_ID, MessageState

MessageId = Annotated[int, Path(ge=1, le=MAX_ID)]


class AttemptView(View):
    """One try to deliver a message."""

    at: datetime = Field(description="When its outcome was known.")
    seconds: float
    http_status: int | None = Field(description="Null when no status could be read.")
    error: str | None
    warning: str | None = Field(description="What is strange about an answer that counts as received.")


class DeliveryView(View):
    """A message of an operator, or another event of a conversation, on its way to the tenant."""

    id: int
    event: str = Field(description="Its kind, as in `docs/webhooks.md`.")
    sender: str
    receiver: str
    state: MessageState
    attempts: int = Field(description="Tries since it was stored, or since its last replay.")
    last_error: str | None
    created_at: datetime
    finished_at: datetime | None


class DeliveryDetail(DeliveryView):
    """A message with all its attempts, those before a replay included."""

    history: list[AttemptView]


class DeliveryPage(Page[DeliveryView, int], alias_generator=rows_named("deliveries")):
    """Some messages, oldest first."""


class Replayed(BaseModel):
    """How many messages are tried again."""

    replayed: int


class CircuitView(View):
    """The circuit breaker: while it is open, nothing is sent to the tenant's LHC."""

    state: CircuitState
    failures: int = Field(description="Callbacks that failed one after another.")
    opened_at: datetime | None
    next_probe_at: datetime | None = Field(description="When one callback may go, to see whether LHC is back.")


class ReturnedMessageView(View):
    """A visitor's message that ejabberd gave back: it did not reach the operator."""

    id: int
    message_id: str = Field(description="The id it bore on its way to the operator.")
    visitor: str
    operator: str
    condition: str = Field(description="The error's condition (RFC 6120, 8.3.3).")
    reason: str | None
    created_at: datetime
    replayed_at: datetime | None = Field(description="When it was sent again.")


class ReturnedMessagePage(Page[ReturnedMessageView, int], alias_generator=rows_named("returned_messages")):
    """Some messages, oldest first."""


router = APIRouter(
    prefix="/v1/tenants/{instance_name}",
    tags=["deliveries"],
    route_class=IdempotentRoute,
    responses=problems(404, 409, 429),
)


@router.get("/deliveries", dependencies=[READS_TENANT])
async def list_deliveries(
    instance_name: str,
    services: ServicesDep,
    state: MessageState | None = None,
    after: AfterId = 0,
    limit: Limit = 50,
) -> DeliveryPage:
    """The messages of the tenant's operators, oldest first; delivered ones of a day, dead ones of a month."""
    found = await history.messages(services.database, instance_name, state=state, after=after, limit=limit + 1)
    return DeliveryPage.of(found, limit, DeliveryView.model_validate)


@router.get("/deliveries/{message_id:int}", dependencies=[READS_TENANT])
async def get_delivery(instance_name: str, message_id: MessageId, services: ServicesDep) -> DeliveryDetail:
    """A message, with each attempt to deliver it."""
    message, attempts = await history.message(services.database, instance_name, message_id)
    return DeliveryDetail(
        **DeliveryView.model_validate(message).model_dump(),
        history=[AttemptView.model_validate(attempt) for attempt in attempts],
    )


@router.post("/deliveries/replay", status_code=HTTPStatus.ACCEPTED, dependencies=[ACTS_FOR_TENANT])
async def replay_all(instance_name: str, services: ServicesDep, cause: CauseDep) -> Replayed:
    """Try all dead messages of the tenant again, older ones first, and close its circuit."""
    return Replayed(replayed=await history.replay_all(services, instance_name, cause))


@router.post("/deliveries/{message_id:int}/replay", status_code=HTTPStatus.ACCEPTED, dependencies=[ACTS_FOR_TENANT])
async def replay(instance_name: str, message_id: MessageId, services: ServicesDep, cause: CauseDep) -> DeliveryView:
    """Try a dead message again, and close the tenant's circuit. 409 when it is not dead."""
    return DeliveryView.model_validate(await history.replay(services, instance_name, message_id, cause))


@router.get("/circuit", dependencies=[READS_TENANT])
async def get_circuit(instance_name: str, services: ServicesDep) -> CircuitView:
    """The tenant's circuit breaker as it is now."""
    return CircuitView.model_validate(await circuits.view(services, instance_name))


@router.get("/returned-messages", dependencies=[READS_TENANT])
async def list_returned(
    instance_name: str, services: ServicesDep, after: AfterId = 0, limit: Limit = 50
) -> ReturnedMessagePage:
    """Messages of the tenant's visitors that came back within the last month, oldest first."""
    found = await bounces.find(services.database, instance_name, after=after, limit=limit + 1)
    return ReturnedMessagePage.of(found, limit, ReturnedMessageView.model_validate)


@router.post("/returned-messages/replay", status_code=HTTPStatus.ACCEPTED, dependencies=[ACTS_FOR_TENANT])
async def replay_all_returned(instance_name: str, services: ServicesDep, cause: CauseDep) -> Replayed:
    """Send all messages that came back, and were not sent again since, to their operators; older ones first."""
    return Replayed(replayed=await bounces.replay_all(services, instance_name, cause))


@router.post(
    "/returned-messages/{message_id:int}/replay", status_code=HTTPStatus.ACCEPTED, dependencies=[ACTS_FOR_TENANT]
)
async def replay_returned(
    instance_name: str, message_id: MessageId, services: ServicesDep, cause: CauseDep
) -> ReturnedMessageView:
    """Send a message that came back to its operator again. 409 when that was done already."""
    return ReturnedMessageView.model_validate(await bounces.replay(services, instance_name, message_id, cause))

"""Operations: watched, retried, paused and cancelled; and as a stream of events."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from orchestrator.api.auth import READS, WRITES, CauseDep, ServicesDep
from orchestrator.api.idempotency import IdempotentRoute
from orchestrator.api.views import OperationView, problems
from tenants import operations
from tenants.models import UNFINISHED, OperationKind, OperationState
from tenants.workflows import WORKFLOWS

_MAX_STREAMS = 200
"""Of one process; each asks the database twice a second."""
_POLL_SECONDS = 0.5
_RECONNECT_MS = 2000


class OperationPage(BaseModel):
    """Some operations, newest first."""

    operations: list[OperationView]
    next: str | None = Field(description="`after` of the next page; null on the last one.")


class _Streams:
    """How many there are: a bound for the whole process."""

    def __init__(self) -> None:
        self.open = 0


router = APIRouter(prefix="/v1/operations", tags=["operations"], route_class=IdempotentRoute)
_streams = _Streams()


@router.get("", dependencies=[READS], responses=problems(404))
async def list_operations(
    services: ServicesDep,
    *,
    instance_name: Annotated[str | None, Query(max_length=63)] = None,
    kind: OperationKind | None = None,
    state: OperationState | None = None,
    bulk_id: Annotated[str | None, Query(max_length=32)] = None,
    after: Annotated[str | None, Query(max_length=32, description="The last id of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> OperationPage:
    """The operations, newest first; those of destroyed tenants as well."""
    found = await operations.find(
        services,
        instance_name=instance_name,
        kind=kind,
        state=state,
        bulk_id=bulk_id,
        after=after,
        limit=limit + 1,
    )
    page = found[:limit]
    return OperationPage(
        operations=[OperationView.of(operation) for operation in page],
        next=page[-1].id if len(found) > limit else None,
    )


@router.get("/{operation_id}", dependencies=[READS], responses=problems(404))
async def get_operation(operation_id: str, services: ServicesDep) -> OperationView:
    """An operation, with its steps and how far it is."""
    return OperationView.of(await operations.get(services, operation_id))


async def _admit(services: ServicesDep, operation_id: str) -> AsyncIterator[None]:
    """Before the stream begins: there is such an operation, and room for one more."""
    await operations.get(services, operation_id)
    if _streams.open >= _MAX_STREAMS:
        raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, "too many streams are open", {"Retry-After": "10"})
    _streams.open += 1
    try:
        yield
    finally:
        _streams.open -= 1


@router.get(
    "/{operation_id}/events",
    dependencies=[READS, Depends(_admit)],
    response_class=EventSourceResponse,
    responses=problems(404, 429),
)
async def stream_operation(
    operation_id: str, services: ServicesDep, request: Request
) -> AsyncIterator[ServerSentEvent]:
    """The operation as server-sent events: as it is, then after each change, until it has ended.

    An event's id says how far the operation was: who comes back with it as `Last-Event-ID` is told what is new.
    """
    seen = request.headers.get("last-event-id")
    while not await request.is_disconnected():
        view = OperationView.of(await operations.get(services, operation_id))
        mark = _mark(view)
        if mark != seen:
            seen = mark
            yield ServerSentEvent(data=view, event="operation", id=mark, retry=_RECONNECT_MS)
        if view.state not in UNFINISHED:
            return
        await asyncio.sleep(_POLL_SECONDS)


def _mark(view: OperationView) -> str:
    """Different whenever anything that is shown has changed."""
    attempts = sum(step.attempts for step in view.steps)
    done = sum(step.done for step in view.steps)
    finished = sum(step.finished_at is not None for step in view.steps)
    return f"{view.state}-{view.wanted or ''}-{finished}-{attempts}-{done}"


@router.post(
    "/{operation_id}/retry", status_code=HTTPStatus.ACCEPTED, dependencies=[WRITES], responses=problems(404, 409)
)
async def retry(operation_id: str, services: ServicesDep, cause: CauseDep) -> OperationView:
    """Go on with one that failed or was cancelled, from the step that failed."""
    return OperationView.of(await operations.retry(services, WORKFLOWS, operation_id, cause))


@router.post(
    "/{operation_id}/cancel", status_code=HTTPStatus.ACCEPTED, dependencies=[WRITES], responses=problems(404, 409)
)
async def cancel(operation_id: str, services: ServicesDep, cause: CauseDep) -> OperationView:
    """End it after the step, or the chunk of one, that is under way. The end of a tenant cannot be cancelled."""
    return OperationView.of(await operations.cancel(services, operation_id, cause))


@router.post(
    "/{operation_id}/pause", status_code=HTTPStatus.ACCEPTED, dependencies=[WRITES], responses=problems(404, 409)
)
async def pause(operation_id: str, services: ServicesDep, cause: CauseDep) -> OperationView:
    """Let it rest after the step, or the chunk of one, that is under way."""
    return OperationView.of(await operations.pause(services, operation_id, cause))


@router.post(
    "/{operation_id}/resume", status_code=HTTPStatus.ACCEPTED, dependencies=[WRITES], responses=problems(404, 409)
)
async def resume(operation_id: str, services: ServicesDep, cause: CauseDep) -> OperationView:
    """Go on with one that rests."""
    return OperationView.of(await operations.go_on(services, operation_id, cause))

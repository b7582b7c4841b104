"""Operations: watched, retried, paused and cancelled; and as a stream of events."""

from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Header, HTTPException, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from orchestrator.api.http.auth import READS, WRITES, CallerDep, CauseDep, HistorySince, ServicesDep
from orchestrator.api.http.idempotency import IdempotentRoute
from orchestrator.api.http.pages import AfterKey, Limit, Page, rows_named
from orchestrator.api.http.views import OperationView, problems
from orchestrator.api.resources.watching import MOST_OF_ONE, Watched, Watching, mark
from tenants.lifecycle import engine, operations
from tenants.store.models import OperationKind, OperationState
from tenants.workflows.workflows import WORKFLOWS

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[OperationView]])

_watching = Watching()
_RECONNECT_MS = 2000


class OperationPage(Page[OperationView, str], alias_generator=rows_named("operations")):
    """Some operations, newest first."""


router = APIRouter(prefix="/v1", tags=["operations"], route_class=IdempotentRoute)

Kind = Annotated[OperationKind | None, Query(description="Only of this kind.")]
State = Annotated[OperationState | None, Query(description="Only in this state.")]


@router.get("/operations", dependencies=[READS], responses=problems(404))
async def list_operations(
    services: ServicesDep,
    *,
    instance_name: Annotated[str | None, Query(max_length=63)] = None,
    kind: Kind = None,
    state: State = None,
    bulk_id: Annotated[str | None, Query(max_length=32)] = None,
    after: AfterKey = None,
    limit: Limit = 50,
) -> OperationPage:
    """The operations, newest first; those of destroyed tenants as well."""
    found = await operations.find(
        services.database,
        instance_name=instance_name,
        kind=kind,
        state=state,
        bulk_id=bulk_id,
        after=after,
        limit=limit + 1,
    )
    return OperationPage.of(found, limit, OperationView.of)


@router.get("/tenants/{instance_name}/operations", responses=problems(404))
async def list_operations_of_tenant(
    instance_name: str,
    services: ServicesDep,
    since: HistorySince,
    *,
    kind: Kind = None,
    state: State = None,
    after: AfterKey = None,
    limit: Limit = 50,
) -> OperationPage:
    """The tenant's operations, newest first; they can be read when the tenant is gone, too."""
    found = await operations.find(
        services.database,
        instance_name=instance_name,
        since=since,
        kind=kind,
        state=state,
        after=after,
        limit=limit + 1,
    )
    return OperationPage.of(found, limit, OperationView.of)


@router.get("/operations/{operation_id}", dependencies=[READS], responses=problems(404))
async def get_operation(operation_id: str, services: ServicesDep) -> OperationView:
    """An operation, with its steps and how far it is."""
    return OperationView.of(await operations.get(services.database, operation_id))


async def _watch(services: ServicesDep, caller: CallerDep, operation_id: str) -> AsyncIterator[Watched]:
    """Before the stream begins: there is such an operation, and room for one more."""
    await operations.get(services.database, operation_id)
    with _watching.admit(operation_id, caller.actor) as watched:
        if watched is None:
            text = f"too many streams are open; of one token {MOST_OF_ONE} may be at each API process"
            raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, text, {"Retry-After": "10"})
        yield watched


@router.get(
    "/operations/{operation_id}/events",
    dependencies=[READS],
    response_class=EventSourceResponse,
    responses=problems(404, 429),
)
async def stream_operation(
    services: ServicesDep,
    watched: Annotated[Watched, Depends(_watch)],
    last_event_id: Annotated[str | None, Header(description="Of the last event that came before.")] = None,
) -> AsyncIterator[ServerSentEvent]:
    """The operation as server-sent events: as it is, then after each change, until it has ended.

    Who comes back with the last event's id as `Last-Event-ID` is told only what is new since. A
    stream lasts 15 minutes at most, so that a token that was revoked is asked for again.
    """
    async for view in watched.changes(services, since=last_event_id):
        yield ServerSentEvent(data=view, event="operation", id=mark(view), retry=_RECONNECT_MS)


def _change(action: str) -> Callable[[Handler], Handler]:
    """The route of what changes the course of an operation."""
    return router.post(
        f"/operations/{{operation_id}}/{action}",
        status_code=HTTPStatus.ACCEPTED,
        dependencies=[WRITES],
        responses=problems(404, 409),
    )


@_change("retry")
async def retry(operation_id: str, services: ServicesDep, cause: CauseDep) -> OperationView:
    """Go on with one that failed or was cancelled, from the step that failed."""
    return OperationView.of(await engine.retry(services, WORKFLOWS, operation_id, cause))


@_change("cancel")
async def cancel(operation_id: str, services: ServicesDep, cause: CauseDep) -> OperationView:
    """End it after the step, or the chunk of one, that is under way. The end of a tenant cannot be cancelled."""
    return OperationView.of(await operations.cancel(services, operation_id, cause))


@_change("pause")
async def pause(operation_id: str, services: ServicesDep, cause: CauseDep) -> OperationView:
    """Let it rest after the step, or the chunk of one, that is under way."""
    return OperationView.of(await operations.pause(services, operation_id, cause))


@_change("resume")
async def resume(operation_id: str, services: ServicesDep, cause: CauseDep) -> OperationView:
    """Go on with one that rests."""
    return OperationView.of(await operations.go_on(services, operation_id, cause))

"""Who watches an operation is told of each change; the database is asked once for all of them."""

import asyncio
from contextlib import ExitStack

from sqlalchemy import event

from orchestrator.api.http.views import OperationView
from orchestrator.api.resources.watching import Watched, Watching, mark
from tenants.lifecycle import operations, registry
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.registry import TenantSpec
from tenants.store.models import Operation, OperationState, OperationStep, StepState
from tests.world.registry import World


async def begun(world: World) -> Operation:
    """An operation that nobody carries out."""
    operation = (await registry.put(world.services, "acme", TenantSpec(), Cause("panel"))).operation
    assert operation is not None
    return operation


async def change(world: World, operation: Operation, **values: object) -> None:
    async with world.services.database.write() as session:
        row = await session.get_one(Operation, operation.id)
        for name, value in values.items():
            setattr(row, name, value)


async def seen_by(watched: Watched, world: World, told: asyncio.Queue[OperationView]) -> list[OperationView]:
    views = []
    async for view in watched.changes(world.services, since=None):
        views.append(view)
        told.put_nowait(view)
    return views


async def test_all_who_watch_are_told_of_each_change_until_the_end(world: World) -> None:
    operation = await begun(world)
    watching = Watching()
    told: asyncio.Queue[OperationView] = asyncio.Queue()
    asked = 0

    def count(_connection: object, _cursor: object, statement: str, *_arguments: object) -> None:
        nonlocal asked
        asked += "FROM operations" in statement

    with ExitStack() as stack:
        watched = [stack.enter_context(watching.admit(operation.id, "panel")) for _ in range(20)]
        assert watched[0] is not None
        assert {one is watched[0] for one in watched} == {True}
        engine = world.services.database.engine.sync_engine
        event.listen(engine, "before_cursor_execute", count)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            watchers = [tasks.create_task(seen_by(one, world, told)) for one in watched if one is not None]
            for _ in watchers:
                assert (await told.get()).state is OperationState.PENDING
            one_look = asked
            step = OperationStep(position=0, name="rosters", state=StepState.RUNNING, attempts=1, done=1, total=4)
            await change(world, operation, state=OperationState.RUNNING, steps=[step])
            for _ in watchers:
                assert (await told.get()).progress == 0.25
            await change(world, operation, state=OperationState.SUCCEEDED)
        event.remove(engine, "before_cursor_execute", count)
    assert one_look < len(watchers), "each was told, and most without asking"
    for watcher in watchers:
        assert [view.state for view in watcher.result()] == ["pending", "running", "succeeded"]


async def test_who_comes_back_is_told_only_what_is_new(world: World) -> None:
    operation = await begun(world)
    await change(world, operation, state=OperationState.CANCELLED)
    view = OperationView.of(await operations.get(world.services.database, operation.id))
    with Watching().admit(operation.id, "panel") as watched:
        assert watched is not None
        assert [new async for new in watched.changes(world.services, since=mark(view))] == []
        assert [new async for new in watched.changes(world.services, since="something else")] == [view]


def test_there_is_a_bound_and_who_goes_makes_room() -> None:
    watching = Watching()
    with ExitStack() as stack:
        one = [stack.enter_context(watching.admit(str(number % 7), "panel")) for number in range(51)]
        assert [watched is None for watched in one] == [False] * 50 + [True]
        others = [stack.enter_context(watching.admit("1", f"token {number % 10}")) for number in range(151)]
        assert [watched is None for watched in others] == [False] * 150 + [True]
    with watching.admit("1", "panel") as watched:
        assert watched is not None

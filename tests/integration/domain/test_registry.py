"""The registry on both of its databases: SQLite as in development, PostgreSQL as in production."""

import asyncio

import pytest

from bench.testbed.system import migrate
from tenants.core.errors import ConflictError, InvalidInputError
from tenants.core.naming import STANDALONE_INSTANCE
from tenants.lifecycle import audit, engine, incarnations, operations, registry, requests, states
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.engine import Next, Run, Step, Workflow
from tenants.lifecycle.registry import TenantSpec
from tenants.store import claims
from tenants.store.models import Operation, TenantState
from tests.world.registry import World

PANEL = Cause("panel")


def test_migrating_again_changes_nothing(database_url: str) -> None:
    migrate(database_url)


async def test_no_hosted_tenant_bears_the_name_of_the_other_modes_one(world: World) -> None:
    for make in (registry.put, registry.create):
        with pytest.raises(InvalidInputError, match="the one tenant of a standalone system") as refused:
            await make(world.services, STANDALONE_INSTANCE, TenantSpec(), PANEL)
        assert refused.value.field == "instance_name"
    # one that is there already
    async with world.services.database.write() as session:
        former, _ = await incarnations.lock(world.services, session, STANDALONE_INSTANCE)
        await incarnations.begin(world.services, session, former, PANEL)
    await registry.put(world.services, STANDALONE_INSTANCE, TenantSpec({"idle_hours": 3}), PANEL)
    assert (await registry.get(world.services, STANDALONE_INSTANCE)).idle_hours == 3
    await requests.destroy(world.services, STANDALONE_INSTANCE, PANEL)


async def test_twenty_creations_at_once_are_one_tenant_and_one_operation(world: World) -> None:
    created = await asyncio.gather(
        *(registry.put(world.services, "acme", TenantSpec(), Cause(f"panel {n}")) for n in range(20))
    )
    assert len({result.operation.id for result in created if result.operation}) == 1
    assert len([result for result in created if result.secret_key]) == 1
    assert {task for task, _ in world.woken} == {"operations.advance"}


async def test_a_claim_has_one_holder_and_ends_by_itself(world: World) -> None:
    created = await registry.put(world.services, "acme", TenantSpec(), PANEL)
    assert created.operation is not None
    key, services = created.operation.id, world.services

    async def take() -> str | None:
        async with services.database.write() as session:
            return await claims.claim(session, Operation, key, world.clock())

    tokens = [token for token in await asyncio.gather(*(take() for _ in range(10))) if token]
    assert len(tokens) == 1
    assert await take() is None
    world.clock.now += claims.CLAIM_TERM
    successor = await take()
    assert successor not in {None, tokens[0]}
    async with services.database.write() as session:
        assert not await claims.renew(session, Operation, key, tokens[0], world.clock())
        assert not await claims.release(session, Operation, key, tokens[0], world.clock())
        assert await claims.release(session, Operation, key, str(successor), world.clock())


async def test_a_workflow_goes_on_where_it_failed_and_ends_after_its_last_attempt(world: World) -> None:
    created = await registry.put(world.services, "acme", TenantSpec(), PANEL)
    assert created.operation is not None
    ran: list[str] = []
    failures = iter([True, False])

    async def first(run: Run) -> None:
        await run.enter(TenantState.PROVISIONING)
        await run.report(3, 7)
        ran.append("first")

    async def second(_run: Run) -> None:
        ran.append("second")
        if next(failures, True):
            raise RuntimeError("ejabberd is away")

    workflow = Workflow(
        (Step("first", first), Step("second", second), Step("third", second)),
        during=TenantState.PROVISIONING,
        failed=TenantState.FAILED,
    )

    async def advance() -> Next:
        assert created.operation is not None
        return await engine.advance(world.services, {created.operation.kind: workflow}, created.operation.id)

    assert await advance() is Next.STEP
    assert await advance() is Next.LATER
    assert await advance() is Next.NOTHING, "it is not due yet"
    world.clock.now += 60
    assert await advance() is Next.STEP
    for _ in range(engine.MAX_ATTEMPTS - 1):
        assert await advance() is Next.LATER
        world.clock.now += 60
    assert await advance() is Next.NOTHING
    assert ran == ["first", "second", "second", *["second"] * engine.MAX_ATTEMPTS]
    assert (await registry.get(world.services, "acme")).state is TenantState.FAILED
    operation = await operations.get(world.services.database, created.operation.id)
    assert (operation.state, operation.error) == ("failed", "third: RuntimeError: ejabberd is away")
    assert [(step.state, step.attempts, step.done, step.total) for step in operation.steps] == [
        ("succeeded", 1, 7, 7),
        ("succeeded", 2, 1, 1),
        ("failed", engine.MAX_ATTEMPTS, 0, 1),
    ]


async def test_transitions_are_compare_and_swap_and_each_is_in_the_audit_log(world: World) -> None:
    await registry.put(world.services, "acme", TenantSpec(), Cause("panel", "a new customer"))

    async def enter(state: TenantState) -> None:
        async with world.services.database.write() as session:
            await states.transition(session, world.clock(), "acme", state, Cause("worker", "because", "op"))

    await enter(TenantState.PROVISIONING)
    await enter(TenantState.PROVISIONING)
    with pytest.raises(ConflictError, match="is provisioning and cannot become suspended"):
        await enter(TenantState.SUSPENDED)
    await enter(TenantState.DESTROYING)
    with pytest.raises(ConflictError, match="is being destroyed"):
        await registry.put(world.services, "acme", TenantSpec(), PANEL)
    log = [
        (entry.actor, entry.action, entry.old_state, entry.new_state, entry.reason)
        for entry in reversed(await audit.entries(world.services.database, "acme"))
    ]
    assert log == [
        ("panel", "state", "destroyed", "pending", "a new customer"),
        ("panel", "provision requested", None, None, "a new customer"),
        ("worker", "state", "pending", "provisioning", "because"),
        ("worker", "state", "provisioning", "destroying", "because"),
    ]


async def test_refusals_of_one_kind_are_recorded_once_in_a_minute(world: World) -> None:
    await world.open_tenant("acme")

    async def refuse(what: str) -> None:
        await audit.record_refusal(
            world.services, "acme", actor="rpc acme", action="rpc.refused", what=what, reason="a foreign name"
        )

    async def recorded() -> list[str | None]:
        entries = await audit.entries(world.services.database, "acme")
        return [entry.reason for entry in entries if entry.action == "rpc.refused"]

    await asyncio.gather(*(refuse(what) for what in ["register"] * 20 + ["register_also"] * 20))
    assert sorted(map(str, await recorded())) == ["register: a foreign name", "register_also: a foreign name"]
    world.clock.now += 59
    await refuse("register")
    assert len(await recorded()) == 2
    world.clock.now += 1
    await refuse("register")
    assert len(await recorded()) == 3

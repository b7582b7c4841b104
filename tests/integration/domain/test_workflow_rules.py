"""What may be asked of a tenant, when, and what comes of it: as a table, in a crowd, and at random."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from tenants.core.errors import ConflictError, NotFoundError
from tenants.lifecycle import engine, incarnations, operations, registry, requests
from tenants.lifecycle.engine import Next, Run
from tenants.lifecycle.registry import TenantSpec
from tenants.process.services import Services
from tenants.store import claims
from tenants.store.models import UNFINISHED, Operation, OperationKind, OperationState, StepState, Tenant, TenantState
from tests.world.registry import World, make_world
from tests.world.rehearsal import (
    ADDRESS,
    PANEL,
    REQUESTS,
    ROTATION,
    KilledError,
    Rehearsal,
    ask,
    finish,
    rotate,
    state_of,
)

# new: an operation of its own; NEW: and the tenant is closed at once; same: the one under way; done: nothing to do
TABLE = """
situation                         put   suspend  resume  destroy  rotate  address  reconcile
-                                 new   404      404     404      404     404      404
destroyed                         new   404      404     404      404     404      404
pending +provision                same  new      409     new      new     new      new
provisioning +provision           same  new      409     new      new     new      new
provisioning +provision*          same  new      409     NEW      new     new      new
provisioning +provision +suspend  same  same     409     new      new     new      new
provisioning +import              same  new      409     new      new     new      new
failed                            new   409      409     NEW      new     new      new
failed +rotate_keys               new   409      409     NEW      same    new      new
failed +rotate_keys +provision    same  new      409     new      same    new      new
active                            done  new      done    NEW      new     new      new
active +rotate_keys               done  new      done    NEW      same    new      new
active +change_address            done  new      done    NEW      new     same     new
active +reconcile                 done  new      done    NEW      new     new      same
active +reconcile*                done  new      done    NEW      new     new      same
active +suspend                   done  same     409     new      new     new      new
active +rotate_keys +suspend      done  same     409     new      same    new      new
active +resume                    done  409      same    new      new     new      new
active +resume +destroy           409   409      409     same     409     409      409
suspending                        done  new      new     NEW      new     new      new
suspending +suspend               done  same     409     new      new     new      new
suspending +suspend*              done  same     409     NEW      new     new      new
suspending +suspend +destroy      409   409      409     same     409     409      409
suspended                         done  done     new     NEW      new     new      new
suspended +suspend                done  same     409     new      new     new      new
suspended +rotate_keys            done  done     new     NEW      same    new      new
suspended +resume                 done  409      same    new      new     new      new
resuming                          done  new      new     NEW      new     new      new
resuming +resume                  done  409      same    new      new     new      new
destroying                        409   409      409     new      409     409      409
destroying +destroy               409   409      409     same     409     409      409
destroying +destroy*              409   409      409     same     409     409      409
destroying +rotate_keys +destroy  409   409      409     same     409     409      409
"""


def _table() -> dict[str, dict[str, str]]:
    """What comes of each request, by situation."""
    (_, *requests), *rows = ([word.strip() for word in line.split("  ") if word] for line in TABLE.strip().splitlines())
    return {situation: dict(zip(requests, outcomes, strict=True)) for situation, *outcomes in rows}


async def _arrange(world: World, name: str, situation: str) -> list[str]:
    """Put the tenant into the situation: its state, then +what is under way, the paused with an asterisk."""
    state, *under_way = situation.split()
    if state == "-":
        return []
    given = {OperationKind.ROTATE_KEYS: ROTATION, OperationKind.CHANGE_ADDRESS: ADDRESS}
    now = world.clock()
    async with world.services.database.write() as session:
        session.add(
            Tenant(
                xmpp_host="localhost",
                instance_name=name,
                state=TenantState(state),
                online_seconds=300,
                idle_hours=24,
                created_at=now,
                updated_at=now,
            )
        )
        for number, word in enumerate(under_way):
            kind, paused = OperationKind(word.strip("+*")), word.endswith("*")
            session.add(
                Operation(
                    id=f"{name}-{number}",
                    instance_name=name,
                    kind=kind,
                    state=OperationState.PAUSED if paused else OperationState.PENDING,
                    requested_by="panel",
                    input=given.get(kind, {}),
                    created_at=now - 10 + number,
                    due_at=None if paused else now,
                    steps=[],
                )
            )
    return [f"{name}-{number}" for number in range(len(under_way))]


@pytest.mark.parametrize("situation", _table())
async def test_each_request_in_each_situation(world: World, situation: str) -> None:
    for what, expected in _table()[situation].items():
        # of each request a tenant
        before = await _arrange(world, what, situation)
        rests = incarnations.NAME_RESTS if situation.startswith("destroyed") else 0.0
        assert await _outcome(world, what, before, rests) == expected.lower(), what
        if what == "destroy":
            closed = (await state_of(world.services, what)) is TenantState.DESTROYING
            assert closed == (expected == "NEW" or situation.startswith("destroying"))


async def _outcome(world: World, what: str, before: list[str], rests: float) -> str:
    """What comes of the request, as the table has it; that it changes nothing else is asserted.

    `rests`: seconds that the tenant's name rests before a workflow begins.
    """
    world.woken.clear()
    operation = outcome = None
    try:
        operation = await REQUESTS[what](world.services, what)
    except NotFoundError:
        outcome = "404"
    except ConflictError:
        outcome = "409"
    after = await _operations(world.services, what)
    if operation is None:
        assert (after, world.woken) == (before, [])
        return outcome or "done"
    assert [arguments["operation_id"] for _, arguments in world.woken] == [operation.id]
    if operation.id in before:
        assert after == before
        return "same"
    assert after == [*before, operation.id]
    assert (operation.state, operation.due_at) == (OperationState.PENDING, world.clock() + rests)
    return "new"


async def test_a_destroy_ends_every_situation(world: World) -> None:
    situations = dict(enumerate(situation for situation in _table() if situation not in {"-", "destroyed"}))
    services = world.services
    for number, situation in situations.items():
        await _arrange(world, f"t{number}", situation)
        operation = await ask(services, "destroy", f"t{number}")
        if operation.state is OperationState.PAUSED:
            await operations.go_on(services, operation.id, PANEL)
    await finish(world, Rehearsal())
    for number, situation in situations.items():
        assert await state_of(services, f"t{number}") is TenantState.DESTROYED, situation
    async with services.database.read() as session:
        for operation in await session.scalars(select(Operation)):
            ends = {OperationState.SUCCEEDED}
            if operation.kind is not OperationKind.DESTROY:
                ends |= {OperationState.FAILED, OperationState.CANCELLED}
            assert operation.state in ends


async def test_a_suspend_that_is_asked_for_during_provision_comes_after_it(world: World) -> None:
    await ask(world.services, "put")
    await requests.request(world.services, "acme", OperationKind.SUSPEND, PANEL)
    rehearsal = Rehearsal()
    await finish(world, rehearsal)
    assert await state_of(world.services) is TenantState.SUSPENDED
    assert [kind for kind, _ in rehearsal.ran] == [*[OperationKind.PROVISION] * 3, *[OperationKind.SUSPEND] * 3]


async def test_requests_of_one_moment_are_carried_out_in_their_order(world: World) -> None:
    """Also when the clock of the machine that took the later one is behind."""
    services = world.services
    await ask(services, "put")
    wanted = [OperationKind.PROVISION]
    for kind, request in ((OperationKind.ROTATE_KEYS, "rotate"), (OperationKind.SUSPEND, "suspend")):
        await ask(services, request)
        wanted.append(kind)
    world.clock.now -= 5
    await ask(services, "destroy")
    world.clock.now += 5
    rehearsal = Rehearsal()
    await finish(world, rehearsal)
    assert list(dict.fromkeys(kind for kind, _ in rehearsal.ran)) == [*wanted, OperationKind.DESTROY]
    assert await state_of(services) is TenantState.DESTROYED


async def test_the_same_name_begins_anew_at_once_after_its_end(world: World) -> None:
    services = world.services
    first = await registry.put(services, "acme", TenantSpec({"online_seconds": 60.0}), PANEL)
    await finish(world, Rehearsal())
    await requests.destroy(services, "acme", PANEL)
    with pytest.raises(ConflictError, match="is being destroyed"):
        await ask(services, "put")
    await finish(world, Rehearsal())
    second = await registry.put(services, "acme", TenantSpec(), PANEL)
    assert second.new
    assert second.secret_key not in {None, first.secret_key}
    assert second.tenant.online_seconds == services.settings.visitor_online_seconds
    await finish(world, Rehearsal())
    assert await state_of(services) is TenantState.ACTIVE


async def test_rotating_twice_at_once_is_one_rotation_or_a_conflict(world: World) -> None:
    services = world.services
    await ask(services, "put")
    await finish(world, Rehearsal())
    same = await asyncio.gather(*(rotate(services, "acme") for _ in range(10)))
    assert len({operation.id for operation in same}) == 1
    with pytest.raises(ConflictError, match="is under way with another input"):
        await rotate(services, "acme", "b" * 64)
    await finish(world, Rehearsal())
    assert (await rotate(services, "acme", "b" * 64)).id != same[0].id


async def test_a_bulk_request_tells_what_came_of_each(world: World) -> None:
    services = world.services
    for name in ("a", "b"):
        await registry.put(services, name, TenantSpec(), PANEL)
    await finish(world, Rehearsal())
    await requests.destroy(services, "b", PANEL)
    kind = OperationKind.SUSPEND
    outcomes = dict(await requests.request_many(services, ["a", "b", "nobody", "a"], kind, PANEL))
    assert isinstance(outcomes["a"], Operation)
    assert isinstance(outcomes["b"], ConflictError)
    assert isinstance(outcomes["nobody"], NotFoundError)
    await finish(world, Rehearsal())
    assert dict(await requests.request_many(services, ["a"], kind, PANEL)) == {"a": None}


def test_twenty_threads_create_one_tenant(database_url: str) -> None:
    """Threads with an event loop, connections and services of their own, as processes have."""
    name, threads = f"crowd-{threading.get_ident()}", 20
    gate = threading.Barrier(threads)

    async def create() -> tuple[str | None, str | None]:
        async with make_world(database_url) as world:
            gate.wait(30)
            created = await registry.put(world.services, name, TenantSpec(), PANEL)
        return created.operation.id if created.operation else None, created.secret_key

    with ThreadPoolExecutor(threads) as pool:
        results = [future.result() for future in [pool.submit(asyncio.run, create()) for _ in range(threads)]]
    assert len({operation for operation, _ in results}) == 1
    assert len([key for _, key in results if key]) == 1


async def test_twenty_requests_of_all_kinds_at_once_break_nothing(world: World) -> None:
    services = world.services
    await ask(services, "put")
    await finish(world, Rehearsal())
    results = await asyncio.gather(
        *(REQUESTS[name](services, "acme") for name in [*REQUESTS, *REQUESTS, *REQUESTS]), return_exceptions=True
    )
    assert {type(result) for result in results} <= {Operation, ConflictError, type(None)}
    await finish(world, Rehearsal())
    assert await state_of(services) is TenantState.DESTROYED


async def test_a_resume_that_failed_after_it_opened_the_tenant_is_retried_there(world: World) -> None:
    services = world.services
    await _arrange(world, "acme", "suspended")
    operation = await ask(services, "resume")

    async def fails(_run: Run) -> None:
        async with services.database.read() as session:
            steps = (await session.get_one(Operation, operation.id)).steps
        if [step.name for step in steps if step.state is StepState.RUNNING] == ["work"]:
            raise OSError("away")

    await finish(world, Rehearsal(fails))
    assert (await operations.get(services.database, operation.id)).state is OperationState.FAILED
    assert await state_of(services) is TenantState.ACTIVE
    rehearsal = Rehearsal()
    await engine.retry(services, rehearsal.workflows(), operation.id, PANEL)
    await finish(world, rehearsal)
    assert rehearsal.ran == [(OperationKind.RESUME, "work")]
    assert (await operations.get(services.database, operation.id)).state is OperationState.SUCCEEDED


async def test_what_contradicts_the_state_fails_at_once(world: World) -> None:
    """The provisioning that a suspend waited for has failed: no number of attempts helps."""
    services = world.services
    provision = await ask(services, "put")
    suspend = await ask(services, "suspend")
    await operations.cancel(services, provision.id, PANEL)
    workflows = Rehearsal().workflows()
    assert await engine.advance(services, workflows, provision.id) is Next.NOTHING
    assert await engine.advance(services, workflows, suspend.id) is Next.NOTHING
    failed = await operations.get(services.database, suspend.id)
    assert (failed.state, failed.steps[0].attempts) == (OperationState.FAILED, 1)
    assert await state_of(services) is TenantState.FAILED


async def test_pausing_does_not_use_up_attempts(world: World) -> None:
    services = world.services
    operation = await ask(services, "put")

    async def somebody_pauses(run: Run) -> None:
        await operations.pause(services, operation.id, PANEL)
        await run.report(0, 1)

    workflows = Rehearsal(somebody_pauses).workflows()
    for _ in range(engine.MAX_ATTEMPTS + 1):
        assert await engine.advance(services, workflows, operation.id) is Next.NOTHING
        assert (await operations.get(services.database, operation.id)).state is OperationState.PAUSED
        await operations.go_on(services, operation.id, PANEL)

    async def fails(_run: Run) -> None:
        raise OSError("away")

    assert await engine.advance(services, Rehearsal(fails).workflows(), operation.id) is Next.LATER


async def test_a_step_that_kills_its_worker_each_time_is_given_up(world: World) -> None:
    services = world.services
    operation = await ask(services, "put")

    async def dies(_run: Run) -> None:
        raise KilledError

    workflows, deaths = Rehearsal(dies).workflows(), 0
    while (await operations.get(services.database, operation.id)).state in UNFINISHED:
        try:
            await engine.advance(services, workflows, operation.id)
        except KilledError:
            deaths += 1
        assert deaths <= 100
        world.clock.now += claims.CLAIM_TERM
    assert deaths == engine.MAX_DEATHS
    assert await state_of(services) is TenantState.FAILED


async def test_who_lost_the_claim_changes_the_tenant_no_more(world: World) -> None:
    """A worker stands still in `begin` of a suspend until the tenant was resumed by others."""
    services = world.services
    await _arrange(world, "acme", "active")
    operation = await ask(services, "suspend")
    others = Rehearsal()

    async def stands_still(_run: Run) -> None:
        world.clock.now += claims.CLAIM_TERM
        await finish(world, others)
        await ask(services, "resume")
        await finish(world, others)

    late = Rehearsal(stands_still)
    assert await engine.advance(services, late.workflows(), operation.id) is Next.NOTHING
    assert late.ran == []
    assert await state_of(services) is TenantState.ACTIVE


async def _operations(services: Services, name: str) -> list[str]:
    async with services.database.read() as session:
        mine = select(Operation.id).where(Operation.instance_name == name)
        return list(await session.scalars(mine.order_by(Operation.created_at)))

"""Workflows that are paused, cancelled, killed, and left without a broker; and what a destroyed tenant leaves."""

import asyncio
import dataclasses
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import redis.asyncio as redis

from bench.testbed.panel import Panel
from bench.testbed.system import System, migrate
from bench.testbed.waiting import until_async
from orchestrator.launcher.up import control
from tenants.accounts import accounts
from tenants.core.errors import ConflictError
from tenants.core.naming import AccountKind, AccountName
from tenants.lifecycle import engine, operations, registry, requests
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.engine import Next
from tenants.lifecycle.registry import TenantSpec
from tenants.process.services import Services, open_services
from tenants.store.models import Circuit, Drift, Operation, OperationState, StepState, TenantState
from tenants.store.models import Tenant as TenantRow
from tenants.workflows.workflows import WORKFLOWS
from tests.world import mortal
from tests.world.rehearsal import RECORDS, rows_of, state_of
from tests.world.tenant import Tenant

PANEL = Cause("panel")
PASSWORD = "0123456789abcdef0123"


@pytest.fixture(scope="module")
async def services(system: System, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """On the system's ejabberd, with a registry of our own: nobody but the test advances anything."""
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('faults')}/registry.db"
    migrate(url)
    async with open_services(mortal.settings_of(system.state, url), mortal.no_wake) as services:
        yield services


def interrupted(services: Services, command: str, by: Callable[[], Awaitable[object]]) -> Services:
    """The services, with something that happens after each call of that command of ejabberd."""

    async def called(name: str) -> None:
        if name == command:
            await by()

    return mortal.watched(services, called)


async def advance(services: Services, operation: Operation) -> Operation:
    """As far as it goes now."""
    await mortal.finish(services, operation.id)
    return await operations.get(services.database, operation.id)


async def provisioned(services: Services, name: str, visitors: int = 0) -> None:
    created = await registry.put(services, name, TenantSpec(), PANEL)
    assert created.operation is not None
    assert (await advance(services, created.operation)).state is OperationState.SUCCEEDED
    for number in range(1, visitors + 1):
        visitor = AccountName(AccountKind.VISITOR, str(number), name)
        await accounts.register(services, created.tenant, visitor, "secret")
        await accounts.join_roster(services, visitor)


async def users(services: Services, name: str) -> list[str]:
    return await services.ejabberd.bulk.accounts(f".{name}")


async def test_a_paused_destroy_removes_nothing_more_and_goes_on_where_it_was(services: Services) -> None:
    await provisioned(services, "paused", visitors=12)
    operation = await requests.destroy(services, "paused", PANEL)
    pausing = interrupted(services, "remove_users", lambda: operations.pause(services, operation.id, PANEL))
    paused = await advance(pausing, operation)
    assert (paused.state, paused.due_at) == (OperationState.PAUSED, None)
    step = next(step for step in paused.steps if step.name == "remove_accounts")
    left = await users(services, "paused")
    assert (step.state, step.total) == (StepState.PENDING, 12)
    assert 0 < len(left) == step.total - step.done < 12

    assert await engine.advance(services, WORKFLOWS, operation.id) is Next.NOTHING
    assert (await requests.destroy(services, "paused", PANEL)).id == operation.id
    assert (await operations.pause(services, operation.id, PANEL)).state is OperationState.PAUSED
    with pytest.raises(ConflictError):
        await operations.cancel(services, operation.id, PANEL)
    with pytest.raises(ConflictError):
        await registry.put(services, "paused", TenantSpec(), PANEL)
    assert await users(services, "paused") == left
    assert await state_of(services, "paused") is TenantState.DESTROYING

    await operations.go_on(services, operation.id, PANEL)
    ended = await advance(services, operation)
    assert ended.state is OperationState.SUCCEEDED
    assert {(step.name, step.attempts) for step in ended.steps} == {(step.name, 1) for step in ended.steps}
    assert next(step.total for step in ended.steps if step.name == "remove_accounts") == len(left)
    assert await users(services, "paused") == []


async def test_a_cancelled_provision_is_failed_and_goes_on_or_ends(services: Services) -> None:
    async def cancelled(name: str) -> Operation:
        operation = (await registry.put(services, name, TenantSpec(), PANEL)).operation
        assert operation is not None
        cancelling = interrupted(services, "create_roster", lambda: operations.cancel(services, operation.id, PANEL))
        ended = await advance(cancelling, operation)
        assert ended.state is OperationState.CANCELLED
        assert await state_of(services, name) is TenantState.FAILED
        assert [step.attempts for step in ended.steps] == [1, 1, 0, 0, 0]
        return ended

    retried = await cancelled("cancelled-retried")
    await engine.retry(services, WORKFLOWS, retried.id, PANEL)
    ended = await advance(services, retried)
    assert (ended.state, [step.attempts for step in ended.steps]) == (OperationState.SUCCEEDED, [1] * 5)
    assert await state_of(services, "cancelled-retried") is TenantState.ACTIVE

    await cancelled("cancelled-destroyed")
    end = await requests.destroy(services, "cancelled-destroyed", PANEL)
    assert (await advance(services, end)).state is OperationState.SUCCEEDED
    assert await services.ejabberd.roster("visitors.cancelled-destroyed") is None


async def test_a_retry_begins_with_the_step_that_failed(services: Services) -> None:
    operation = (await registry.put(services, "failed", TenantSpec(), PANEL)).operation
    assert operation is not None

    async def fails() -> None:
        raise OSError("ejabberd is away")

    failing = interrupted(services, "roster", fails)
    for lives in range(engine.MAX_ATTEMPTS):
        # later each time by more than the longest delay, so that nobody waits for it
        await mortal.finish(dataclasses.replace(failing, clock=mortal.later(5 * lives)), operation.id)
    failed = await operations.get(services.database, operation.id)
    assert (failed.state, failed.error) == (OperationState.FAILED, "verify: OSError: ejabberd is away")
    assert await state_of(services, "failed") is TenantState.FAILED
    assert [step.attempts for step in failed.steps] == [1, 1, 1, engine.MAX_ATTEMPTS, 0]

    await engine.retry(services, WORKFLOWS, operation.id, PANEL)
    ended = await advance(services, operation)
    assert ended.state is OperationState.SUCCEEDED
    assert [step.attempts for step in ended.steps] == [1, 1, 1, 1, 1]
    assert await state_of(services, "failed") is TenantState.ACTIVE


async def test_workflows_end_well_though_their_worker_is_killed_again_and_again(system: System, panel: Panel) -> None:
    """Celery's worker as it runs, taken over from by supervisor's next one."""
    created = await panel.create("mortal")
    host = system.endpoints["xmpp_host"]
    gate = asyncio.Semaphore(8)

    async def register(number: int) -> None:
        async with gate:
            await system.ejabberd("register", user=f"visitor.{number}.mortal", host=host, password="x")

    await asyncio.gather(*(register(number) for number in range(150)))
    making = (await panel.http.put("/v1/tenants/mortal-too")).json()["operation"]["id"]
    ending = (await panel.http.delete(f"/v1/tenants/{created['instance_name']}")).json()["id"]
    for _ in range(2):
        await system.kill("lifecycle")
    await panel.finished(making, 90)
    await panel.finished(ending, 90)
    assert await system.users_of("mortal") == []
    assert (await panel.http.get("/v1/tenants/mortal-too")).json()["state"] == "active"
    await panel.destroy("mortal-too")


async def test_requests_while_the_broker_is_away_are_carried_out_when_it_is_back(system: System, panel: Panel) -> None:
    await panel.create("brokerless")
    with control(system.state) as supervisor:
        supervisor.stopProcess("redis")
    try:
        made = await panel.http.put("/v1/tenants/brokerless-too")
        ended = await panel.http.delete("/v1/tenants/brokerless")
        assert (made.status_code, ended.status_code) == (202, 202)
    finally:
        with control(system.state) as supervisor:
            supervisor.startProcess("redis")
    await panel.finished(made.json()["operation"]["id"], 90)
    await panel.finished(ended.json()["id"], 90)
    assert (await panel.http.get("/v1/tenants/brokerless")).status_code == 404
    await panel.destroy("brokerless-too")
    await system.ready()


async def test_twenty_panels_create_one_tenant_and_end_it_at_once(panel: Panel) -> None:
    made = await asyncio.gather(*(panel.http.put("/v1/tenants/crowded") for _ in range(20)))
    assert {answer.status_code for answer in made} <= {200, 202}
    assert len({answer.json()["operation"]["id"] for answer in made}) == 1
    assert len([answer for answer in made if answer.json()["secret_key"]]) == 1
    ended = await asyncio.gather(*(panel.http.delete("/v1/tenants/crowded") for _ in range(20)))
    # who comes when it has ended already is told that there is no such tenant
    assert {answer.status_code for answer in ended} - {404} == {202}
    (operation_id,) = {answer.json()["id"] for answer in ended if answer.status_code == 202}
    await panel.finished(operation_id)
    again = await panel.create("crowded")
    assert again["secret_key"]
    await panel.destroy("crowded")


async def test_a_destroyed_tenant_leaves_nothing(tenant: Tenant) -> None:
    """One that had something of everything: looked for in all tables of ejabberd, the registry and the broker."""
    system, lhc, panel, name = tenant.system, tenant.lhc, tenant.panel, tenant.name
    host = tenant.host
    bob = await tenant.operator_online()
    await lhc.new_operator("away", "operator-pw")
    await lhc.new_visitor("visitor.1", PASSWORD, nick="Ann #1", status="start page")
    await lhc.new_visitor("visitor.2.chat", PASSWORD)
    await bob.sees(lhc.name("visitor.1"))
    await lhc.visitor_writes("visitor.1", PASSWORD, "away", "are you there?")
    await lhc.visitor_writes("visitor.1", PASSWORD, "nobody", "is anybody there?")
    bob.write(lhc.name("visitor.1"), f"good day {name}")
    await tenant.receiver.message(f"good day {name}")
    await system.ejabberd("register", user=lhc.name("orphan"), host=host, password="x")
    await system.join(f"visitors.{name}", lhc.name("ghost"))
    token = await panel.http.post("/v1/tokens", json={"name": "its own", "scope": "tenant", "instance_name": name})
    assert token.status_code == 201, token.text
    settings = mortal.settings_of(system.state)
    async with open_services(settings, mortal.no_wake) as services:
        async with services.database.write() as session:
            session.add(Circuit(instance_name=name, failures=1))
            session.add(Drift(instance_name=name, kind="account", subject="x", found_at=0))
        had = {
            *RECORDS,
            "accounts",
            "callback_messages",
            "circuits",
            "conversations",
            "drift",
            "operator_presences",
            "returned_messages",
            "tokens",
            "visitor_sessions",
        }

        async def had_all() -> bool:
            return (await rows_of(services, name)).keys() == had

        await until_async(had_all, f"the tenant has rows in {had}")

        known = {"passwd", "vcard", "offline_msg", "sr_user", "sr_group"}

        async def knows() -> bool:
            return await in_ejabberd(system, name) >= known

        await until_async(knows, f"ejabberd has the tenant in {known}")

        await panel.destroy(name)
        assert (await rows_of(services, name)).keys() == RECORDS
        async with services.database.read() as session:
            row = await session.get_one(TenantRow, name)
            assert (row.callback_url, row.previous_key_digest) == (None, None)

    # what is written to disk a moment later is waited for; what was left behind is there for ever
    async def forgotten() -> bool:
        return await in_ejabberd(system, name) == set()

    await until_async(forgotten, "nothing in ejabberd names the tenant", 30)
    assert await system.sessions_of(name) == []

    async def drained() -> bool:
        return await queued(system, name) == []

    await until_async(drained, "nothing in the broker names the tenant")


LOOK = """
    mnesia:start(), Tables = mnesia:system_info(local_tables) -- [schema], mnesia:wait_for_tables(Tables, 20000),
    Tells = fun(Row) -> string:find(io_lib:format("~0tp", [Row]), os:getenv("NAME")) =/= nomatch end,
    Rows = fun(Table) -> mnesia:async_dirty(fun() -> mnesia:foldl(fun(Row, All) -> [Row | All] end, [], Table) end) end,
    [io:format("~nknows: ~s~n", [Table]) || Table <- Tables, lists:any(Tells, Rows(Table))], halt().
"""
"""Erlang: the tables with a row in which the name stands anywhere."""


async def in_ejabberd(system: System, name: str) -> set[str]:
    """The tables of ejabberd's Mnesia on disk that know the name, read from a copy."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "mnesia"
        shutil.copytree(system.state / "ejabberd" / "mnesia", copy)
        process = await asyncio.create_subprocess_exec(
            *("erl", "-noinput", "-mnesia", "dir", f'"{copy}"', "-eval", LOOK),
            cwd=folder,
            env=os.environ | {"NAME": name, "HOME": folder},
            stdout=subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, output.decode()
    # among it is what Mnesia says of files that nobody has closed
    return {line.removeprefix("knows: ") for line in output.decode().splitlines() if line.startswith("knows: ")}


async def queued(system: System, name: str) -> list[str]:
    """The keys of the broker that hold something of the tenant."""
    found = []
    async with redis.from_url(system.endpoints["broker_url"]) as broker:
        async for key in broker.scan_iter():
            match await broker.type(key):
                case b"stream":
                    held = str(await broker.xrange(key))
                case b"list":
                    held = str(await broker.lrange(key, 0, -1))
                case b"hash":
                    held = str(await broker.hgetall(key))
                case _:
                    continue  # names of queues and consumers
            if name in held:
                found.append(key.decode())
    return found

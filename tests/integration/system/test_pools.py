"""Several pool processes: one dies, one is frozen, one is added. What visitors and operators write is there once."""

import asyncio
import os
import re
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.engine import make_url

from bench.testbed.operator import Operator
from bench.testbed.system import PROJECT, System
from bench.testbed.waiting import until, until_async
from tenants.shards.commands import shard_of
from tenants.store.database import Database
from tenants.store.models import ShardLease
from tests.world.frozen import freeze
from tests.world.tenant import NewTenant, Tenant

PASSWORD = "0123456789abcdef0123"
SHARDS = 64


@pytest.fixture
async def database(system: System) -> AsyncIterator[Database]:
    opened = Database(system.endpoints["database_url"])
    yield opened
    await opened.close()


async def holders(database: Database) -> dict[int, int]:
    """Of each shard: the process id of its holder."""
    async with database.read() as session:
        rows = await session.execute(select(ShardLease.shard, ShardLease.owner).where(ShardLease.owner.is_not(None)))
    return {shard: int(re.findall(r"-(\d+)-\w+$", owner or "")[0]) for shard, owner in rows.all()}


async def holder_of(database: Database, tenant: Tenant) -> int:
    """The process id of the pool process that serves the tenant."""
    return (await holders(database))[shard_of(tenant.name, SHARDS)]


async def shared_out_among(database: Database, processes: int) -> None:
    async def even() -> bool:
        pids = list((await holders(database)).values())
        counts = [pids.count(pid) for pid in set(pids)]
        return len(pids) == SHARDS and len(counts) == processes and max(counts) <= -(-SHARDS // processes)

    await until_async(even, f"{SHARDS} shards are shared out among {processes}", 45)


@asynccontextmanager
async def talking(tenant: Tenant, bob: Operator) -> AsyncIterator[list[str]]:
    """Bob and a visitor write to each other all the time; checks in the end that all arrived, once, and in order."""
    bodies: list[str] = []
    done = asyncio.Event()

    async def talk() -> None:
        while not done.is_set():
            body = f"{len(bodies):04} {tenant.name}"
            answer = await tenant.lhc.visitor_writes("visitor.1", PASSWORD, "bob", body)
            assert answer.text == "ok"
            bob.write(tenant.lhc.name("visitor.1"), f"re {body}")
            bodies.append(body)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(talk())
    yield bodies
    done.set()
    await task
    await bob.reads(bodies[-1], seconds=30)
    await tenant.receiver.message(f"re {bodies[-1]}", seconds=60)
    assert [seen.body for seen in bob.messages] == bodies
    posted = [callback.form["body"] for callback in tenant.callbacks() if "body" in callback.form]
    assert posted == [f"re {body}" for body in bodies]


async def some_more(bodies: list[str], count: int = 20) -> None:
    enough = len(bodies) + count
    await until(lambda: len(bodies) >= enough, f"{count} more messages", 60)


def never_seen_leaving(bob: Operator, tenant: Tenant, visitor: str) -> bool:
    kinds = {seen.type for seen in bob.presences if seen.username == tenant.lhc.name(visitor)}
    return kinds == {"available"}


async def test_others_take_over_from_a_killed_process(new_tenant: NewTenant, database: Database) -> None:
    tenant = await new_tenant(online_seconds=4)
    system = tenant.system
    await shared_out_among(database, 2)
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.2", PASSWORD, status="short")
    await bob.sees(tenant.lhc.name("visitor.2"))
    await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json={"online_seconds": 300})
    await tenant.lhc.new_visitor("visitor.1", PASSWORD, status="long")
    await bob.sees(tenant.lhc.name("visitor.1"))
    async with talking(tenant, bob) as bodies:
        await some_more(bodies)
        killed = await holder_of(database, tenant)
        os.kill(killed, signal.SIGKILL)

        async def taken_over() -> bool:
            return await holder_of(database, tenant) != killed

        await until_async(taken_over, "another serves the tenant", 15)
        await some_more(bodies)
    # who left meanwhile is seen to have left, who stayed never flickered
    await bob.sees(tenant.lhc.name("visitor.2"), kind="unavailable")
    assert never_seen_leaving(bob, tenant, "visitor.1")
    await system.ready()
    await shared_out_among(database, 2)


async def freeze_between_transactions(pid: int, database: Database) -> None:
    """Stop the process; but not in the middle of a transaction, or nobody else can write to SQLite any more."""
    path = make_url(database.url).database

    def try_to_write() -> bool:
        with closing(sqlite3.connect(path or "", timeout=1, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            connection.execute("ROLLBACK")
        return True

    async def is_frozen() -> bool:
        await freeze(pid)
        if await asyncio.to_thread(try_to_write):
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    await until_async(is_frozen, "it stands still between two transactions")


async def test_a_frozen_process_that_wakes_up_changes_nothing(tenant: Tenant, database: Database) -> None:
    await shared_out_among(database, 2)
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", PASSWORD, status="here")
    await bob.sees(tenant.lhc.name("visitor.1"))
    async with talking(tenant, bob) as bodies:
        await some_more(bodies)
        frozen = await holder_of(database, tenant)
        await freeze_between_transactions(frozen, database)
        try:
            await some_more(bodies)

            async def taken_over() -> bool:
                return await holder_of(database, tenant) != frozen

            await until_async(taken_over, "another serves the tenant", 15)
            # bob leaves and comes back while it sleeps: it must not tell anybody what it hears of that later
            await bob.reads(bodies[-1], seconds=30)
            phone = await tenant.online("bob", resource="phone")
            await phone.sees(tenant.lhc.name("visitor.1"))
        finally:
            os.kill(frozen, signal.SIGCONT)
        await some_more(bodies, 60)
        await shared_out_among(database, 2)
        await some_more(bodies)
    assert never_seen_leaving(bob, tenant, "visitor.1")
    assert len(tenant.receiver.statuses(tenant.connect_body("bob"))) == 1
    assert not tenant.receiver.statuses(tenant.connect_body("bob", "disconnect"))


async def test_shards_move_to_a_process_that_is_added_and_back(tenant: Tenant, database: Database) -> None:
    await shared_out_among(database, 2)
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", PASSWORD, status="here")
    await bob.sees(tenant.lhc.name("visitor.1"))
    env = {**tenant.system.env, "ORCHESTRATOR_STATE_DIR": str(tenant.system.state)}
    orchestrator = Path(sys.executable).parent / "orchestrator"
    async with talking(tenant, bob) as bodies:
        await some_more(bodies)
        with (tenant.system.state / "logs" / "third.log").open("wb") as log:
            third = await asyncio.create_subprocess_exec(orchestrator, "pool", cwd=PROJECT, env=env, stderr=log)
        try:
            await shared_out_among(database, 3)
            await some_more(bodies)
        finally:
            third.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(third.wait(), 30) == 0
        await shared_out_among(database, 2)
        await some_more(bodies)
    assert never_seen_leaving(bob, tenant, "visitor.1")


async def test_what_an_operator_cannot_get_comes_back_and_can_be_sent_again(tenant: Tenant) -> None:
    lhc, panel = tenant.lhc, tenant.panel
    await lhc.new_visitor("visitor.1", PASSWORD)
    assert (await lhc.visitor_writes("visitor.1", PASSWORD, "nobody", "is anybody there?")).text == "ok"
    url = f"/v1/tenants/{tenant.name}/returned-messages"

    async def came_back() -> list[dict[str, str | int | None]]:
        found: list[dict[str, str | int | None]] = (await panel.http.get(url)).json()["returned_messages"]
        return found

    (message,) = await until_async(came_back, "the message comes back")
    assert message["visitor"] == lhc.name("visitor.1")
    assert message["operator"] == lhc.name("nobody")
    assert message["condition"] == "service-unavailable"
    assert message["replayed_at"] is None

    await lhc.new_operator("nobody", "operator-pw")
    nobody = await tenant.online("nobody")
    answer = await panel.http.post(f"{url}/{message['id']}/replay")
    assert answer.status_code == 202
    assert answer.json()["replayed_at"] is not None
    await nobody.reads("is anybody there?")
    assert (await panel.http.post(f"{url}/{message['id']}/replay")).status_code == 409
    assert (await panel.http.post(f"{url}/{10**6}/replay")).status_code == 404
    assert (await panel.http.post(f"{url}/replay")).json() == {"replayed": 0}


async def test_no_message_is_left_lying_when_an_operator_comes(tenant: Tenant) -> None:
    """A message is stored when nobody is there; one who comes at that very moment must get it nevertheless."""
    bob = await tenant.operator_online()
    lhc = tenant.lhc
    await lhc.new_visitor("visitor.1", PASSWORD)
    bodies: list[str] = []
    done = asyncio.Event()

    async def write(lane: int) -> None:
        while not done.is_set():
            body = f"{lane}:{len(bodies)} {tenant.name}"
            bodies.append(body)
            assert (await lhc.visitor_writes("visitor.1", PASSWORD, "bob", body)).text == "ok"

    writing = [asyncio.create_task(write(lane)) for lane in range(4)]
    for pause in [number % 10 / 200 for number in range(200)]:
        bob.set_presence(available=False)
        await asyncio.sleep(pause)
        bob.set_presence()
        await asyncio.sleep(0.02)
    done.set()
    await asyncio.gather(*writing)
    await until(lambda: {seen.body for seen in bob.messages} == set(bodies), "all arrive", 30)

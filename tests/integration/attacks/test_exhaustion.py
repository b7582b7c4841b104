"""One client, or one tenant, takes the memory, the disk or the time that others need: how far it gets."""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.world.chat_server import ChatServer
from tests.world.component import Component
from tests.world.waiting import until

MIB = 1024 * 1024
BACKLOG = 4 * MIB
"""Of a connection, here."""
ACCOUNT, TENANT = 200_000, 300_000
"""What may wait in offline storage, here."""
LONG = "x" * 100_000
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ChatServer]:
    state = Path(tempfile.mkdtemp(prefix="lhc-exhaustion-"))
    bounds = {
        "max_operator_backlog": BACKLOG,
        "max_tenant_backlog": 10 * BACKLOG,
        "max_account_offline": ACCOUNT,
        "max_tenant_offline": TENANT,
    }
    server = ChatServer(state, bounds)
    await server.start()
    yield server
    await server.kill()
    shutil.rmtree(state)


@pytest.fixture
def tenant() -> str:
    """A tenant of its own for each test."""
    return f"x{next(_numbers)}"


@pytest.mark.parametrize("managed", [False, True], ids=["plain", "stream management"])
async def test_connections_that_never_read(server: ChatServer, tenant: str, managed: bool) -> None:
    """Nine connections of an operator read nothing, and a colleague writes as fast as she can."""
    bob, eve = f"bob.{tenant}", f"eve.{tenant}"
    before = (await server.refusals())["slow_reader"]
    async with AsyncExitStack() as stack:
        for name in (bob, eve):
            await server.new_operator(name)
        deaf = [
            await stack.enter_async_context(server.light(bob, f"r{number}", managed=managed)) for number in range(9)
        ]
        for client in deaf:
            client.stop_reading()
        writer = await stack.enter_async_context(server.light(eve))
        reading = asyncio.create_task(writer.read_for_ever())
        least = most = server.resident_bytes()
        # 30 MB for each of the nine
        for _ in range(300):
            writer.write(f"{bob}@{server.host}", LONG)
            await writer.drain()
            most = max(most, server.resident_bytes())
        assert most - least < 4 * 9 * BACKLOG
        for client in deaf:
            await client.ended()
        reading.cancel()
    assert (await server.refusals())["slow_reader"] == before + 9


async def test_a_client_that_reads_and_acknowledges_nothing(server: ChatServer, tenant: str) -> None:
    bob, eve = f"bob.{tenant}", f"eve.{tenant}"
    for name in (bob, eve):
        await server.new_operator(name)
    async with server.light(bob, managed=True) as client, server.light(eve) as writer:
        reading = asyncio.gather(client.read_for_ever(), writer.read_for_ever(), return_exceptions=True)
        for _ in range(200):
            writer.write(f"{bob}@{server.host}", LONG)
            await writer.drain()
        await until(lambda: f"{bob}@{server.host}/light is disconnected" in server.log, "it is disconnected")
        reading.cancel()


@pytest.mark.parametrize("managed", [False, True], ids=["plain", "stream management"])
async def test_who_reads_slowly_loses_nothing(server: ChatServer, tenant: str, managed: bool) -> None:
    """What ejabberd had for a connection that it ended is there at the next login."""
    bob, eve = f"bob.{tenant}", f"eve.{tenant}"
    for name in (bob, eve):
        await server.new_operator(name)
    async with server.light(bob, managed=managed) as client, Component(server) as component:
        client.stop_reading()
        # more than operating systems keep for a connection
        for number in range(1500):
            component.send(
                f"<presence from='visitor.{number}.{tenant}@{server.host}/lhc' to='{bob}@{server.host}/light'>"
                f"<status>{'x' * 7000}</status></presence>"
            )
        component.say(f"visitor.1.{tenant}", bob, "unread")
        await until(lambda: f"{bob}@{server.host}/light is disconnected" in server.log, "it is disconnected")
        await client.ended()
    async with server.operator(bob) as again:
        await again.reads("unread")


async def test_messages_for_operators_who_are_away(server: ChatServer, tenant: str) -> None:
    """All that is kept for them lies in one file, which must have room for others."""
    bob, eve, other = f"bob.{tenant}", f"eve.{tenant}", f"bob.another-{tenant}"
    for name in (bob, eve, other):
        await server.new_operator(name)
    async with Component(server) as component:
        for receiver in (bob, eve):
            for number in range(30):
                component.say(f"visitor.1.{tenant}", receiver, f"{receiver} {number} {'x' * 4500}")
        await component.ask("sync")
        component.say(f"visitor.1.another-{tenant}", other, "of another tenant")
        await until(lambda: len(component.stored) >= 26, "what is too much comes back")
        refused = {handed.body for handed in component.stored}
        assert {handed.error for handed in component.stored} == {"resource-constraint"}
        assert (await server.refusals())["offline_full"] >= len(refused)
        # an account's share, a tenant's share
        kept = [sum(not body.startswith(receiver) for body in refused) for receiver in (eve, bob)]
        assert 30 - kept[0] in range(15, 23)
        assert len(refused) in range(27, 35)
    # it is counted anew after a restart, and after a login
    await server.kill()
    await server.start()
    async with Component(server) as component:
        component.say(f"visitor.1.{tenant}", bob, "x" * 30_000)
        await until(lambda: component.stored, "there is no more room after a restart either")
        async with server.operator(other) as operator:
            await operator.reads("of another tenant")
        async with server.operator(bob) as operator:
            await until(lambda: len(operator.messages) >= 15, "bob reads what was kept")
        component.say(f"visitor.1.{tenant}", bob, "there is room again")
        await component.ask("sync")
        async with server.operator(bob) as operator:
            await operator.reads("there is room again")

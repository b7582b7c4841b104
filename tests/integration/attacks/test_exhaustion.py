"""One client, or one tenant, takes the memory, the disk or the time that others need: how far it gets."""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from bench.testbed.chat_server import ChatServer
from bench.testbed.receiver import Callback
from bench.testbed.waiting import until
from tests.world.component import Component, Handed
from tests.world.tenant import NewTenant
from tests.world.tenant_api import OPERATOR_PASSWORD, api_of

MIB = 1024 * 1024
BACKLOG = 4 * MIB
"""Of a connection, here."""
ACCOUNT, TENANT = 200_000, 300_000
"""What may wait in offline storage, here."""
SHARE = 100
"""Messages of a tenant that may wait for the pool, here."""
LONG = "x" * 100_000
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ChatServer]:
    state = Path(tempfile.mkdtemp(prefix="lhc-exhaustion-"))
    bounds = {
        "max_operator_backlog": BACKLOG,
        "max_tenant_backlog": 10 * BACKLOG,
        "max_messages": 4 * SHARE,
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
    """Nine connections of an operator read nothing, and a visitor writes as fast as LHC lets him."""
    bob = f"bob.{tenant}"
    before = (await server.refusals())["slow_reader"]
    async with AsyncExitStack() as stack:
        await server.new_operator(bob)
        deaf = [
            await stack.enter_async_context(server.light(bob, f"r{number}", managed=managed)) for number in range(9)
        ]
        for client in deaf:
            client.stop_reading()
        component = await stack.enter_async_context(Component(server))
        least = most = server.resident_bytes()
        # 30 MB for each of the nine
        for number in range(300):
            component.say(f"visitor.1.{tenant}", bob, f"{number} {LONG}")
            if number % 10 == 0:
                await component.ask("sync")
                most = max(most, server.resident_bytes())
        assert most - least < 4 * 9 * BACKLOG
        for client in deaf:
            await client.ended()
    assert (await server.refusals())["slow_reader"] == before + 9


async def test_a_client_that_reads_and_acknowledges_nothing(server: ChatServer, tenant: str) -> None:
    bob = f"bob.{tenant}"
    await server.new_operator(bob)
    async with server.light(bob, managed=True) as client, Component(server) as component:
        reading = asyncio.create_task(client.read_for_ever())
        for number in range(200):
            component.say(f"visitor.1.{tenant}", bob, f"{number} {LONG}")
        await until(lambda: f"{bob}@{server.host}/light is disconnected" in server.log, "it is disconnected")
        reading.cancel()


@pytest.mark.parametrize("managed", [False, True], ids=["plain", "stream management"])
async def test_who_reads_slowly_loses_nothing(server: ChatServer, tenant: str, managed: bool) -> None:
    """What ejabberd had for a connection that it ended is there at the next login."""
    bob = f"bob.{tenant}"
    await server.new_operator(bob)
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

        def back() -> list[Handed]:
            return [one for one in component.stored if one.body.startswith((bob, eve))]

        await until(lambda: len(back()) >= 26, "what is too much comes back")
        assert {one.error for one in back()} == {"resource-constraint"}
        assert (await server.refusals())["offline_full"] >= len(back())
        # an account's share, and a tenant's
        assert 30 - sum(one.body.startswith(bob) for one in back()) in range(18, 23)
        assert 60 - len(back()) in range(28, 34)
    # it is counted anew after a restart, and after a login
    await server.kill()
    await server.start()
    async with Component(server) as component:
        component.say(f"visitor.1.{tenant}", bob, "y" * 30_000)
        await until(
            lambda: any(one.body.startswith("y") for one in component.stored),
            "there is no more room after a restart either",
        )
        async with server.operator(other) as operator:
            await operator.reads("of another tenant")
        async with server.operator(bob) as operator:
            await until(lambda: len(operator.messages) >= 15, "bob reads what was kept")
        component.say(f"visitor.1.{tenant}", bob, "there is room again")
        await component.ask("sync")
        async with server.operator(bob) as operator:
            await operator.reads("there is room again")


async def test_an_operator_who_writes_as_fast_as_he_can(server: ChatServer, tenant: str) -> None:
    """What is beyond the rate goes back before anything is stored; nobody else notices."""
    bob, other = f"bob.{tenant}", f"bob.another-{tenant}"
    for name in (bob, other):
        await server.new_operator(name)
    before = (await server.refusals())["too_fast"]
    async with Component(server) as component, server.operator(bob) as flooding, server.operator(other) as calm:
        for number in range(500):
            flooding.write(f"visitor.{number}.{tenant}", "flood")
        await flooding.taken()
        calm.write(f"visitor.1.another-{tenant}", "calm")
        await until(lambda: "calm" in component.bodies(f"visitor.1.another-{tenant}"), "the other tenant's arrives")
        refused = [message for message in flooding.messages if message.error]
        # two windows at most
        assert 100 <= len(refused) < 500
        assert {(message.error, bool(message.reason)) for message in refused} == {("resource-constraint", True)}
        assert (await server.refusals())["too_fast"] == before + len(refused)
        arrived = 500 - len(refused)
        await until(lambda: sum(one.body == "flood" for one in component.stored) == arrived, "the others arrive")


_HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
)
_MASK = bytes(4)
ENDLESS = {
    "one frame": (b"\x81\xff" + (2**40).to_bytes(8) + _MASK, b"x" * MIB),
    "fragments": (b"\x01\xfd" + _MASK + b"x" * 125, (b"\x00\xfd" + _MASK + b"x" * 125) * 8000),
}
"""How a message of a WebSocket begins that never ends, and how it goes on (RFC 6455, 5)."""


@pytest.mark.parametrize(("beginning", "more"), ENDLESS.values(), ids=ENDLESS)
async def test_a_browser_that_ends_no_message(server: ChatServer, beginning: bytes, more: bytes) -> None:
    """It need not be logged in: anybody on the web could."""
    before = server.resident_bytes()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.ports["websocket"])
    try:
        writer.write(_HANDSHAKE)
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(beginning)
        with suppress(TimeoutError, ConnectionError):  # it is read slowly, or not at all
            async with asyncio.timeout(5):
                for _ in range(200):
                    writer.write(more)
                    await writer.drain()
        assert server.resident_bytes() - before < 40 * MIB
    finally:
        writer.transport.abort()


async def test_a_browser_that_writes_as_fast_as_it_can(server: ChatServer, tenant: str) -> None:
    """Its refusals are told to it, and are not kept as messages that came back."""
    await server.new_operator(f"bob.{tenant}")
    async with Component(server) as component, await server.new_visitor(f"visitor.1.{tenant}") as browser:
        for number in range(200):
            await browser.write(f"bob.{tenant}", f"flood {number}")
        await browser.taken()
        assert browser.errors().count("resource-constraint") >= 100
        async with server.operator(f"bob.{tenant}") as bob:
            bob.write(f"visitor.1.{tenant}", "that was all")
            await until(lambda: "that was all" in component.bodies(f"visitor.1.{tenant}"), "it arrives")
        assert [one.body for one in component.handed] == ["that was all"]


async def test_tenants_that_fill_the_queue(server: ChatServer, tenant: str) -> None:
    """The pool is away, and four tenants fill the queue; the operators of a fifth do not get their messages back."""

    async def fill(name: str) -> None:
        await server.new_operator(f"bob.{name}")
        async with server.operator(f"bob.{name}") as bob:
            for number in range(SHARE + 5):
                bob.write(f"visitor.1.{name}", f"{number}")
            await bob.taken()
            assert [message.error for message in bob.messages] == ["resource-constraint"] * 5

    calm = f"calm-{tenant}"
    await server.new_operator(f"bob.{calm}")
    for number in range(4):
        await fill(f"{tenant}-{number}")
    # shares are counted anew after a restart
    await server.kill()
    await server.start()
    async with server.operator(f"bob.{calm}") as bob, server.operator(f"bob.{tenant}-0") as full:
        bob.write(f"visitor.1.{calm}", "calm")
        full.write(f"visitor.1.{tenant}-0", "too much")
        await full.taken()
        await bob.taken()
        assert not bob.messages
        assert [message.error for message in full.messages] == ["resource-constraint"]
        async with Component(server) as component:
            await until(lambda: len(component.stored) == 4 * SHARE + 1, "all arrive", 30)


async def test_a_long_message_in_a_room(server: ChatServer, tenant: str) -> None:
    """A room keeps what was said last in its memory."""
    bob, room = f"bob.{tenant}", f"team.{tenant}"
    await server.new_operator(bob)
    await server.command("lhc_make_rooms", host=server.host, rooms=[{"name": room, "title": "Team"}])
    jid = f"{room}@conference.{server.host}"
    async with server.operator(bob) as operator:
        await operator.join(jid, "bob")
        refused = operator.write(jid, "x" * 40_000, kind="groupchat")
        await operator.is_refused(refused, "not-acceptable")
        operator.write(jid, "x" * 20_000, kind="groupchat")
        await operator.hears(jid, "x" * 20_000)


async def test_a_server_that_takes_nothing(new_tenant: NewTenant) -> None:
    """What waits for it has a bound; its operators are told, and nobody else's wait."""
    hostile, calm = await new_tenant(max_waiting_messages=5), await new_tenant()

    async def hang(_callback: Callback) -> int:
        await asyncio.sleep(60)
        return 200

    hostile.receiver.behaviours[hostile.callback_host] = hang
    await hostile.lhc.new_operator("bob", OPERATOR_PASSWORD)
    bob = await hostile.online("bob")
    await hostile.lhc.new_visitor("visitor.1", "0123456789abcdef0123")
    sent = [bob.write(hostile.lhc.name(f"visitor.{number}"), "hello") for number in range(1, 21)]
    refused = await until(lambda: [one for one in bob.messages if one.error], "some come back", 60)
    assert {one.error for one in refused} == {"resource-constraint"}
    assert all(one.id in sent and "messages wait for the server" in one.reason for one in refused)
    other = await calm.operator_online()
    await calm.lhc.new_visitor("visitor.1", "0123456789abcdef0123")
    other.write(calm.lhc.name("visitor.1"), "calm")
    await calm.receiver.message("calm")


async def test_rooms_of_a_tenant(new_tenant: NewTenant) -> None:
    tenant = await new_tenant(max_rooms=1)
    async with api_of(tenant) as api:
        assert (await api.http.post("/rooms", json={"name": "one"})).status_code == 201
        refused = await api.http.post("/rooms", json={"name": "two"})
        assert refused.status_code == 409
        assert "has 1 rooms" in refused.text

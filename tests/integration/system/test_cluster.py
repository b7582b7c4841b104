"""Two nodes of ejabberd as one cluster: people are at either, and either may die."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from xmlrpc.client import Fault

import httpx
import pytest

from bench.testbed.browser import Browser
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System, domain_of, start_system
from bench.testbed.waiting import until, until_async
from orchestrator.launcher.up import control
from tenants.ejabberd.bulk import Kind
from tenants.ejabberd.client import Ejabberd
from tests.world.settings import PING_SECONDS, SETTINGS
from tests.world.tenant import Tenant

PASSWORD = "0123456789abcdef0123"
A, B = "ejabberd", "ejabberd-2"
AT_ONCE = PING_SECONDS + 3
"""Seconds: the time of a ping, on a busy machine."""


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with start_system("--ejabberd-nodes", "2", "--database", "postgresql", env=SETTINGS) as system:
        yield system


@pytest.fixture(scope="module")
async def receiver(system: System) -> AsyncIterator[Receiver]:
    async with Receiver(system.endpoints["callback_port"]) as receiver:
        yield receiver


@pytest.fixture(scope="module")
async def panel(system: System) -> AsyncIterator[Panel]:
    async with Panel(system.endpoints["api"], system.endpoints["panel_token"]) as panel:
        yield panel


@pytest.fixture
async def ejabberd(system: System) -> AsyncIterator[Ejabberd]:
    """The orchestrator's own client of the cluster."""
    async with domain_of(system) as services:
        yield services.ejabberd


@asynccontextmanager
async def at(tenant: Tenant, node: str, local: str, resource: str = "desk") -> AsyncIterator[Operator]:
    """An operator who is logged in at that node, and known to be online."""
    await tenant.lhc.new_operator(local, "operator-pw")
    endpoints = tenant.system.endpoints
    address = endpoints["c2s_host"], endpoints["c2s_port" if node == A else "c2s_port_2"]
    told = len(tenant.receiver.statuses(tenant.connect_body(local)))
    operator = Operator(tenant.lhc.name(local), tenant.host, "operator-pw", address, resource)
    await operator.connect()
    await tenant.receiver.status(tenant.connect_body(local), count=told + 1)
    try:
        yield operator
    finally:
        with suppress(Exception):  # its node may have died
            await operator.leave()


@asynccontextmanager
async def browser_at_b(tenant: Tenant, local: str) -> AsyncIterator[None]:
    """The visitor's browser is logged in at the second node, and dies with it."""
    url = f"ws://127.0.0.1:{tenant.system.endpoints['websocket_port_2']}/ws"
    browser = Browser(url, tenant.lhc.name(local), tenant.host, PASSWORD)
    await browser.__aenter__()
    await browser.present("Ann", "here")
    try:
        yield
    finally:
        with suppress(Exception):
            await browser.leave()


async def run(system: System, name: str, *, stop: bool) -> None:
    """Let supervisord start or stop a process or a server."""

    def ask() -> None:
        with control(system.state) as supervisor:
            group = next(one["group"] for one in supervisor.getAllProcessInfo() if one["name"] == name)
            with suppress(Fault):  # it is as wanted
                (supervisor.stopProcess if stop else supervisor.startProcess)(f"{group}:{name}")

    await asyncio.to_thread(ask)


@asynccontextmanager
async def without(system: System, node: str) -> AsyncIterator[None]:
    """The node dies, and comes back in the end."""
    os.kill(system.pid(node), signal.SIGKILL)
    await run(system, node, stop=True)
    try:
        yield
    finally:
        await run(system, node, stop=False)
        await all_up(system)


async def all_up(system: System) -> None:
    async with domain_of(system) as services:

        async def seen() -> bool:
            with suppress(Exception):
                nodes = await services.ejabberd.nodes()
                return len(nodes) == 2 and all(one.is_up and one.connections == 2 for one in nodes)
            return False

        await until_async(seen, "both nodes run, and all pool processes are connected to them", 60)


async def test_people_at_different_nodes_talk_in_order_and_stay_online(tenant: Tenant) -> None:
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    visitor, lhc = tenant.lhc.name("visitor.1"), tenant.lhc
    async with at(tenant, A, "ann") as ann, at(tenant, B, "bob") as bob:
        await ann.sees(visitor)
        await bob.sees(visitor)
        for number in range(30):
            for local, operator in (("ann", ann), ("bob", bob)):
                await lhc.visitor_writes("visitor.1", PASSWORD, local, f"{number:02} to {local}")
                operator.write(visitor, f"{number:02} of {local} {tenant.name}")
        for local, operator in (("ann", ann), ("bob", bob)):
            await operator.reads(f"29 to {local}")
            assert [one.body for one in operator.messages] == [f"{number:02} to {local}" for number in range(30)]
            await tenant.receiver.message(f"29 of {local} {tenant.name}", seconds=30)
            bodies = [one.form.get("body", "") for one in tenant.callbacks()]
            mine = [body for body in bodies if body.endswith(f" of {local} {tenant.name}")]
            assert mine == [f"{number:02} of {local} {tenant.name}" for number in range(30)]
        ping = f'{{"action":"ping","user":"{bob.username}@{tenant.host}/desk"}}'
        await tenant.receiver.status(ping, count=3, seconds=5 * PING_SECONDS + 10)
        assert not tenant.receiver.statuses(tenant.connect_body("bob", "disconnect"))
        assert not bob.disconnected.is_set()


async def test_operators_of_a_node_that_dies_go_offline_at_once_and_the_others_go_on(tenant: Tenant) -> None:
    lhc, system = tenant.lhc, tenant.system
    await lhc.new_visitor("visitor.1", PASSWORD)
    async with at(tenant, A, "ann") as ann, at(tenant, B, "bob") as bob, browser_at_b(tenant, "visitor.1"):
        await bob.sees(lhc.name("visitor.1"))
        browser = f"{lhc.name('visitor.1')}@{tenant.host}/browser"
        await until(lambda: any(one.jid == browser for one in ann.presences), "ann sees the browser")
        async with without(system, B):
            await until(
                lambda: [one.type for one in ann.presences if one.jid == browser][-1] == "unavailable",
                "ann sees the browser leave",
            )
            await tenant.receiver.status(tenant.connect_body("bob", "disconnect"), seconds=AT_ONCE)
            assert not tenant.receiver.statuses(tenant.connect_body("ann", "disconnect"))
            await lhc.new_visitor("visitor.2", PASSWORD)
            await ann.sees(lhc.name("visitor.2"), seconds=AT_ONCE)
            assert (await lhc.visitor_writes("visitor.1", PASSWORD, "bob", "for later")).text == "ok"
            async with at(tenant, A, "bob", "phone") as phone:
                await phone.reads("for later")
        async with at(tenant, B, "bob", "tablet") as tablet:
            await tablet.sees(lhc.name("visitor.2"))


async def taken(tenant: Tenant, local: str, text: str) -> None:
    """The visitor's message is taken. LHC waits for five seconds: then it may have been, and is sent once more."""

    async def try_it() -> bool:
        try:
            return (await tenant.lhc.visitor_writes("visitor.1", PASSWORD, local, text)).text == "ok"
        except httpx.ReadTimeout:
            return False

    await until_async(try_it, f"{text} is taken")


@pytest.mark.parametrize("node", [A, B])
async def test_nothing_is_lost_when_either_node_dies_in_the_middle(tenant: Tenant, node: str) -> None:
    lhc, system = tenant.lhc, tenant.system
    other = A if node == B else B
    await lhc.new_visitor("visitor.1", PASSWORD)
    async with at(tenant, other, "ann") as ann, at(tenant, node, "bob") as bob:
        await ann.sees(lhc.name("visitor.1"))
        for number in range(40):
            for local in ("ann", "bob"):
                await taken(tenant, local, f"{number:02} {local}")
            ann.write(lhc.name("visitor.1"), f"{number:02} {tenant.name}")
            if number == 20:
                os.kill(system.pid(node), signal.SIGKILL)
                # who comes now is served
                assert (await lhc.new_visitor("visitor.2", PASSWORD)).json()["error"] is False
        await ann.sees(lhc.name("visitor.2"))
        await ann.reads("39 ann")
        await tenant.receiver.message(f"39 {tenant.name}", seconds=30)
        assert not ann.disconnected.is_set()
        assert list(dict.fromkeys(one.body for one in ann.messages)) == [f"{number:02} ann" for number in range(40)]
        posted = [one.form["body"] for one in tenant.callbacks() if one.form.get("body", "")[3:] == tenant.name]
        assert posted == [f"{number:02} {tenant.name}" for number in range(40)]
        async with at(tenant, other, "bob", "phone") as phone:
            wanted = {f"{number:02} bob" for number in range(40)}
            await until(lambda: wanted <= {one.body for one in [*bob.messages, *phone.messages]}, "bob gets all")
    await all_up(system)


async def counted_offline(system: System, node: str, username: str) -> int:
    """How many messages that node believes to wait in offline storage for the account."""
    key = f'{{account, <<"{username}">>, <<"{system.endpoints["xmpp_host"]}">>}}'
    rows = f'rpc:call(list_to_atom("{node}@localhost"), ets, lookup, [lhc_bridge_offline, {key}])'
    code = f'io:format("~b", [lists:sum([element(2, Row) || Row <- {rows}])]), halt(0).'
    words = ["erl", "-noinput", "-hidden", "-sname", f"probe-{os.getpid()}@localhost", "-start_epmd", "false"]
    ports = json.loads((system.state / "system.json").read_text())["ports"]
    variables = {
        "HOME": f"{system.state}/ejabberd",
        "ERL_EPMD_PORT": str(ports["epmd"]),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    process = await asyncio.create_subprocess_exec(
        *words, "-eval", code, env=os.environ | variables, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    return int(output)


async def test_what_is_fetched_at_one_node_is_not_counted_at_the_other_any_more(tenant: Tenant) -> None:
    """Else a node would refuse messages to an operator who always logs in at the other."""
    lhc, system = tenant.lhc, tenant.system
    await lhc.new_operator("bob", "operator-pw")
    await lhc.new_visitor("visitor.1", PASSWORD)
    bob = lhc.name("bob")
    for number in range(3):
        await lhc.visitor_writes("visitor.1", PASSWORD, "bob", f"{number}")

    async def storing() -> str | None:
        counts = {node: await counted_offline(system, node, bob) for node in (A, B)}
        return next((node for node, count in counts.items() if count == 3), None)

    node = await until_async(storing, "the messages are stored")
    async with at(tenant, B if node == A else A, "bob") as client:
        await client.reads("2")

        async def forgotten() -> bool:
            return await counted_offline(system, node, bob) == 0

        await until_async(forgotten, f"{node} knows that they were fetched")


async def test_what_waits_at_a_dead_node_is_known_and_goes_on_when_it_is_back(
    tenant: Tenant, ejabberd: Ejabberd
) -> None:
    lhc, system, suffix = tenant.lhc, tenant.system, f".{tenant.name}"
    await lhc.new_visitor("visitor.1", PASSWORD)
    async with at(tenant, B, "bob") as bob:
        await bob.sees(lhc.name("visitor.1"))
        for pool in system.pools():
            await run(system, pool, stop=True)
        for body in ("first", "second"):
            bob.write(lhc.name("visitor.1"), f"{body} {tenant.name}")
        await bob.taken()
        left = await ejabberd.bulk.tenant_left(suffix, [])
        assert left[Kind.WAITING_MESSAGES].count == 2

        await asyncio.sleep(1.5)  # each second the nodes tell each other
        async with without(system, B):
            for pool in system.pools():
                await run(system, pool, stop=False)
            away = next(one for one in await ejabberd.nodes() if not one.is_up)
            assert (away.name, away.waiting) == (f"{B}@localhost", 2)
            assert (await ejabberd.bulk.tenant_left(suffix, []))[Kind.NODES_AWAY].names == (away.name,)
            await tenant.receiver.status(tenant.connect_body("bob", "disconnect"), seconds=45)
        await tenant.receiver.message(f"second {tenant.name}", seconds=30)
        assert await ejabberd.bulk.tenant_left(suffix, []) != {}
        assert Kind.WAITING_MESSAGES not in await ejabberd.bulk.tenant_left(suffix, [])


async def test_the_end_of_a_tenant_takes_what_waits_at_any_node(tenant: Tenant, ejabberd: Ejabberd) -> None:
    lhc, system = tenant.lhc, tenant.system
    await lhc.new_visitor("visitor.1", PASSWORD)
    async with at(tenant, B, "bob") as bob:
        await bob.sees(lhc.name("visitor.1"))
        for pool in system.pools():
            await run(system, pool, stop=True)
        bob.write(lhc.name("visitor.1"), f"too late {tenant.name}")
        await bob.taken()
        assert await ejabberd.bulk.forget_tenant(f".{tenant.name}") == 1
        assert Kind.WAITING_MESSAGES not in await ejabberd.bulk.tenant_left(f".{tenant.name}", [])
        for pool in system.pools():
            await run(system, pool, stop=False)
    await all_up(system)

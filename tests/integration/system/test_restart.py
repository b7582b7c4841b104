"""Processes and servers that end and come back: nobody stays online for ever, and nobody is forgotten."""

import os
import signal
from collections.abc import Awaitable, Callable

from sqlalchemy import update

from bench.testbed.light_client import LightClient
from bench.testbed.system import domain_of
from bench.testbed.waiting import until_async
from tenants.store.models import ChatLine
from tests.world.frozen import freeze
from tests.world.tenant import Tenant
from tests.world.tenant_api import TenantApi

NewTenant = Callable[..., Awaitable[Tenant]]
PASSWORD = "0123456789abcdef0123"


async def test_sessions_come_back_after_the_pool_was_killed(new_tenant: NewTenant) -> None:
    tenant = await new_tenant(online_seconds=3)
    lhc, system = tenant.lhc, tenant.system
    bob = await tenant.operator_online()
    await lhc.new_visitor("visitor.1", PASSWORD, status="short")
    await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json={"online_seconds": 300})
    await lhc.new_visitor("visitor.2", PASSWORD, status="long", nick="Ann #2")
    await bob.sees(lhc.name("visitor.1"))
    await bob.sees(lhc.name("visitor.2"))

    await system.kill_pools()
    # a page view while no pool is there waits in the queue
    assert (await lhc.new_visitor("visitor.3", PASSWORD, status="meanwhile")).json()["error"] is False

    await bob.sees(lhc.name("visitor.3"), status="meanwhile", seconds=45)
    # whose window ended meanwhile is announced offline; who is still there never left
    await bob.sees(lhc.name("visitor.1"), kind="unavailable")
    assert {seen.type for seen in bob.presences if seen.username == lhc.name("visitor.2")} == {"available"}
    phone = await tenant.online("bob", resource="phone")
    await phone.sees(lhc.name("visitor.2"), status="long", nick="Ann #2")
    # bob was online all the time: LHC is not told again
    bob.write(lhc.name("visitor.2"), f"still here {tenant.name}")
    await tenant.receiver.message(f"still here {tenant.name}")
    assert len(tenant.receiver.statuses(tenant.connect_body("bob"))) == 1
    await system.ready()


async def test_an_operator_who_left_while_the_pool_was_away_is_reported(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    system = tenant.system
    pids = [system.pid(name) for name in system.pools()]
    try:
        for pid in pids:
            await freeze(pid)
        await bob.leave()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    await tenant.receiver.status(tenant.connect_body("bob", "disconnect"), seconds=45)
    await system.ready()


async def test_everything_goes_on_after_ejabberd_was_restarted(tenant: Tenant) -> None:
    lhc, system = tenant.lhc, tenant.system
    bob = await tenant.operator_online()
    await lhc.new_visitor("visitor.1", PASSWORD, status="before")
    await bob.sees(lhc.name("visitor.1"))

    await system.kill("ejabberd", signal.SIGTERM)
    await tenant.receiver.status(tenant.connect_body("bob", "disconnect"), seconds=45)
    await system.ready()

    again = await tenant.online("bob")
    await again.sees(lhc.name("visitor.1"), status="before")
    await tenant.receiver.status(tenant.connect_body("bob"), count=2)
    await lhc.visitor_writes("visitor.1", PASSWORD, "bob", "after")
    await again.reads("after")
    again.write(lhc.name("visitor.1"), f"after {tenant.name}")
    await tenant.receiver.message(f"after {tenant.name}")


async def test_messages_are_refused_loudly_while_the_pool_is_away(tenant: Tenant) -> None:
    """What cannot be taken is given back to the operator; the visitor's side is kept in the queue."""
    lhc, system = tenant.lhc, tenant.system
    bob = await tenant.operator_online()
    await lhc.new_visitor("visitor.1", PASSWORD)
    await bob.sees(lhc.name("visitor.1"))
    await system.kill_pools()
    bob.write(lhc.name("visitor.1"), f"anybody? {tenant.name}")
    assert (await lhc.visitor_writes("visitor.1", PASSWORD, "bob", "I am waiting")).text == "ok"

    await tenant.receiver.message(f"anybody? {tenant.name}", seconds=45)
    await bob.reads("I am waiting", seconds=45)
    assert not [message for message in bob.messages if message.error]
    await system.ready()


async def test_callbacks_go_on_after_the_worker_was_killed(tenant: Tenant) -> None:
    lhc, system = tenant.lhc, tenant.system
    bob = await tenant.operator_online()
    await lhc.new_visitor("visitor.1", PASSWORD)
    await system.kill("worker")
    for number in range(5):
        bob.write(lhc.name("visitor.1"), f"{number} {tenant.name}")
    await tenant.receiver.message(f"4 {tenant.name}", seconds=45)
    received = [c.form["body"] for c in tenant.callbacks() if c.form.get("body", "").endswith(f" {tenant.name}")]
    assert received == [f"{number} {tenant.name}" for number in range(5)]
    await system.ready()


async def test_what_a_frozen_client_had_when_ejabberd_was_killed_is_read_later_or_shown_as_unconfirmed(
    api: TenantApi,
) -> None:
    """It was in the memory of both: nobody is told that the operator has it."""
    tenant, system = api.tenant, api.tenant.system
    bob, password = tenant.lhc.name("bob"), "operator-pw"
    await tenant.lhc.new_operator("bob", password)
    address = str(system.endpoints["c2s_host"]), int(system.endpoints["c2s_port"])
    async with LightClient(bob, tenant.host, password, address) as frozen_client:
        await tenant.receiver.status(tenant.connect_body("bob"))
        frozen_client.stop_reading()
        await api.chat("5")
        await api.write("5", "are you there?", message_id="line-0001")

        async def is_sent() -> bool:
            return await state_of(api, "line-0001") == "sent"

        await until_async(is_sent, "the line is sent")
        await system.kill("ejabberd", signal.SIGKILL)
        await system.ready()
    again = await tenant.online("bob")
    await api.write("5", "still there?")
    await again.reads("still there?")
    await again.taken()
    if "are you there?" not in [message.body for message in again.messages]:
        assert await state_of(api, "line-0001") == "sent"
        async with domain_of(system) as services, services.database.write() as session:
            mine = ChatLine.instance_name == tenant.name
            await session.execute(update(ChatLine).where(mine).values(created_at=ChatLine.created_at - 301))
        assert await state_of(api, "line-0001") == "unconfirmed"


async def state_of(api: TenantApi, line: str) -> str:
    """The state that the tenant is shown of one of the chat's lines."""
    found = (await api.http.get("/chats/5/messages")).json()["messages"]
    return next(str(one["state"]) for one in found if one["message_id"] == line)

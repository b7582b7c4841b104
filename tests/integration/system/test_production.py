"""The same conversation on the servers of production: RabbitMQ's quorum queues and PostgreSQL, and their restarts."""

import asyncio
from functools import partial
from pathlib import Path

import pytest
from amqp.exceptions import MessageNacked
from kombu import Connection, Producer, Queue

from bench.testbed.system import System
from bench.testbed.waiting import until, until_async
from config.broker import TRANSPORT_OPTIONS
from tests.world.chats import ACCEPTED
from tests.world.frozen import frozen
from tests.world.rooms import address, groupchat, is_told, make_room, present, rooms_in_ejabberd, said
from tests.world.tenant import Tenant
from tests.world.tenant_api import api_of

PASSWORD = "0123456789abcdef0123"


async def converse(tenant: Tenant, number: int) -> None:
    """A visitor comes, and both write."""
    lhc, local = tenant.lhc, f"op{number}"
    operator = await tenant.operator_online(local)
    visitor = f"visitor.{number}"
    await lhc.new_visitor(visitor, PASSWORD, status="start page")
    await operator.sees(lhc.name(visitor), status="start page")
    assert (await lhc.page_view(visitor, PASSWORD, status="the cart")).text == "ok"
    await operator.sees(lhc.name(visitor), status="the cart")
    assert (await lhc.visitor_writes(visitor, PASSWORD, local, "hello")).text == "ok"
    await operator.reads("hello")
    operator.write(lhc.name(visitor), f"good day {number} {tenant.name}")
    callback = await tenant.receiver.message(f"good day {number} {tenant.name}", seconds=30)
    assert callback.host == tenant.callback_host
    await operator.leave()


async def test_a_tenants_whole_life(production_tenant: Tenant) -> None:
    tenant = production_tenant
    await converse(tenant, 1)
    operation = await tenant.panel.destroy(tenant.name)
    assert operation["state"] == "succeeded"
    assert await tenant.system.users_of(tenant.name) == []


async def test_a_chats_whole_life(production_tenant: Tenant) -> None:
    """The rules of a chat, as far as they depend on the database and the broker."""
    tenant = production_tenant
    await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json={"routing": "orchestrator", "history_hours": 1})
    async with api_of(tenant) as api:
        bob, eve = await api.operator("bob"), await api.operator("eve")
        visitor = (await api.chat("5", message="hello?"))["username"]
        await asyncio.gather(bob.reads("hello?"), eve.reads("hello?"))
        bob.write(visitor, "yes?")
        await tenant.receiver.message("yes?")
        await eve.reads(ACCEPTED.format("bob"))
        assert (await api.http.put("/chats/5/owner", json={"operator": "eve"})).json()["owner"] == "eve"
        await bob.reads(ACCEPTED.format("eve"))
        first = await api.write("5", "thank you", message_id="line-0001")
        assert (await api.write("5", "thank you", message_id="line-0001"))["id"] == first["id"]
        await eve.reads("thank you")
        said = (await api.http.get("/chats/5/messages")).json()["messages"]
        assert [line["body"] for line in said] == ["hello?", "yes?", "thank you"]
        assert (await api.http.delete("/chats/5")).status_code == 204
        await eve.sees(visitor, kind="unavailable")
        assert (await api.http.post("/chats/5/messages", json={"message": "too late"})).status_code == 409


async def test_a_group_chat(production_tenant: Tenant) -> None:
    tenant = production_tenant
    bob = await tenant.operator_online("bob")
    rpc = await make_room(tenant)
    await bob.join(address(tenant), "Bob")
    for number in range(5):
        await rpc.call("send_message", groupchat("John.Doe.operator", f"question {number}"))
        bob.write(address(tenant), f"answer {number}", kind="groupchat")
    await bob.hears(address(tenant), "question 4")
    await is_told(
        tenant, present(tenant, "bob", "available"), *(said(tenant, "bob", f"answer {number}") for number in range(5))
    )
    await tenant.panel.destroy(tenant.name)
    assert await rooms_in_ejabberd(tenant) == []


@pytest.mark.parametrize("server", ["rabbitmq", "postgresql", "epmd"])
async def test_everything_goes_on_after_a_server_was_killed(production_tenant: Tenant, server: str) -> None:
    tenant, system = production_tenant, production_tenant.system
    await converse(tenant, 1)
    ours = {name: pid for name, pid in system.pids().items() if name in {"api", "worker", "beat", *system.pools()}}
    await system.kill(server)
    await system.ready(90)
    await converse(tenant, 2)
    # by themselves: nobody had to be started again
    assert ours.items() <= system.pids().items()


async def test_what_rabbitmq_accepted_survives_its_end(production: System) -> None:
    await production.ready(90)
    queue = Queue("kept", durable=True, queue_arguments={"x-queue-type": "quorum"})
    url = production.endpoints["broker_url"]
    with Connection(url, transport_options=TRANSPORT_OPTIONS) as connection:
        queue(connection.default_channel).declare()
        # a new queue's name is on disk half a second later, without which nothing in it is found again (ra 443)
        names = production.state / "rabbitmq/mnesia/rabbit@localhost/quorum/rabbit@localhost/names.dets"
        await until(lambda: b"kept" in names.read_bytes(), "the queue's name is on disk")
        producer = connection.Producer()
        for number in range(200):
            producer.publish({"number": number}, routing_key="kept", delivery_mode="persistent")
        await production.kill("rabbitmq")
        connection.collect()
    await production.ready(90)
    with Connection(url, transport_options=TRANSPORT_OPTIONS) as connection:
        kept = queue(connection.default_channel)
        assert [message.payload["number"] for message in iter(kept.get, None)] == list(range(200))
        kept.delete()


async def test_what_comes_back_again_and_again_is_not_dropped(production: System) -> None:
    """A worker that dies gives back what it had; RabbitMQ 4 by itself drops that after twenty times."""
    await production.ready(90)
    queue = Queue("returned", durable=True, queue_arguments={"x-queue-type": "quorum"})
    with Connection(production.endpoints["broker_url"], transport_options=TRANSPORT_OPTIONS) as connection:
        queue(connection.default_channel).declare()
        await until(partial(_takes, connection.Producer(), "returned"), "the new queue takes a message")
        for number in range(30):
            with connection.channel() as channel:
                await until(partial(_is_in, queue(channel)), f"it is there after {number} times")
        queue(connection.default_channel).delete()


def _takes(producer: Producer, queue: str) -> bool:
    """Whether the broker has the message; a queue that was made this moment may refuse it."""
    try:
        producer.publish({"number": 1}, routing_key=queue, delivery_mode="persistent")
    except MessageNacked:
        return False
    return True


def _is_in(queue: Queue) -> bool:
    """Whether there is something in the queue: it is taken, and comes back with the end of the channel."""
    return queue.get() is not None


@pytest.mark.parametrize(("server", "part"), [("rabbitmq", "broker"), ("postgresql", "database")])
async def test_readiness_names_a_server_that_does_not_answer(production: System, server: str, part: str) -> None:
    """Not away but stopped: its socket takes connections, and nothing ever comes back."""
    await production.ready()
    pids = children(production.pid(server))
    async with frozen(*pids):

        async def named() -> bool:
            parts = await asyncio.wait_for(production.readiness(), 10)
            return parts.get(part, "ok") != "ok"

        await until_async(named, f"{part} is named as missing", 20)
    await production.ready(90)


def children(pid: int) -> list[int]:
    """The process and all that it started."""
    found = [pid]
    for parent in found:
        for listing in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, listing.read_text().split())
    return found

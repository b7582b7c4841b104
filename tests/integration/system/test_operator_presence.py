"""Operator presence for LHC: connect with the first connection, disconnect with the last, ping at the interval."""

import pytest

from bench.testbed.waiting import until, until_async
from tests.world.chats import read_by
from tests.world.settings import PING_SECONDS
from tests.world.tenant import Tenant
from tests.world.tenant_api import OPERATOR_PASSWORD, TenantApi


async def test_connect_with_the_first_and_disconnect_with_the_last_connection(tenant: Tenant) -> None:
    receiver, connect = tenant.receiver, tenant.connect_body("bob")
    disconnect = tenant.connect_body("bob", "disconnect")
    desk = await tenant.operator_online("bob", resource="desk")
    phone = await tenant.online("bob", resource="phone")
    desk.set_presence(status="at the desk")
    # the phone's ping shows that its login was handled
    await receiver.status(f'{{"action":"ping","user":"{tenant.lhc.name("bob")}@{tenant.host}/phone"}}')
    await desk.leave()
    await tenant.lhc.new_visitor("visitor.1", "0123456789abcdef0123")
    await phone.sees(tenant.lhc.name("visitor.1"))
    assert len(receiver.statuses(connect)) == 1
    assert receiver.statuses(disconnect) == []
    await phone.leave()
    callback = await receiver.status(disconnect)
    assert callback.content_type == "application/json"
    assert callback.host == tenant.callback_host
    again = await tenant.online("bob")
    await receiver.status(connect, count=2)
    await again.leave()
    await receiver.status(disconnect, count=2)


async def test_connect_again_with_each_return(tenant: Tenant) -> None:
    """LHC shows again who has hidden there when it is told `connect`; the old server told that with each presence."""
    bob = await tenant.operator_online()
    for count, show in enumerate(("away", "xa", "dnd"), start=2):
        bob.set_presence(show)
        bob.set_presence("chat" if show == "xa" else None)
        await tenant.receiver.status(tenant.connect_body("bob"), count=count)
    for status in ("here", "still here"):
        bob.set_presence(status=status)
    bob.set_presence(available=False)
    await tenant.receiver.status(tenant.connect_body("bob", "disconnect"))
    assert len(tenant.receiver.statuses(tenant.connect_body("bob"))) == 4


async def test_disconnect_when_the_tcp_connection_is_cut(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    bob.cut()
    await tenant.receiver.status(tenant.connect_body("bob", "disconnect"))


async def test_disconnect_when_the_operator_becomes_unavailable(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    bob.set_presence(available=False)
    await tenant.receiver.status(tenant.connect_body("bob", "disconnect"))
    bob.set_presence()
    await tenant.receiver.status(tenant.connect_body("bob"), count=2)


async def test_ping_at_the_interval(tenant: Tenant) -> None:
    await tenant.operator_online()
    ping = f'{{"action":"ping","user":"{tenant.lhc.name("bob")}@{tenant.host}/desk"}}'
    first = await tenant.receiver.status(ping, count=1)
    third = await tenant.receiver.status(ping, count=3)
    assert 1.5 * PING_SECONDS <= third.at - first.at <= 4 * PING_SECONDS


async def test_an_operator_who_does_not_answer_is_disconnected(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    bob.stop_answering()
    await tenant.receiver.status(tenant.connect_body("bob", "disconnect"))
    sessions = await tenant.system.ejabberd("connected_users_info")
    assert tenant.lhc.name("bob") not in {session["jid"].partition("@")[0] for session in sessions}


async def test_only_registered_operators_count(tenant: Tenant) -> None:
    """An account that somebody made in ejabberd itself is nobody's operator."""
    stranger = tenant.lhc.name("stranger")
    await tenant.system.ejabberd("register", user=stranger, host=tenant.host, password="operator-pw")
    client = await tenant.online("stranger")
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", "0123456789abcdef0123")
    await bob.sees(tenant.lhc.name("visitor.1"))
    message_id = client.write(tenant.lhc.name("visitor.1"), f"psst {tenant.name}")
    refused = await until(lambda: next((m for m in client.messages if m.id == message_id), None), "refused")
    assert refused.error == "forbidden"
    assert client.latest(tenant.lhc.name("visitor.1")) is None
    assert tenant.receiver.statuses(tenant.connect_body("stranger")) == []


HIDDEN = {
    "bound without presence": "",
    "invisible": "<presence/><presence type='unavailable'/>",
    "visible to one visitor": "<presence to='{visitor}'/>",
    "a priority below zero": "<presence><priority>-1</priority></presence>",
    "of a priority below zero by and by": "<presence/><presence><priority>-7</priority><show>away</show></presence>",
}


async def _is_online(api: TenantApi, username: str, *resources: str) -> bool:
    view = (await api.http.get(f"/operators/{username}")).json()
    return view["online"] and sorted(one["resource"] for one in view["connections"]) == sorted(resources)


@pytest.mark.parametrize("presence", HIDDEN.values(), ids=HIDDEN)
async def test_who_cannot_be_reached_is_not_online_and_is_offered_nothing(api: TenantApi, presence: str) -> None:
    tenant = api.tenant
    made = await api.http.put("/operators/bob", json={"password": OPERATOR_PASSWORD})
    assert made.status_code == 201
    visitor = tenant.lhc.name("visitor.5.chat")
    bob = tenant.operator("bob")
    await bob.connect(available=False)
    try:
        bob.send_raw(presence.format(visitor=f"{visitor}@{tenant.host}"))
        await bob.taken()
        # when she is known to be online, what was said before it is known, too
        await api.operator("eve", receives_new_chats=False)
        view = (await api.http.get("/operators/bob")).json()
        assert (view["online"], view["connections"]) == (False, [])
        await api.chat("5", message="hello?")
        assert (await api.write("5", "anybody?"))["state"] == "waiting"
        assert read_by(bob) == []
        bob.send_raw("<presence><priority>0</priority></presence>")
        await bob.reads("anybody?")
        assert await _is_online(api, "bob", "desk")
        assert read_by(bob) == ["hello?", "anybody?"]
    finally:
        await bob.leave()


async def test_of_several_devices_one_that_can_be_reached_is_enough(api: TenantApi) -> None:
    tenant = api.tenant
    receiver, disconnect = tenant.receiver, tenant.connect_body("bob", "disconnect")
    desk = await api.operator("bob")
    phone = await tenant.online("bob", resource="phone")
    await until_async(lambda: _is_online(api, "bob", "desk", "phone"), "both are there")
    phone.send_raw("<presence><priority>-1</priority></presence>")
    await until_async(lambda: _is_online(api, "bob", "desk"), "one can be reached")
    await api.chat("5", message="hello?")
    await desk.reads("hello?")
    visitor = tenant.lhc.name("visitor.5.chat")
    desk.write(visitor, "yes?")
    await receiver.message("yes?")
    assert receiver.statuses(disconnect) == []
    desk.send_raw("<presence><priority>-1</priority></presence>")
    await receiver.status(disconnect)
    # both see who is there all the same, and what is written waits
    await api.http.patch("/chats/5", json={"nick": "John Doe"})
    for device in (desk, phone):
        await device.sees(visitor, nick="John Doe")
    await api.write("5", "are you there?")
    assert "are you there?" not in read_by(desk) + read_by(phone)
    phone.send_raw("<presence><priority>3</priority></presence>")
    await receiver.status(tenant.connect_body("bob"), count=2)
    await phone.reads("are you there?")
    assert "are you there?" not in read_by(desk)

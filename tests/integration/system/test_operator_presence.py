"""Operator presence for LHC: connect with the first connection, disconnect with the last, ping at the interval."""

from bench.testbed.waiting import until
from tests.world.settings import PING_SECONDS
from tests.world.tenant import Tenant


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

"""Group chats of operators: made by LHC's XML-RPC, used by operators' clients, told to LHC."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from slixmpp.exceptions import IqError
from sqlalchemy import select, update

from bench.testbed.chat_server import ChatServer
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import domain_of, start_system
from bench.testbed.waiting import until, until_async
from orchestrator.api.lhc import rpc_rooms
from orchestrator.client import ApiError, TenantClient
from tenants.core.naming import STANDALONE_INSTANCE
from tenants.store.models import ROOMS_BY_DEFAULT, Room, RoomOrigin, RoomState
from tests.world.rooms import (
    HOST,
    NAME,
    SERVICE,
    address,
    form,
    groupchat,
    is_told,
    make_room,
    present,
    rooms_in_ejabberd,
    said,
    told,
)
from tests.world.rpc import (
    SPEAKS_AS_THE_EXTENSION,
    Encode,
    Rpc,
    as_recorded,
    fault_in,
    library_request,
    php_request,
    recorded,
    shape,
)
from tests.world.tenant import NewTenant, Tenant, rpc_of
from tests.world.tenant_api import TenantApi
from xmpp_pool.stanzas import BRIDGE_NS


@pytest.mark.parametrize("encode", [library_request, php_request], ids=["library", "PHP"])
async def test_a_group_chat_from_its_making_to_its_end(tenant: Tenant, encode: Encode) -> None:
    bob = await tenant.operator_online("bob")
    rpc = rpc_of(tenant, encode)
    assert await rpc.call("muc_online_rooms", {"host": SERVICE}) == {"rooms": []}
    await make_room(tenant, encode=encode)
    assert await rpc.call("muc_online_rooms", {"host": SERVICE}) == {"rooms": [{"room": f"{NAME}@{SERVICE}"}]}
    users = f"{tenant.lhc.name('bob')}@{HOST}"
    invitation = {"name": NAME, "service": SERVICE, "password": "", "reason": "Group <chat>", "users": users}
    assert await rpc.call("send_direct_invitation", invitation) == {"res": 0}
    assert await bob.invited() == (address(tenant), "Group <chat>")
    await bob.join(address(tenant), "Bob")
    assert await rpc.call("send_message", groupchat("John.Doe.operator", "Hello from the page & more")) == {"res": 0}
    heard = await bob.hears(address(tenant), "Hello from the page & more")
    assert heard.nick == "John Doe"
    bob.write(address(tenant), "Hello ~ä €", kind="groupchat")
    expected = [present(tenant, "bob", "available"), said(tenant, "bob", "Hello ~ä €")]
    await is_told(tenant, *expected)
    assert await rpc.call("destroy_room", {"name": NAME, "service": SERVICE}) == {"res": 0}
    assert await rpc.call("muc_online_rooms", {"host": SERVICE}) == {"rooms": []}
    await bob.sees(f"{NAME}.{tenant.name}", kind="unavailable")


async def test_making_a_room_twice_at_once_makes_one(tenant: Tenant) -> None:
    arguments = {"name": NAME, "service": SERVICE, "host": HOST}
    answers = await asyncio.gather(*(rpc_of(tenant).answer("create_room", arguments) for _ in range(5)))
    assert any(b"<fault>" not in answer for answer in answers)
    assert await rpc_of(tenant).call("muc_online_rooms", {"host": SERVICE}) == {
        "rooms": [{"room": f"{NAME}@{SERVICE}"}]
    }
    bob = await tenant.operator_online("bob")
    await tenant.lhc.new_operator("ann", "operator-pw")
    ann = await tenant.online("ann")
    for one, nick in ((bob, "Bob"), (ann, "Ann")):
        await one.join(address(tenant), nick)
    # in one and the same room
    bob.write(address(tenant), "hello Ann", kind="groupchat")
    await ann.hears(address(tenant), "hello Ann")


async def test_a_name_that_another_bears_is_told_apart_and_is_free_afterwards(tenant: Tenant) -> None:
    bob = await tenant.operator_online("bob")
    rpc = await make_room(tenant)
    await bob.join(address(tenant), "John Doe")
    # "John Doe" as LHC knows him is not bob
    await rpc.call("send_message", groupchat("John.Doe.operator", "from the page"))
    assert (await bob.hears(address(tenant), "from the page")).nick == "John Doe (2)"
    bob.leave_room(address(tenant), "John Doe")
    await bob.sees(f"{NAME}.{tenant.name}", kind="unavailable")
    await bob.join(address(tenant), "Bob")
    await rpc.call("send_message", groupchat("John.Doe.operator", "again from the page"))
    assert (await bob.hears(address(tenant), "again from the page")).nick == "John Doe"
    bob.leave_room(address(tenant), "Bob")
    await bob.join(address(tenant), "John Doe")


@pytest.mark.parametrize(
    ("sender", "nick"),
    [
        ("Mary.Ann.Smith.operator", "Mary Ann Smith"),
        ("jean-luc.operator", "jean-luc"),
        ("Jörg.Großmann.operator", "Jörg Großmann"),
        ("JOHN.DOE.OPERATOR", "John Doe"),
    ],
)
async def test_who_writes_in_the_page_is_shown_by_name(tenant: Tenant, sender: str, nick: str) -> None:
    """That of the subscription, or what is in the address."""
    bob = await tenant.operator_online("bob")
    rpc = await make_room(tenant)
    await bob.join(address(tenant), "Bob")
    await rpc.call("send_message", groupchat(sender, "hello"))
    assert (await bob.hears(address(tenant), "hello")).nick == nick


async def test_messages_from_the_page_are_not_told_to_lhc_and_keep_their_order(tenant: Tenant) -> None:
    bob = await tenant.operator_online("bob")
    rpc = await make_room(tenant)
    await bob.join(address(tenant), "Bob")
    bodies = [f"line {number}" for number in range(20)]
    for body in bodies:
        await rpc.call("send_message", groupchat("John.Doe.operator", body))
    await bob.hears(address(tenant), bodies[-1])
    assert [one.body for one in bob.messages if one.type == "groupchat" and one.body] == bodies
    bob.write(address(tenant), "mine", kind="groupchat")
    await is_told(tenant, present(tenant, "bob", "available"), said(tenant, "bob", "mine"))


async def test_a_room_without_anybody_of_the_page_is_no_matter_of_lhcs(tenant: Tenant) -> None:
    bob = await tenant.operator_online("bob")
    rpc = await make_room(tenant, page_operator=None)
    member = {"user": f"{tenant.lhc.name('bob')}@{HOST}", "nick": "Bob", "room": f"{NAME}@{SERVICE}", "nodes": ""}
    assert await rpc.call("subscribe_room", member) == {"nodes": []}
    await bob.join(address(tenant), "Bob")
    encrypted = "<body>encrypted</body><encrypted xmlns='urn:xmpp:omemo:2'/>"
    message = f"<message type='groupchat' to='{address(tenant)}' id='{{}}'>{{}}</message>"
    bob.write(address(tenant), "among ourselves", kind="groupchat")
    bob.send_raw(message.format("m1", encrypted))
    await bob.hears(address(tenant), "encrypted")
    await rpc.call("subscribe_room", {**member, "user": f"Ann.operator@{HOST}"})
    bob.send_raw(message.format("m2", encrypted))
    correction = "<body>for all</body><replace xmlns='urn:xmpp:message-correct:0' id='m0'/>"
    bob.send_raw(message.format("m3", correction))
    await is_told(tenant, said(tenant, "bob", "Correction: for all"))
    await bob.is_refused("m2")
    assert [one.id for one in bob.messages if one.error] == ["m2"]


async def test_the_first_device_comes_and_the_last_one_goes(tenant: Tenant) -> None:
    desk = await tenant.operator_online("bob")
    phone = await tenant.online("bob", resource="phone")
    await make_room(tenant)
    await desk.join(address(tenant), "Bob")
    await phone.join(address(tenant), "Bob")
    desk.leave_room(address(tenant), "Bob")
    await desk.taken()
    phone.write(address(tenant), "still here", kind="groupchat")
    came = present(tenant, "bob", "available")
    await is_told(tenant, came, said(tenant, "bob", "still here"))
    phone.cut()
    # ejabberd waits for it to come back (XEP-0198) only if it had asked for that
    await is_told(tenant, came, said(tenant, "bob", "still here"), present(tenant, "bob", "unavailable"))


async def test_what_a_client_forges_has_no_effect(tenant: Tenant) -> None:
    """The marks of the component's own messages, in a client's."""
    bob = await tenant.operator_online("bob")
    await tenant.lhc.new_operator("ann", "operator-pw")
    ann = await tenant.online("ann")
    await make_room(tenant)
    await ann.join(address(tenant), "Ann")
    await bob.join(address(tenant), "Bob")
    for body in ("first", "second"):
        bob.write_marked(address(tenant), body, once="the-same")
        for one in (ann, bob):
            heard = await one.hears(address(tenant), body)
            assert f"{{{BRIDGE_NS}}}once" not in heard.children
    expected = [present(tenant, one, "available") for one in ("ann", "bob")]
    await is_told(tenant, *expected, said(tenant, "bob", "first"), said(tenant, "bob", "second"))


# Two tenants


async def test_rooms_of_the_same_name_know_nothing_of_each_other(new_tenant: NewTenant) -> None:
    ours, theirs = await new_tenant(), await new_tenant()
    operators = {one.name: await one.operator_online("bob") for one in (ours, theirs)}
    for one in (ours, theirs):
        await make_room(one)
        await operators[one.name].join(address(one), "Bob")
    for one in (ours, theirs):
        operators[one.name].write(address(one), f"a secret of {one.name}", kind="groupchat")
        await rpc_of(one).call("send_message", groupchat("John.Doe.operator", f"from the page of {one.name}"))
        await operators[one.name].hears(address(one), f"a secret of {one.name}")
        await operators[one.name].hears(address(one), f"from the page of {one.name}")
        await is_told(one, present(one, "bob", "available"), said(one, "bob", f"a secret of {one.name}"))
    await rpc_of(ours).call("destroy_room", {"name": NAME, "service": SERVICE})
    assert await rpc_of(theirs).call("muc_online_rooms", {"host": SERVICE}) == {
        "rooms": [{"room": f"{NAME}@{SERVICE}"}]
    }
    operators[theirs.name].write(address(theirs), "still there", kind="groupchat")
    await operators[theirs.name].hears(address(theirs), "still there")
    for one, other in ((ours, theirs), (theirs, ours)):
        assert not [seen for seen in operators[one.name].messages if other.name in seen.body]


@pytest.mark.parametrize("who", ["an operator of another tenant", "a visitor", "no operator any more"])
async def test_nobody_else_gets_into_a_room_or_hears_of_it(new_tenant: NewTenant, who: str) -> None:
    ours, theirs = await new_tenant(), await new_tenant()
    bob = await ours.operator_online("bob")
    await make_room(ours)
    await bob.join(address(ours), "Bob")
    if who == "a visitor":
        assert (await ours.lhc.new_visitor("visitor.1", "0123456789abcdef0123")).json()["error"] is False
        eve = ours.operator("visitor.1", password="0123456789abcdef0123")
        await eve.connect()
    elif who == "no operator any more":
        eve = await ours.operator_online("eve")
        group = {"group": f"operators.{ours.name}", "grouphost": HOST}
        await rpc_of(ours).call("srg_user_del", {"user": ours.lhc.name("eve"), "host": HOST, **group})
    else:
        eve = await theirs.operator_online("eve")
    with pytest.raises(PermissionError, match="forbidden"):
        await eve.join(address(ours), "Bob")
    with pytest.raises(PermissionError, match="forbidden"):
        await eve.join(address(ours, "no-such-room"), "Bob")
    for kind in ("groupchat", "chat"):
        to = address(ours) if kind == "groupchat" else f"{address(ours)}/Bob"
        refused = eve.write(to, f"psst {kind}", kind=kind)
        await eve.is_refused(refused)
    for to in (address(ours), f"{address(ours)}/Bob"):
        with pytest.raises(IqError) as error:
            await eve.items_of(to)
        assert error.value.condition == "forbidden"
    if who == "a visitor":
        # a visitor reaches operators alone
        with pytest.raises(IqError, match="forbidden"):
            await eve.items_of(SERVICE)
        await eve.leave()
    else:
        assert await eve.items_of(SERVICE) == {}
    bob.write(address(ours), "nobody but us", kind="groupchat")
    await bob.hears(address(ours), "nobody but us")
    assert not [seen for seen in bob.messages if "psst" in seen.body]
    assert not [seen for seen in eve.messages if seen.type != "error"]
    await is_told(ours, present(ours, "bob", "available"), said(ours, "bob", "nobody but us"))
    assert told(theirs) == []


async def test_operators_find_the_rooms_of_their_tenant(new_tenant: NewTenant) -> None:
    ours, theirs = await new_tenant(), await new_tenant()
    for name in ("jd,br", "all.of.us"):
        await make_room(ours, name)
    await make_room(theirs)
    bob = await ours.operator_online("bob")
    assert await bob.items_of(SERVICE) == {address(ours, name): name for name in ("all.of.us", "jd,br")}


async def test_no_client_makes_a_room_or_speaks_to_the_service(tenant: Tenant) -> None:
    bob = await tenant.operator_online("bob")
    with pytest.raises(PermissionError, match="forbidden"):
        await bob.join(address(tenant, "my-own"), "Bob")
    for element in ("{jabber:iq:register}query", "{urn:xmpp:mucsub:0}subscriptions"):
        with pytest.raises(IqError) as error:
            await bob.ask(SERVICE, element)
        assert error.value.condition == "forbidden"
    with pytest.raises(PermissionError, match="forbidden"):
        await bob.join(SERVICE, "Bob")
    assert await tenant.system.ejabberd("lhc_rooms", host=HOST, suffix=f".{tenant.name}", after="", limit=10) == []


async def test_a_name_that_looks_like_another_tenants_room_is_ones_own(new_tenant: NewTenant) -> None:
    ours, theirs = await new_tenant(), await new_tenant()
    await make_room(theirs)
    name = f"{NAME}.{theirs.name}"
    await make_room(ours, name)
    bob = await ours.operator_online("bob")
    await bob.join(address(ours, name), "Bob")
    bob.write(address(ours, name), "mine", kind="groupchat")
    await is_told(ours, present(ours, "bob", "available", name), said(ours, "bob", "mine", name))
    with pytest.raises(PermissionError, match="forbidden"):
        await bob.join(address(theirs), "Bob")
    assert told(theirs) == []


async def test_foreign_people_and_places_are_refused(new_tenant: NewTenant) -> None:
    ours, theirs = await new_tenant(), await new_tenant()
    await theirs.lhc.new_operator("eve", "operator-pw")
    rpc = await make_room(ours)
    eve = f"{theirs.lhc.name('eve')}@{HOST}"
    member = {"user": eve, "nick": "Eve", "room": f"{NAME}@{SERVICE}", "nodes": ""}
    invitation = {"name": NAME, "service": SERVICE, "password": "", "reason": "come", "users": eve}
    elsewhere = "conference.xmpp.example"
    for method, arguments, argument in (
        ("subscribe_room", member, "user"),
        ("subscribe_room", {**member, "user": "ann.operator@xmpp.example"}, "user"),
        ("subscribe_room", {**member, "user": f"Ann.operator@{HOST}", "room": f"{NAME}@{elsewhere}"}, "room"),
        ("send_direct_invitation", invitation, "users"),
        ("send_direct_invitation", {**invitation, "users": "", "service": elsewhere}, "service"),
        ("send_message", {**groupchat("x", "hi"), "from": eve}, "from"),
        ("send_message", {**groupchat("Ann.operator", "hi"), "to": f"{NAME}@{elsewhere}"}, "to"),
        ("create_room", {"name": "x", "service": elsewhere, "host": HOST}, "service"),
        ("create_room", {"name": "x", "service": SERVICE, "host": "xmpp.example"}, "host"),
        ("destroy_room", {"name": NAME, "service": elsewhere}, "service"),
        ("muc_online_rooms", {"host": elsewhere}, "host"),
    ):
        code, text = await rpc.fault(method, arguments)
        assert (code, text.partition(": ")[0]) == (-118, f"Error -118\n{argument}"), text
    entries = (await ours.panel.http.get(f"/v1/tenants/{ours.name}/audit", params={"limit": 500})).json()["entries"]
    refused = {entry["reason"].partition(":")[0] for entry in entries if entry["action"] == "rpc.refused"}
    assert refused == {*rpc_rooms.HANDLERS, "send_message"} - {"change_room_option"}
    async with theirs.operator("eve") as client:
        await client.taken()
        assert client.messages == []


# The calls


async def test_the_hosting_wide_credentials_need_a_tenants_address(tenant: Tenant) -> None:
    hosting = Rpc.hosting(tenant.system)
    arguments = {"name": NAME, "service": SERVICE, "host": HOST}
    room = {"name": NAME, "service": SERVICE}
    for method, asked in (
        ("muc_online_rooms", {"host": SERVICE}),
        ("create_room", arguments),
        ("change_room_option", {**room, "option": "allow_subscription", "value": "true"}),
        ("subscribe_room", {"user": f"John.operator@{HOST}", "nick": "J", "room": f"{NAME}@{SERVICE}", "nodes": ""}),
        ("send_direct_invitation", {**room, "password": "", "reason": "", "users": f"{tenant.lhc.name('bob')}@{HOST}"}),
        ("send_message", groupchat("John.operator", "hello")),
        ("destroy_room", room),
    ):
        code, text = await hosting.fault(method, asked)
        assert (code, "let rpc_server end in /t/INSTANCE/rpc" in text) == (-118, True), (method, text)
    at_tenant = Rpc(f"{tenant.lhc_url}/rpc", hosting.credentials["user"], HOST, hosting.credentials["password"])
    assert await at_tenant.call("create_room", arguments) == {"res": 0}
    assert await rpc_of(tenant).call("muc_online_rooms", {"host": SERVICE}) == {
        "rooms": [{"room": f"{NAME}@{SERVICE}"}]
    }


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("JD,BR", "jd,br"),
        ("Straße", "strasse"),
        ("žąsis", "žąsis"),
        ("Ⅷ", "viii"),
        ("a.b..c", "a.b..c"),
        ("chat", "chat"),
    ],
)
async def test_names_are_folded_as_ejabberd_folds_them(tenant: Tenant, name: str, kept: str) -> None:
    rpc = await make_room(tenant, name)
    assert await rpc.call("muc_online_rooms", {"host": SERVICE}) == {"rooms": [{"room": f"{kept}@{SERVICE}"}]}
    there = await tenant.system.ejabberd("lhc_rooms", host=HOST, suffix=f".{tenant.name}", after="", limit=10)
    assert there == [f"{kept}.{tenant.name}"]
    bob = await tenant.operator_online("bob")
    await bob.join(address(tenant, kept), "Bob")
    await is_told(tenant, present(tenant, "bob", "available", kept))
    await rpc.call("destroy_room", {"name": name, "service": SERVICE})


def room_calls(bob: str) -> list[tuple[str, dict[str, str]]]:
    """Calls about rooms, of which some are wrong; `bob` is the address of an account."""
    room, at = {"name": NAME, "service": SERVICE}, f"{NAME}@{SERVICE}"
    member = {"user": f"Ann.operator@{HOST}", "nick": "Ann", "room": at, "nodes": ""}
    option = {**room, "option": "allow_subscription", "value": "true"}
    return [
        ("muc_online_rooms", {"host": SERVICE}),
        ("destroy_room", room),
        ("change_room_option", option),
        ("subscribe_room", member),
        ("create_room", {**room, "host": HOST}),
        ("create_room", {**room, "host": HOST}),
        ("muc_online_rooms", {"host": SERVICE}),
        ("change_room_option", option),
        ("subscribe_room", member),
        ("subscribe_room", {**member, "nick": "Annie"}),
        ("send_direct_invitation", {**room, "password": "", "reason": "come", "users": bob}),
        ("send_message", groupchat("Ann.operator", "hi")),
        ("send_message", groupchat("Ann.operator", "hi", "no-such-room")),
        ("create_room", room),
        ("create_room", {**room, "host": HOST, "user": "x"}),
        ("destroy_room", room),
        ("destroy_room", room),
        ("muc_online_rooms", {"host": SERVICE}),
    ]


async def room_answers(rpc: Rpc, bob: str) -> list[Any]:
    """Of each call the shape of its answer, and what a refusal says."""
    answers = []
    for method, arguments in room_calls(bob):
        answer = await rpc.answer(method, arguments)
        words = fault_in(answer)[1].partition("\n")[2] if b"<fault>" in answer else ""
        answers.append((method, shape(answer), words))
        if method == "destroy_room":
            # ejabberd answers before the room has ended, and would find it once more
            await until_async(partial(_has_no_room, rpc), "the room has ended")
    return as_recorded(answers)


async def test_calls_are_answered_as_by_ejabberd_itself(tenant: Tenant) -> None:
    await tenant.lhc.new_operator("bob", "operator-pw")
    answers = await room_answers(rpc_of(tenant), f"{tenant.lhc.name('bob')}@{HOST}")
    for (method, answered, words), (_, expected, in_full) in zip(answers, recorded("rooms"), strict=True):
        assert answered == expected, method
        # ejabberd says it with the arguments around it
        assert words in in_full or answered != ["fault", -118], method


@pytest.mark.skipif(not SPEAKS_AS_THE_EXTENSION, reason="this ejabberd's own XML-RPC is another one")
async def test_what_was_recorded_is_what_ejabberd_answers(tmp_path: Path) -> None:
    server = ChatServer(tmp_path, {}, xml_rpc=True)
    try:
        await server.start()
        for user in ("admin", "bob"):
            await server.command("register", user=user, host=HOST, password="admin-pw")
        assert await room_answers(Rpc(server.rpc_url, "admin", HOST, "admin-pw"), f"bob@{HOST}") == recorded("rooms")
    finally:
        await server.kill()


async def _has_no_room(rpc: Rpc) -> bool:
    told = await rpc.call("muc_online_rooms", {"host": SERVICE})
    return bool(told == {"rooms": []})


async def test_an_invitation_waits_for_who_is_offline(tenant: Tenant) -> None:
    bob = await tenant.operator_online("bob")
    await tenant.lhc.new_operator("ann", "operator-pw")
    rpc = await make_room(tenant)
    users = ":".join(f"{tenant.lhc.name(who)}@{HOST}" for who in ("bob", "ann"))
    arguments = {"name": NAME, "service": SERVICE, "password": "", "reason": "lunch?", "users": users}
    assert await rpc.call("send_direct_invitation", arguments) == {"res": 0}
    assert await bob.invited() == (address(tenant), "lunch?")
    ann = await tenant.online("ann")
    assert await ann.invited() == (address(tenant), "lunch?")


async def test_a_suspended_tenants_rooms_are_silent(tenant: Tenant) -> None:
    bob = await tenant.operator_online("bob")
    rpc = await make_room(tenant)
    await bob.join(address(tenant), "Bob")
    await is_told(tenant, present(tenant, "bob", "available"))
    suspended = await tenant.panel.http.post(f"/v1/tenants/{tenant.name}/suspend")
    await tenant.panel.finished(suspended.json()["id"])
    await until(bob.disconnected.is_set, "the operator is disconnected")
    code, text = await rpc.fault("send_message", groupchat("John.Doe.operator", "hello"))
    assert (code, "is suspended" in text) == (-118, True)
    assert (await rpc.fault("create_room", {"name": "x", "service": SERVICE, "host": HOST}))[0] == -118
    assert len(told(tenant)) == 1
    assert await rpc.call("destroy_room", {"name": NAME, "service": SERVICE}) == {"res": 0}


async def test_a_tenant_has_a_bounded_number_of_rooms(tenant: Tenant) -> None:
    async with domain_of(tenant.system) as services, services.database.write() as session:
        for number in range(ROOMS_BY_DEFAULT):
            session.add(row(tenant, f"room-{number}", RoomState.ACTIVE, services.clock()))
    code, text = await rpc_of(tenant).fault("create_room", {"name": NAME, "service": SERVICE, "host": HOST})
    assert (code, f"{ROOMS_BY_DEFAULT} rooms" in text) == (-118, True)


def row(tenant: Tenant, name: str, state: RoomState, changed_at: float) -> Room:
    return Room(
        instance_name=tenant.name,
        name=name,
        title=name,
        origin=RoomOrigin.LHC,
        state=state,
        created_at=changed_at,
        changed_at=changed_at,
    )


# What goes wrong, and the end


async def test_rooms_go_with_their_tenant(new_tenant: NewTenant) -> None:
    tenant, other = await new_tenant(), await new_tenant()
    await make_room(other)
    bob = await tenant.operator_online("bob")
    await make_room(tenant)
    await tenant.system.ejabberd("lhc_make_rooms", host=HOST, rooms=[{"name": f"stray.{tenant.name}", "title": ""}])
    await bob.join(address(tenant), "Bob")
    await tenant.panel.destroy(tenant.name)
    assert await rooms_in_ejabberd(tenant) == []
    assert await rooms_in_ejabberd(other) == [NAME]
    assert await rpc_of(tenant).call("muc_online_rooms", {"host": SERVICE}) == {"rooms": []}
    assert (await rpc_of(tenant).fault("destroy_room", {"name": NAME, "service": SERVICE}))[0] == -118
    async with domain_of(tenant.system) as services, services.database.read() as session:
        assert await session.scalar(select(Room).where(Room.instance_name == tenant.name)) is None
    again = await tenant.panel.create(tenant.name)
    rpc = Rpc(f"{tenant.lhc_url}/rpc", tenant.name, HOST, again["secret_key"])
    assert await rpc.call("muc_online_rooms", {"host": SERVICE}) == {"rooms": []}


async def test_reconciliation_mends_rooms(tenant: Tenant) -> None:
    for name in ("lost", "right"):
        await make_room(tenant, name)
    host = {"host": HOST}
    await tenant.system.ejabberd("lhc_remove_rooms", **host, rooms=[f"lost.{tenant.name}"])
    stray = [{"name": f"{name}.{tenant.name}", "title": ""} for name in ("stray", "half-removed")]
    await tenant.system.ejabberd("lhc_make_rooms", **host, rooms=stray)
    async with domain_of(tenant.system) as services, services.database.write() as session:
        await session.execute(update(Room).where(Room.instance_name == tenant.name).values(changed_at=1.0))
        session.add(row(tenant, "half-made", RoomState.PENDING, 1.0))
        session.add(row(tenant, "half-removed", RoomState.REMOVING, 1.0))
        session.add(row(tenant, "just-begun", RoomState.PENDING, services.clock()))
    path = f"/v1/tenants/{tenant.name}"
    started = await tenant.panel.http.post(f"{path}/reconcile", params={"dry_run": True})
    await tenant.panel.finished(started.json()["id"])
    drift = (await tenant.panel.http.get(f"{path}/drift")).json()["drift"]
    expected = {f"{name}.{tenant.name}" for name in ("lost", "stray", "half-made", "half-removed")}
    assert {(one["kind"], one["subject"]) for one in drift} == {("room", room) for room in expected}
    started = await tenant.panel.http.post(f"{path}/reconcile")
    await tenant.panel.finished(started.json()["id"])
    assert (await tenant.panel.http.get(f"{path}/drift")).json()["drift"] == []
    assert await rooms_in_ejabberd(tenant) == ["half-made", "lost", "right"]
    found = await rpc_of(tenant).call("muc_online_rooms", {"host": SERVICE})
    assert sorted(one["room"] for one in found["rooms"]) == [
        f"{name}@{SERVICE}" for name in ("half-made", "lost", "right")
    ]
    bob = await tenant.operator_online("bob")
    await bob.join(address(tenant, "lost"), "Bob")


async def test_no_callback_is_lost_when_the_pool_is_killed(tenant: Tenant) -> None:
    bob = await tenant.operator_online("bob")
    await make_room(tenant)
    await bob.join(address(tenant), "Bob")
    killed = asyncio.create_task(tenant.system.kill_pools())
    bodies = [f"line {number}" for number in range(30)]
    for body in bodies:
        bob.write(address(tenant), body, kind="groupchat")
        await asyncio.sleep(0.05)
    await killed
    expected = [present(tenant, "bob", "available"), *(said(tenant, "bob", body) for body in bodies)]
    await until(lambda: len(told(tenant)) >= len(expected), "all are told", 60)
    assert told(tenant) == expected
    await tenant.system.ready()


async def test_rooms_outlive_ejabberd(tenant: Tenant) -> None:
    await tenant.lhc.new_operator("bob", "operator-pw")
    rpc = await make_room(tenant)
    # SIGKILL, at once: a room is on disk when it was answered
    await tenant.system.kill("ejabberd")
    await tenant.system.ready()
    bob = await tenant.online("bob")
    await bob.join(address(tenant), "Bob")
    await rpc.call("send_message", groupchat("John.Doe.operator", "after"))
    assert (await bob.hears(address(tenant), "after")).nick == "John Doe"
    bob.write(address(tenant), "answer", kind="groupchat")
    await is_told(tenant, present(tenant, "bob", "available"), said(tenant, "bob", "answer"))


# The tenant's own API


async def test_the_api_of_rooms(api: TenantApi) -> None:
    tenant = api.tenant
    bob = await api.operator("bob", nick="Bob B.")
    async with TenantClient(tenant.system.endpoints["api"], tenant.name, api.token) as client:
        made = await client.create_room("Team", "The team")
        assert (made.name, made.title, made.address, made.origin) == (
            "team",
            "The team",
            address(tenant, "team"),
            "api",
        )
        with pytest.raises(ApiError) as error:
            await client.create_room("TEAM")
        assert error.value.status == 409
        assert (await client.put_member("team", "bob")).members[0].model_dump() == {"operator": "bob", "nick": "Bob B."}
        assert await bob.invited() == (address(tenant, "team"), "")
        await client.put_member("team", "Ann.operator", nick="Ann")
        assert [one.operator for one in (await client.room("team")).members] == ["ann.operator", "bob"]
        await bob.join(address(tenant, "team"), "Bob B.")
        message_id = await client.say("team", "Ann.operator", "hello", message_id="message-1")
        assert message_id == "message-1"
        await client.say("team", "Ann.operator", "hello", message_id="message-1")
        await client.say("team", "bob", "from my other screen")
        assert (await bob.hears(address(tenant, "team"), "from my other screen")).nick == "Bob B. (2)"
        heard = [(one.nick, one.body) for one in bob.messages if one.type == "groupchat" and one.body]
        assert heard[0] == ("Ann", "hello")
        assert len(heard) == 2
        await client.remove_member("team", "bob")
        assert [room.name async for room in client.rooms()] == ["team"]
        await client.delete_room("team")
        assert [room async for room in client.rooms()] == []
        for call in (client.delete_room("team"), client.room("team"), client.put_member("team", "bob")):
            with pytest.raises(ApiError) as error:
                await call
            assert error.value.status == 404


async def test_the_number_of_a_message_comes_again_in_another_room(api: TenantApi) -> None:
    bob = await api.operator("bob")
    for name in ("sales", "support", "sales"):
        made = (await api.http.post("/rooms", json={"name": name})).json()
        await bob.join(made["address"], "Bob")
        seen = len(bob.messages)
        for _ in range(2):
            said = {"operator": "bob", "message": f"in {name}", "message_id": "line-0001"}
            assert (await api.http.post(f"/rooms/{name}/messages", json=said)).status_code == 202
        await bob.hears(made["address"], f"in {name}")
        await api.http.post(f"/rooms/{name}/messages", json={"operator": "bob", "message": "the end"})
        await until(lambda seen=seen: "the end" in [one.body for one in bob.messages[seen:]], "the end is heard")  # type: ignore[misc]
        assert [one.body for one in bob.messages[seen:] if one.body] == [f"in {name}", "the end"]
        assert (await api.http.delete(f"/rooms/{name}")).status_code == 204


async def test_the_rooms_of_a_standalone_system() -> None:
    """Without an instance in any name, and with the hosting-wide credentials: there is only one tenant."""
    with start_system(env={"ORCHESTRATOR_HOSTING": "false"}) as system:
        endpoints = system.endpoints
        async with (
            Receiver(endpoints["callback_port"]) as receiver,
            Panel(endpoints["api"], endpoints["panel_token"]) as panel,
        ):
            await panel.create(STANDALONE_INSTANCE)
            rpc = Rpc.hosting(system)
            account = {"host": HOST, "user": "bob", "password": "operator-pw"}
            member = {"user": "bob", "host": HOST, "group": "operators", "grouphost": HOST}
            assert (await rpc.call("register", account))["res"] == 0
            assert await rpc.call("srg_user_add", member) == {"res": 0}
            room = {"name": NAME, "service": SERVICE}
            assert await rpc.call("create_room", {**room, "host": HOST}) == {"res": 0}
            author = {"user": f"John.Doe.operator@{HOST}", "nick": "John", "room": f"{NAME}@{SERVICE}", "nodes": ""}
            assert await rpc.call("subscribe_room", author) == {"nodes": []}
            address = (endpoints["c2s_host"], endpoints["c2s_port"])
            async with Operator("bob", HOST, "operator-pw", address) as bob:
                assert await bob.items_of(SERVICE) == {f"{NAME}@{SERVICE}": NAME}
                await bob.join(f"{NAME}@{SERVICE}", "Bob")
                await rpc.call("send_message", groupchat("John.Doe.operator", "hello"))
                assert (await bob.hears(f"{NAME}@{SERVICE}", "hello")).nick == "John"
                bob.write(f"{NAME}@{SERVICE}", "hello back", kind="groupchat")
                await receiver.message("hello back")
            bodies = [one.raw.decode() for one in receiver.callbacks if one.path == "/xmppservice/processmessage"]
            names = {"sender": "bob", "receiver": NAME, "server": HOST}
            assert bodies[:2] == [
                form(status="available", **names, type="presence"),
                form(body="hello back", **names, type="groupchat"),
            ]
            await panel.destroy(STANDALONE_INSTANCE)
            assert await system.ejabberd("lhc_rooms", host=HOST, suffix="", after="", limit=10) == []

"""Rooms in a real ejabberd with the bridge module, with a bare component at its other end."""

import itertools
from collections.abc import AsyncIterator

import pytest

from bench.testbed.chat_server import ChatServer
from bench.testbed.operator import MessageType, Operator
from bench.testbed.waiting import until
from tests.world.component import STORED, Component, Handed
from xmpp_pool.stanzas import room_message

MAX_MESSAGES = 20
"""Of a tenant, that may wait for the component."""
_NOT_TO_ALL: tuple[MessageType, ...] = ("chat", "normal")
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChatServer]:
    server = ChatServer(tmp_path_factory.mktemp("bridge-rooms"), {"iq_timeout": 1, "max_messages": 4 * MAX_MESSAGES})
    try:
        await server.start()
        yield server
    finally:
        await server.kill()


@pytest.fixture
def tenant() -> str:
    return f"r{next(_numbers)}"


@pytest.fixture
async def room(server: ChatServer, tenant: str) -> str:
    """The JID of a room of the tenant's."""
    made = await server.command(
        "lhc_make_rooms", host=server.host, rooms=[{"name": f"team.{tenant}", "title": "The team"}]
    )
    assert made == []
    return f"team.{tenant}@conference.{server.host}"


@pytest.fixture
async def bob(server: ChatServer, tenant: str, room: str) -> AsyncIterator[Operator]:
    """An operator in the room."""
    await server.new_operator(f"bob.{tenant}")
    async with server.operator(f"bob.{tenant}") as bob:
        await bob.join(room, "Bob")
        yield bob


def spoken(server: ChatServer, room: str, body: str, message_id: str) -> str:
    sender = f"ann.operator.{room.partition('@')[0].rpartition('.')[2]}@{server.host}"
    return room_message(sender, room, body, message_id, "Ann <A> & 'x'")


def seen(component: Component, tenant: str) -> list[tuple[str, str]]:
    return [(one.type, one.body) for one in component.stored if one.visitor == f"team.{tenant}"]


async def test_what_is_sent_again_is_said_once(server: ChatServer, room: str, bob: Operator) -> None:
    async with Component(server) as component:
        for message_id in ("one", "one", "two", "one"):
            component.send(spoken(server, room, f"message {message_id}", message_id))
        await component.ask("sync")
    async with Component(server) as component:
        component.send(spoken(server, room, "message one", "one"))
        component.send(spoken(server, room, "the last", "three"))
        heard = await bob.hears(room, "the last")
    assert heard.nick == "Ann <A> & 'x'"
    bodies = [one.body for one in bob.messages if one.type == "groupchat" and one.body]
    assert bodies == ["message one", "message two", "the last"]
    # neither was told back, nor is the sender in the room
    assert [one.type for one in component.handed if one.body] == []


async def test_what_reaches_no_room_comes_back(server: ChatServer, tenant: str) -> None:
    async with Component(server) as component:
        component.send(spoken(server, f"nowhere.{tenant}@conference.{server.host}", "hello?", "one"))
        sender = f"ann.operator.{tenant}"
        handed = await until(
            lambda: next((one for one in component.stored if one.visitor == sender), None), "it comes back"
        )
        assert (handed.type, handed.error, handed.body) == ("error", "item-not-found", "hello?")
        assert handed.operator == f"nowhere.{tenant}"


async def test_what_the_room_has_heard_is_on_disk(server: ChatServer, tenant: str, room: str, bob: Operator) -> None:
    for number in range(5):
        bob.write(room, f"message {number}", kind="groupchat")
    await bob.hears(room, "message 4")
    await server.kill()
    await server.start()
    async with Component(server) as component:
        expected = [("joined", ""), *(("groupchat", f"message {number}") for number in range(5))]
        await until(lambda: len(seen(component, tenant)) >= len(expected), "all arrive", 30)
        assert seen(component, tenant) == expected
        async with server.operator(bob.username) as again:
            await again.join(room, "Bob")
            again.leave_room(room, "Bob")
            expected += [("joined", ""), ("left", "")]
            await until(lambda: len(seen(component, tenant)) >= len(expected), "and what comes then")
            assert seen(component, tenant) == expected


async def test_only_what_is_said_to_the_room_is_told(server: ChatServer, tenant: str, room: str, bob: Operator) -> None:
    """It asks the bridge about private words in a room as about others, from 23.10 on."""
    await server.new_operator(f"ann.{tenant}")
    async with Component(server) as component, server.operator(f"ann.{tenant}") as ann:
        await ann.join(room, "Ann")
        for kind in _NOT_TO_ALL:
            bob.write(f"{room}/Ann", f"{kind}, to Ann alone", kind=kind)
            await ann.reads(f"{kind}, to Ann alone")
        bob.write(room, "", kind="groupchat", subject="the topic")
        bob.sign(room, "{urn:xmpp:chat-markers:0}displayed", kind="groupchat", id="1")
        bob.write(room, "to all", kind="groupchat")
        await until(lambda: ("groupchat", "to all") in seen(component, tenant), "what is said is told")
        # who comes is shown the topic
        await server.new_operator(f"eve.{tenant}")
        async with server.operator(f"eve.{tenant}") as eve:
            await eve.join(room, "Eve")
        await until(lambda: seen(component, tenant)[-1] == ("left", ""), "she has gone")
        comings = [("joined", ""), ("joined", "")]
        assert seen(component, tenant) == [*comings, ("groupchat", "to all"), ("joined", ""), ("left", "")]
    assert [one.error for one in bob.messages if one.error] == []


async def test_what_cannot_be_kept_is_not_said(server: ChatServer, tenant: str, room: str, bob: Operator) -> None:
    ids = [bob.write(room, f"message {number}", kind="groupchat") for number in range(MAX_MESSAGES + 5)]
    await bob.is_refused(ids[-1], "resource-constraint")
    refused = [one for one in ids if bob.error_of(one)]
    # that bob came in waits as well
    assert len(refused) == 6
    said = [one.body for one in bob.messages if one.type == "groupchat" and one.body]
    assert said == [f"message {number}" for number in range(MAX_MESSAGES - 1)]
    async with Component(server) as component:
        await until(lambda: len(seen(component, tenant)) == MAX_MESSAGES, "what was said arrives", 30)


async def test_a_refusal_is_told_to_who_wrote(server: ChatServer, tenant: str, room: str, bob: Operator) -> None:
    def answer(handed: Handed) -> str:
        return "forbidden" if handed.body == "bad" else STORED

    async with Component(server, answer) as component:
        await bob.is_refused(bob.write(room, "bad", kind="groupchat"))
        bob.write(room, "good", kind="groupchat")
        await until(lambda: ("groupchat", "good") in seen(component, tenant), "it goes on")


async def test_no_refused_coming_or_going_holds_up_what_follows(
    server: ChatServer, tenant: str, room: str, bob: Operator
) -> None:
    def answer(handed: Handed) -> str:
        return "forbidden" if handed.type in {"joined", "left"} else STORED

    async with Component(server, answer) as component:
        bob.write(room, "hello", kind="groupchat")
        await until(lambda: seen(component, tenant) == [("groupchat", "hello")], "it arrives")
    assert not [one for one in bob.presences if one.type == "error"]


async def test_making_and_removing_may_be_repeated(server: ChatServer, tenant: str, room: str, bob: Operator) -> None:
    local = room.partition("@")[0]
    again = [{"name": local, "title": "Another"}]
    assert await server.command("lhc_make_rooms", host=server.host, rooms=again) == []
    bob.write(room, "it is the same room", kind="groupchat")
    await bob.hears(room, "it is the same room")
    for _ in range(2):
        assert await server.command("lhc_remove_rooms", host=server.host, rooms=[local]) == []
    found = await server.command("lhc_rooms", host=server.host, suffix=f".{tenant}", after="", limit=10)
    assert found == []
    await bob.sees(local, kind="unavailable")

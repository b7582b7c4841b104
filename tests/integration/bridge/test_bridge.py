"""The bridge module in a real ejabberd, with a bare component at its other end."""

import asyncio
import itertools
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from slixmpp.exceptions import IqError

from bench.testbed.chat_server import ChatServer
from bench.testbed.operator import Operator
from bench.testbed.waiting import until
from tests.world.component import BRIDGE_NS, STORED, Component, Handed
from xmpp_pool.stanzas import CHAT_STATES_NS, RECEIPTS_NS, Signal, chat_message, typing

MAX_MESSAGES = 800
SHARE = MAX_MESSAGES // 4
"""Of a tenant."""
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ChatServer]:
    state = Path(tempfile.mkdtemp(prefix="lhc-bridge-"))
    fast = {"rate": 100_000_000, "operator_rate": 1000, "operators_rate": 1000}
    server = ChatServer(state, {"iq_timeout": 1, "max_messages": MAX_MESSAGES, **fast})
    await server.start()
    yield server
    await server.kill()
    shutil.rmtree(state)


@pytest.fixture
def tenant() -> str:
    """A tenant of its own for each test."""
    return f"t{next(_numbers)}"


@pytest.fixture
async def bob(server: ChatServer, tenant: str) -> AsyncIterator[Operator]:
    """An operator of the tenant, logged in."""
    await server.new_operator(f"bob.{tenant}")
    async with server.operator(f"bob.{tenant}") as bob:
        yield bob


def numbered(count: int) -> list[str]:
    return [f"message {number}" for number in range(count)]


async def test_a_bridge_that_was_compiled_for_another_ejabberd_does_not_start(tmp_path: Path) -> None:
    """Records of ejabberd, which are others there, are compiled into it."""
    other = ChatServer(tmp_path, {})
    other.make_bridge_for((22, 5))
    with pytest.raises(AssertionError, match="ejabberd has ended"):
        await other.start()
    assert "The bridge module was compiled for ejabberd 22.05, and this is" in other.log


async def test_messages_wait_through_the_end_of_ejabberd(server: ChatServer, tenant: str, bob: Operator) -> None:
    visitors = [f"visitor.{number}.{tenant}" for number in range(3)]
    expected: dict[str, list[str]] = {visitor: [] for visitor in visitors}
    for body, visitor in zip(numbered(100), itertools.cycle(visitors), strict=False):
        bob.write(visitor, body)
        expected[visitor].append(body)
    await bob.taken()
    await server.kill()
    await server.start()
    async with Component(server) as component:
        await until(lambda: len(component.stored) >= 100, "all messages arrive", 30)
        assert {visitor: component.bodies(visitor) for visitor in visitors} == expected
        assert len({handed.id for handed in component.stored}) == len(component.handed) == 100
    # what was answered does not come again
    async with Component(server) as component, server.operator(bob.username) as again:
        again.write(visitors[0], "the last")
        await until(lambda: component.stored, "it goes on")
        assert [handed.body for handed in component.handed] == ["the last"]


async def test_a_message_is_on_disk_when_the_stream_goes_on(server: ChatServer, tenant: str, bob: Operator) -> None:
    """Not by chance in the hundred above: each single one, killed at once."""
    for number in range(3):
        if number:
            async with server.operator(bob.username) as again:
                again.write(f"visitor.1.{tenant}", f"message {number}")
                await again.taken()
                await server.kill()
        else:
            bob.write(f"visitor.1.{tenant}", "message 0")
            await bob.taken()
            await server.kill()
        await server.start()
    async with Component(server) as component:
        await until(lambda: len(component.stored) == 3, "all arrive")
        assert component.bodies(f"visitor.1.{tenant}") == numbered(3)


async def test_refused_for_now_is_sent_again_in_order(server: ChatServer, tenant: str, bob: Operator) -> None:
    visitors = [f"visitor.1.{tenant}", f"visitor.2.{tenant}"]
    answers = iter(["resource-constraint", None, "internal-server-error", "service-unavailable"])

    def answer(handed: Handed) -> str | None:
        return next(answers, STORED) if handed.visitor == visitors[0] else STORED

    async with Component(server, answer) as component:
        for body in numbered(5):
            for visitor in visitors:
                bob.write(visitor, body)
        await until(lambda: len(component.bodies(visitors[1])) == 5, "the other conversation goes on")
        await until(lambda: len(component.bodies(visitors[0])) == 5, "all are stored at last", 30)
        first = [handed.body for handed in component.handed if handed.visitor == visitors[0]]
        assert first == ["message 0"] * 4 + numbered(5)
        assert component.bodies(visitors[1]) == numbered(5)
        assert next(answers, None) is None
    assert not [message for message in bob.messages if message.error]


async def test_a_late_answer_counts(server: ChatServer, tenant: str, bob: Operator) -> None:
    """Whoever always needs longer than the timeout must get further all the same."""
    visitor = f"visitor.1.{tenant}"
    async with Component(server, seconds=1.5) as component:
        for body in numbered(2):
            bob.write(visitor, body)
        await until(lambda: len(component.bodies(visitor)) == 2, "both are stored", 30)
        assert component.bodies(visitor) == numbered(2)


async def test_another_connection_takes_over(server: ChatServer, tenant: str, bob: Operator) -> None:
    visitors = [f"visitor.{number}.{tenant}" for number in range(20)]
    async with Component(server) as healthy:
        async with Component(server, lambda _: None) as deaf:
            for visitor, body in itertools.product(visitors, numbered(3)):
                bob.write(visitor, body)
            await until(lambda: deaf.handed, "the other one gets some")
            deaf.cut()
        await until(lambda: len(healthy.stored) == 60, "all arrive")
        assert all(healthy.bodies(visitor) == numbered(3) for visitor in visitors)


async def test_the_component_that_comes_back_gets_everything(server: ChatServer, tenant: str, bob: Operator) -> None:
    visitor = f"visitor.1.{tenant}"
    left = iter(range(2))
    async with Component(server, lambda _: STORED if next(left, None) is not None else None) as component:
        for body in numbered(5):
            bob.write(visitor, body)
        await until(lambda: len(component.handed) >= 3, "two are stored, the third is not")
    async with Component(server) as successor:
        await until(lambda: len(successor.stored) == 3, "the rest arrives")
        assert component.bodies(visitor) + successor.bodies(visitor) == numbered(5)


@pytest.mark.parametrize("condition", ["bad-request", "not-acceptable", "forbidden", "item-not-found"])
async def test_refused_for_good_is_given_back(server: ChatServer, tenant: str, bob: Operator, condition: str) -> None:
    visitor = f"visitor.1.{tenant}"
    async with Component(server, lambda handed: condition if handed.body == "bad" else STORED) as component:
        bad = bob.write(visitor, "bad")
        bob.write(visitor, "good")
        await until(lambda: component.bodies(visitor) == ["good"], "the next message goes on")
        returned = await until(lambda: [message for message in bob.messages if message.error], "it comes back")
        assert [(message.id, message.username, message.error) for message in returned] == [(bad, visitor, condition)]
        assert [handed.body for handed in component.handed] == ["bad", "good"]


async def test_the_queue_is_bounded(server: ChatServer, tenant: str, bob: Operator) -> None:
    visitor = f"visitor.1.{tenant}"
    for body in numbered(SHARE):
        bob.write(visitor, body)
    await bob.taken()
    assert not bob.messages
    refused = [bob.write(visitor, "too much") for _ in range(2)]
    await bob.taken()
    assert [(message.id, message.error) for message in bob.messages] == [
        (id_, "resource-constraint") for id_ in refused
    ]
    complaint = f"is full for tenant {tenant}: {SHARE} messages of it"
    await until(lambda: complaint in server.log, "the log says so")  # it is written with a delay
    async with Component(server) as component:
        await until(lambda: len(component.stored) == SHARE, "what was taken arrives", 30)
        bob.write(visitor, "room again")
        await until(lambda: component.bodies(visitor)[-1] == "room again", "there is room again")
    assert component.bodies(visitor) == [*numbered(SHARE), "room again"]
    assert server.log.count(complaint) == 1


async def test_every_connection_hears_of_every_operator(server: ChatServer, tenant: str) -> None:
    await server.new_operator(f"ann.{tenant}")
    async with Component(server) as one, Component(server) as other:
        async with server.operator(f"ann.{tenant}"):
            for component in (one, other):
                await until(lambda c=component: (f"ann.{tenant}", "available") in c.presences, "both hear it")  # type: ignore[misc]
        for component in (one, other):
            await until(lambda c=component: c.presences[-1:] == [(f"ann.{tenant}", "unavailable")], "both")  # type: ignore[misc]
            assert component.presences == [(f"ann.{tenant}", "available"), (f"ann.{tenant}", "unavailable")]


async def test_a_fence_ends_the_connections_of_that_name(server: ChatServer, tenant: str, bob: Operator) -> None:
    async with Component(server) as old, Component(server) as foreign, Component(server) as new:
        await old.ask("pool", name="a")
        await foreign.ask("pool", name="b")
        await new.ask("pool", name="a")
        old.say(f"visitor.1.{tenant}", bob.username, "from the old one")
        await bob.reads("from the old one")
        await new.ask("fence", name="a")
        await until(old.ended.is_set, "the old connection ends")
        assert not foreign.ended.is_set()
        assert not new.ended.is_set()
        # no message is handed to who is gone
        for number in range(10):
            bob.write(f"visitor.{number}.{tenant}", "hello")
        await until(lambda: len(foreign.stored) + len(new.stored) == 10, "the others get everything")
        assert not old.handed
        await new.ask("fence", name="a")
        assert not new.ended.is_set()


async def test_a_fence_ends_a_connection_that_hangs(server: ChatServer, tenant: str, bob: Operator) -> None:
    """Its process in ejabberd is stuck in a write; what waits there goes to the others."""
    async with Component(server) as stuck, Component(server) as new:
        await stuck.ask("pool", name="hanging")
        stuck.hang()
        # more than the buffers of a socket hold
        size = 200_000
        for number in range(100):
            bob.write(f"visitor.{number}.{tenant}", "x" * size)
        await bob.taken()
        await until(lambda: len(new.stored) >= 20, "the other one gets some", 30)
        await new.ask("fence", name="hanging")
        await until(lambda: len({handed.visitor for handed in new.stored}) == 100, "the other one gets all", 60)


async def test_requests_are_for_the_component_alone(server: ChatServer, bob: Operator) -> None:
    async with Component(server) as component:
        with pytest.raises(IqError, match="forbidden"):
            await bob.ask(server.host, f"{{{BRIDGE_NS}}}sync")
        with pytest.raises(IqError, match="bad-request"):
            await component.ask("fence")
        with pytest.raises(IqError, match="bad-request"):
            await component.ask("unheard-of", name="a")


async def test_answers_come_back_to_who_asked(server: ChatServer, bob: Operator) -> None:
    """The router gives what is for the component to any of its connections; not so for those that have a name."""
    async with Component(server) as one, Component(server) as other:
        await one.ask("pool", name="one")
        await other.ask("pool", name="other")
        for _ in range(10):
            for component, name in ((one, "one"), (other, "other")):
                await component.ping(server.host, name)
                await component.ping(f"{bob.username}@{server.host}/desk", name)


async def test_a_repeat_is_dropped(server: ChatServer, tenant: str, bob: Operator) -> None:
    visitor = f"visitor.1.{tenant}"
    async with Component(server) as one, Component(server) as other:
        for component in (one, other, one):
            component.say(visitor, bob.username, "hello", once="id-1")
            await component.ask("sync")
        other.say(visitor, bob.username, "hello", once="id-2")
        one.say(f"visitor.2.{tenant}", bob.username, "hello", once="id-1")
        await one.ask("sync")
        await other.ask("sync")
        one.say(visitor, bob.username, "the end")
        await bob.reads("the end")
    hellos = [message for message in bob.messages if message.body == "hello"]
    assert len(hellos) == 3
    assert {child.rpartition("}")[2] for message in hellos for child in message.children} == {"body"}


async def test_an_offline_operator_gets_it_once(server: ChatServer, tenant: str) -> None:
    """Also when ejabberd is killed after it has said that all is on disk."""
    bodies = numbered(1200)  # more than Mnesia has in its log before it empties it
    await server.new_operator(f"ann.{tenant}")
    async with Component(server) as component:
        for body in [*bodies, *bodies[:10]]:
            component.say(f"visitor.1.{tenant}", f"ann.{tenant}", body, once=f"{tenant}-{body}")
        await component.ask("sync")
        await server.kill()
        await until(component.ended.is_set, "the connection has ended")
    await server.start()
    async with server.operator(f"ann.{tenant}") as ann:
        await ann.reads(bodies[-1])
        await ann.taken()
        assert [message.body for message in ann.messages] == bodies
        assert not [child for message in ann.messages for child in message.children if child.endswith("}once")]


async def test_what_waited_comes_before_what_arrives_at_the_login(server: ChatServer, tenant: str) -> None:
    await server.new_operator(f"ann.{tenant}")
    async with Component(server) as component:
        for login in range(10):
            bodies = [f"{login}-{number}" for number in range(300)]
            for body in bodies[:100]:
                component.say(f"visitor.1.{tenant}", f"ann.{tenant}", body, once=f"{tenant}-{body}")
            await component.ask("sync")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(speak(component, tenant, bodies[100:]))
                async with server.operator(f"ann.{tenant}") as ann:
                    await ann.reads(bodies[-1])
                    await ann.taken()
                    assert [message.body for message in ann.messages] == bodies


async def speak(component: Component, tenant: str, bodies: list[str]) -> None:
    """One after another, while something else goes on."""
    for body in bodies:
        component.say(f"visitor.1.{tenant}", f"ann.{tenant}", body, once=f"{tenant}-{body}")
        await asyncio.sleep(0.001)


async def test_what_comes_back_to_a_visitor_is_handed_over(server: ChatServer, tenant: str, bob: Operator) -> None:
    visitor = f"visitor.1.{tenant}"
    async with Component(server) as component:
        component.say(visitor, f"nobody.{tenant}", "is anybody there?")
        handed = (await until(lambda: component.stored, "the error is handed over"))[0]
        assert (handed.visitor, handed.operator, handed.body) == (visitor, f"nobody.{tenant}", "is anybody there?")
        assert (handed.type, handed.error) == ("error", "service-unavailable")
        # a client cannot forge one for another tenant's visitor
        bob.write_error("visitor.1.another", "7-forged")
        bob.write_error(visitor, "refused by the client")
        await until(lambda: len(component.bodies(visitor)) > 1, "the client's error is handed over")
        assert component.bodies(visitor) == ["is anybody there?", "refused by the client"]
        assert component.bodies("visitor.1.another") == []


async def test_an_error_waits_for_the_component(server: ChatServer, tenant: str) -> None:
    visitor = f"visitor.1.{tenant}"
    async with Component(server, lambda _: None) as component:
        component.say(visitor, f"nobody.{tenant}", "hello?")
        await until(lambda: component.handed, "it is handed over, and not stored")
    await server.kill()
    await server.start()
    async with Component(server) as component:
        await until(lambda: component.bodies(visitor), "it comes again")
        assert {handed.error for handed in component.stored if handed.visitor == visitor} == {"service-unavailable"}


STATES = ["active", "composing", "paused", "inactive", "gone"]


def state(name: str) -> str:
    return f"{{{CHAT_STATES_NS}}}{name}"


RECEIVED = f"{{{RECEIPTS_NS}}}received"


async def test_signals_reach_one_connection_of_the_component(server: ChatServer, tenant: str, bob: Operator) -> None:
    visitor = f"visitor.1.{tenant}"
    async with Component(server) as one, Component(server) as other:
        for name in STATES:
            bob.sign(visitor, state(name))
        bob.sign(visitor, RECEIVED, kind="normal", id="7-a-message")
        bob.write(visitor, "a message, which comes as ever")
        await until(lambda: len(one.signals + other.signals) == len(STATES) + 1, "all arrive")
        await until(lambda: one.stored or other.stored, "the message as well")
        jids = (f"{bob.username}@{server.host}/desk", f"{visitor}@{server.host}")
        expected = [Signal(*jids, name == "composing", None) for name in STATES] + [Signal(*jids, None, "7-a-message")]
        # in order: they took the same way
        assert (one.signals or other.signals) == [(server.host, f"{tenant}@{one.jid}", signal) for signal in expected]
        assert not (one.signals and other.signals)
    assert not bob.messages


async def test_nobody_keeps_a_signal(server: ChatServer, tenant: str, bob: Operator) -> None:
    """Neither the bridge for a component that comes later, nor ejabberd for a visitor's account or an operator's."""
    visitor = f"visitor.1.{tenant}"
    await server.new_operator(f"ann.{tenant}")
    await server.command("register", user=visitor, host=server.host, password="visitor-pw")
    bob.sign(visitor, state("composing"))
    bob.sign(visitor, RECEIVED, id="7-early")
    await bob.taken()
    async with Component(server) as component:
        component.send(typing(f"{visitor}@{server.host}/lhc", f"ann.{tenant}@{server.host}/desk", composing=True))
        await component.ask("sync")
        bob.sign(visitor, RECEIVED, id="7-late")
        await until(lambda: component.signals, "what is sent now arrives")
        assert [signal.receipt_of for _, _, signal in component.signals] == ["7-late"]
        # had it been kept, it would come before this
        component.say(visitor, f"ann.{tenant}", "hello")
        await component.ask("sync")
    async with server.operator(f"ann.{tenant}") as ann, server.operator(visitor, password="visitor-pw") as browser:
        await ann.reads("hello")
        assert [message.body for message in ann.messages + browser.messages] == ["hello"]
    assert not bob.messages


async def test_a_browser_reads_what_the_component_makes_of_it(server: ChatServer, tenant: str, bob: Operator) -> None:
    """Once it has stored it, and nothing of what it refuses."""
    visitor, room = f"visitor.1.{tenant}", f"visitor.1.{tenant}@{server.host}/browser"
    await server.command("register", user=visitor, host=server.host, password="visitor-pw")
    async with server.operator(visitor, "browser", password="visitor-pw") as browser:
        bob.write(visitor, "early")
        await bob.taken()
        await browser.taken()
        assert browser.messages == []
        answers = {"refused": "not-acceptable"}
        async with Component(server, lambda handed: answers.get(handed.body, STORED)) as component:
            bob.write(visitor, "refused")
            bob.write(room, "to the browser itself")
            bob.send_raw(f"<message to='{room}' type='groupchat' id='g'><body>to all</body></message>")
            await bob.is_refused("g", "service-unavailable")
            await browser.reads("shown: to the browser itself")
            assert [message.body for message in browser.messages] == ["shown: early", "shown: to the browser itself"]
            assert [handed.for_browser for handed in component.handed] == [True] * 3
    async with Component(server) as component:
        bob.write(visitor, "to nobody's browser")
        await until(lambda: component.handed, "it is handed over")
        assert not component.handed[0].for_browser


async def test_a_browser_of_its_own_sees_signals_too(server: ChatServer, tenant: str, bob: Operator) -> None:
    visitor = f"visitor.1.{tenant}"
    await server.command("register", user=visitor, host=server.host, password="visitor-pw")
    async with Component(server) as component, server.operator(visitor, password="visitor-pw") as browser:
        await browser.taken()
        bob.sign(visitor, state("composing"))
        await until(lambda: [seen for seen in browser.messages if state("composing") in seen.children], "it sees it")
        await until(lambda: component.signals, "the component as well")


async def test_only_operators_of_the_tenant_sign(server: ChatServer, tenant: str, bob: Operator) -> None:
    visitor = f"visitor.1.{tenant}"
    await server.new_operator(f"eve.{tenant}x")
    await server.command("register", user=f"dan.{tenant}", host=server.host, password="dans")
    async with (
        Component(server) as component,
        server.operator(f"eve.{tenant}x") as stranger,
        server.operator(f"dan.{tenant}", password="dans") as no_operator,
    ):
        for who in (stranger, no_operator):
            who.sign(visitor, state("composing"))
            who.sign(visitor, RECEIVED, id="7-forged")
            # an error is nobody's word, and passes the guard
            who.sign(visitor, RECEIVED, id="7-forged", kind="error")
            await who.taken()
            assert [seen.error for seen in who.messages if seen.error] == ["forbidden"] * 2
        # a client that refuses what the component sent gives it back as it was
        bob.sign(visitor, state("composing"), kind="error")
        bob.sign(visitor, RECEIVED, id="7-real")
        await until(lambda: [one for one in component.signals if one[2].receipt_of == "7-real"], "the operator signs")
        assert len(component.signals) == 1


async def test_no_client_speaks_for_the_bridge(server: ChatServer, tenant: str, bob: Operator) -> None:
    """Only what the server itself sends counts, and the server passes nothing on to the component's address."""
    async with Component(server) as component:
        bob.sign(f"{tenant}@{component.jid}", "{urn:xmpp:forward:0}forwarded")
        await until(lambda: [seen.error for seen in bob.messages] == ["forbidden"], "it is refused")
        bob.sign(f"visitor.1.{tenant}", RECEIVED, id="7-real")
        await until(lambda: component.signals, "the bridge's own arrives")
        assert [signal.receipt_of for _, _, signal in component.signals] == ["7-real"]


def line(server: ChatServer, operator: str, body: str) -> str:
    """What a visitor writes, as the pool sends it."""
    visitor = f"visitor.1.{operator.rpartition('.')[2]}@{server.host}/lhc"
    return chat_message(visitor, f"{operator}@{server.host}", body, f"7-{body}", "John")


@pytest.mark.parametrize("end", ["cut", "kicked", "replaced"])
async def test_what_a_client_that_hangs_had_not_read_is_for_the_next_one(
    server: ChatServer, bob: Operator, end: str
) -> None:
    """Without stream management the operating system has it, and loses it with the connection."""
    async with Component(server) as component:
        component.send(line(server, bob.username, "read"))
        await bob.reads("read")
        await until(lambda: component.signals, "the bridge knows that it was read")
        bob.stop_answering()
        component.send(line(server, bob.username, "unread"))
        await until(lambda: bob.has_unread("unread"), "the operating system has it")
        if end == "cut":
            bob.cut()
        elif end == "kicked":
            await server.command(
                "kick_session", user=bob.username, host=server.host, resource="desk", reason="no answer"
            )
        async with server.operator(bob.username) as again:
            await again.reads("unread")
            component.send(line(server, bob.username, "the next"))
            await again.reads("the next")
            bodies = [message.body for message in again.messages if message.body]
    assert bodies == ["unread", "the next"]
    assert again.messages[0].id == "7-unread", "a client that knows it drops it"


async def test_a_client_that_gives_no_receipts_is_asked_and_gets_nothing_twice(
    server: ChatServer, tenant: str, bob: Operator
) -> None:
    jid, visitor = f"{bob.username}@{server.host}/desk", f"visitor.1.{tenant}@{server.host}"
    async with Component(server) as component:
        for body in ("one", "two"):
            component.send(line(server, bob.username, body))
        await until(lambda: len(component.signals) == 2, "the bridge has asked")
        # as if the client had said so itself
        assert [signal for _, _, signal in component.signals] == [
            Signal(jid, visitor, None, f"7-{body}") for body in ("one", "two")
        ]
        bob.cut()
        async with server.operator(bob.username) as again:
            component.send(line(server, bob.username, "three"))
            await again.reads("three")
            assert [message.body for message in again.messages if message.body] == ["three"]
            # by a receipt it is known at once, also of what came before it
            for body in ("four", "five"):
                component.send(line(server, bob.username, body))
            await again.reads("five")
            again.sign(visitor, f"{{{RECEIPTS_NS}}}received", id="7-five")
            await again.taken()
            again.cut()
        async with server.operator(bob.username) as last:
            component.send(line(server, bob.username, "six"))
            await last.reads("six")
            assert [message.body for message in last.messages if message.body] == ["six"]


async def test_what_another_device_had_is_not_sent_again(server: ChatServer, bob: Operator) -> None:
    async with Component(server) as component, server.operator(bob.username, resource="phone") as phone:
        begun = int(time.time())
        await until(lambda: int(time.time()) > begun, "the next second, as which sessions are told apart")
        bob.stop_answering()
        component.send(line(server, bob.username, "for both"))
        await phone.reads("for both")
        await until(lambda: bob.has_unread("for both"), "the operating system has it")
        async with server.operator(bob.username, resource="tablet") as tablet:
            await tablet.taken()
            bob.cut()
            component.send(line(server, bob.username, "the next"))
            await tablet.reads("the next")
            await phone.reads("the next")
    assert [message.body for message in phone.messages if message.body] == ["for both", "the next"]
    assert [message.body for message in tablet.messages if message.body] == ["the next"]

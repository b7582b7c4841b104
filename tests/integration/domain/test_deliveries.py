"""Delivery on both databases: order, retries, dead letters and replay, the circuit breaker, claims and runners."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from email.utils import formatdate
from http import HTTPStatus

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from starlette.responses import Response, StreamingResponse
from structlog.testing import capture_logs

from bench.testbed.receiver import Behaviour, Callback, Receiver
from bench.testbed.waiting import until, until_async
from config.settings import Settings
from tenants.conversations import operator_messages, operator_presence
from tenants.conversations.reports import OperatorMessage
from tenants.core.errors import ConflictError, NotFoundError
from tenants.core.naming import AccountKind, AccountName
from tenants.delivery import circuits, history, outcomes, worker
from tenants.delivery.circuits import FAILURES_TO_OPEN, CircuitState
from tenants.delivery.claim_work import Piece, claim_next
from tenants.delivery.outbox import Origin
from tenants.delivery.poller import Lookout
from tenants.delivery.refusals import MAX_ATTEMPTS, MAX_DOUBTS, MAX_REFUSALS
from tenants.delivery.runners import Runners
from tenants.delivery.worker import deliver
from tenants.lifecycle import audit, registry
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.registry import TenantSpec
from tenants.outbound.lhc import NOBODY, LhcClient
from tenants.outbound.poster import MAX_RETRY_AFTER, Answer
from tenants.process import leases
from tenants.process.leases import Lease
from tenants.process.services import Services
from tenants.shards.commands import SendReceipt, shard_of
from tenants.store import claims
from tenants.store.models import CallbackMessage, Conversation, DeliveryAttempt, MessageState, OperatorPresence
from tests.world.kept import Kept
from tests.world.registry import World

BOB = AccountName(AccountKind.OPERATOR, "bob", "acme")
VISITOR = AccountName(AccountKind.VISITOR, "1", "acme")
CONNECT = b'{"action":"connect","user":"bob.acme","server":"localhost"}'
DAY = 24 * 3600.0
PANEL = Cause("panel", "because")


def message(number: int, visitor: int = 1, instance: str = "acme") -> OperatorMessage:
    receiver = AccountName(AccountKind.VISITOR, str(visitor), instance)
    return OperatorMessage(
        f"{instance}-{visitor}-{number}", replace(BOB, instance=instance), receiver, f"body {number}", host="localhost"
    )


class Lhc:
    """The LHC of every tenant: one behaviour for all of them, and what it was sent."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def does(self, behaviour: Behaviour) -> None:
        self.receiver.behaviours["127.0.0.1"] = behaviour

    def answers(self, status: int, **headers: str) -> None:
        async def behaviour(_callback: Callback) -> Response:
            return Response(status_code=status, headers=headers)

        self.does(behaviour)

    @property
    def callbacks(self) -> list[Callback]:
        """What it was sent of somebody."""
        return [callback for callback in self.receiver.callbacks if not is_of_nobody(callback)]

    @property
    def bodies(self) -> list[str]:
        return [callback.form["body"] for callback in self.callbacks if "body" in callback.form]

    @property
    def raw(self) -> list[bytes]:
        return [callback.raw for callback in self.callbacks]


def is_of_nobody(callback: Callback) -> bool:
    """Whether it is the message that tells an LHC in trouble from one that does not know a chat."""
    return callback.form.get("sender") == NOBODY


async def operator_changed(world: World, *, online: bool) -> None:
    """As the pool process tells it that serves the tenant."""
    await leases.prepare(world.services)
    shard = shard_of(BOB.instance, world.services.settings.shard_count)
    await operator_presence.operator_changed(world.services, BOB, online=online, lease=Lease(shard, token=0))


@pytest.fixture
async def world(world: World) -> World:
    """With the tenants `acme` and `other`, which are active."""
    for name in ("acme", "other"):
        await world.open_tenant(name)
    world.woken.clear()
    return world


@pytest.fixture
async def lhc(world: World, free_port: int) -> AsyncIterator[Lhc]:
    """The LHC of both tenants."""
    for name in ("acme", "other"):
        spec = TenantSpec({"callback_url": f"http://127.0.0.1:{free_port}"})
        await registry.put(world.services, name, spec, Cause("panel"))
    world.woken.clear()
    async with Receiver(free_port) as receiver:
        yield Lhc(receiver)


async def work(world: World, instance_name: str = "acme", at_once: int = 2) -> None:
    """Do all that is due, by several that know nothing of each other."""

    async def one() -> None:
        while piece := await claim_next(world.services, instance_name):
            await deliver(world.services, piece)

    await asyncio.gather(*(one() for _ in range(at_once)))


async def stored(world: World) -> list[CallbackMessage]:
    async with world.services.database.read() as session:
        return list(await session.scalars(select(CallbackMessage).order_by(CallbackMessage.id)))


async def count_attempts(world: World) -> int:
    async with world.services.database.read() as session:
        return await session.scalar(select(func.count()).select_from(DeliveryAttempt)) or 0


async def circuit_state(world: World, instance_name: str = "acme") -> CircuitState:
    return (await circuits.view(world.services, instance_name)).state


async def test_messages_are_kept_once_and_in_order(world: World) -> None:
    await operator_messages.store_messages(world.services, [message(1), message(2), message(1)])
    await operator_messages.store_messages(world.services, [message(2), message(3)])
    await operator_messages.store_messages(world.services, [message(3)])
    async with world.services.database.read() as session:
        (conversation,) = await session.scalars(select(Conversation))
    assert [kept.body for kept in await stored(world)] == ["body 1", "body 2", "body 3"]
    assert conversation.due_at == world.clock.now
    # who is at it, or will be, finds the others
    assert world.woken == [("callbacks.deliver", {"instance_names": ["acme"]})]


async def test_delivery_in_order_with_retries_until_dead(world: World, lhc: Lhc) -> None:
    """One message is refused until it is dead: the next of its conversation waits so long, others do not."""

    async def refuse_the_first(callback: Callback) -> int:
        return 502 if callback.form["body"] == "body 1" else 200

    lhc.does(refuse_the_first)
    await operator_messages.store_messages(world.services, [message(1), message(2), message(3, visitor=2)])
    for _ in range(MAX_ATTEMPTS + 1):
        await work(world)
        world.clock.now += 4 * 3600
    assert sorted(lhc.bodies[:2]) == ["body 1", "body 3"]
    assert [body for body in lhc.bodies if body != "body 3"] == ["body 1"] * MAX_ATTEMPTS + ["body 2"]
    rows = await stored(world)
    assert [(row.state, row.attempts, row.body, row.last_error) for row in rows] == [
        (MessageState.DEAD, MAX_ATTEMPTS, "body 1", "HTTP 502"),
        (MessageState.DELIVERED, 1, None, None),
        (MessageState.DELIVERED, 1, None, None),
    ]
    _, attempts = await history.message(world.services.database, "acme", rows[0].id)
    assert [(attempt.http_status, attempt.error) for attempt in attempts] == [(502, "HTTP 502")] * MAX_ATTEMPTS
    assert [attempt.at for attempt in attempts] == sorted({attempt.at for attempt in attempts})
    async with world.services.database.read() as session:
        assert await claims.due(session, Conversation, world.clock() + DAY, 10) == []


async def test_a_receipt_is_given_when_the_message_is_delivered_and_never_before(world: World, lhc: Lhc) -> None:
    kept = Kept()
    world = replace(world, services=replace(world.services, commands=kept))
    markable = Origin("m1", "desk", wants_receipt=True, is_markable=True)
    asked = [
        replace(message(1), origin=markable),
        replace(message(2), origin=replace(markable, message_id="m2", is_markable=False)),
        replace(message(3), origin=replace(markable, message_id="m3", wants_receipt=False)),
        replace(message(4), origin=replace(markable, message_id="")),
        replace(message(5), origin=replace(markable, message_id="m" * 500)),
        replace(message(6), origin=Origin("m6", "desk")),
    ]

    async def refuse_the_first(callback: Callback) -> int:
        return 502 if callback.form["body"] == "body 1" else 200

    lhc.does(refuse_the_first)
    await operator_messages.store_messages(world.services, asked)
    for _ in range(MAX_ATTEMPTS):
        assert kept.commands == []
        await work(world)
        world.clock.now += 4 * 3600
    await work(world)
    assert [row.state for row in await stored(world)] == [MessageState.DEAD] + 5 * [MessageState.DELIVERED]
    assert all(isinstance(one, SendReceipt) and one.incarnation for one in kept.commands)
    assert _receipts(kept) == [("m2", True, None), ("m3", False, "received")]
    # a dead letter that is replayed arrives late
    lhc.answers(200)
    assert await history.replay_all(world.services, "acme", PANEL) == 1
    await work(world)
    assert _receipts(kept)[2:] == [("m1", True, "received")]


def _receipts(kept: Kept) -> list[tuple[str, bool, str | None]]:
    return [(one.of, one.received, one.marker) for one in kept.commands if isinstance(one, SendReceipt)]


@pytest.mark.usefixtures("lhc")
async def test_a_broker_that_is_away_costs_a_receipt_and_no_message(world: World) -> None:
    origin = Origin("m1", "desk", wants_receipt=True)
    with capture_logs() as logs:
        # the world's own broker is none
        await operator_messages.store_messages(world.services, [replace(message(1), origin=origin)])
        await work(world)
    assert [row.state for row in await stored(world)] == [MessageState.DELIVERED]
    assert "a receipt is lost" in [line["event"] for line in logs]


async def live(world: World, *, seconds: int, step: int) -> None:
    """Let so much time pass, and do at each step what is due."""
    for _ in range(0, seconds, step):
        await work(world)
        world.clock.now += step


async def test_a_chat_that_lhc_does_not_know_is_given_up_soon_and_holds_up_nobody(world: World, lhc: Lhc) -> None:
    """LHC answers 500 to all that is said in it, and takes what is said elsewhere."""

    async def knows_all_but_one(callback: Callback) -> int:
        return 500 if callback.form["receiver"] == "visitor.1.acme" else 200

    lhc.does(knows_all_but_one)
    await operator_messages.store_messages(world.services, [message(number) for number in range(1, 4)])
    await live(world, seconds=10, step=1)
    await operator_messages.store_messages(world.services, [message(8, visitor=8)])
    await work(world)
    assert lhc.bodies[-1] == "body 8"
    await live(world, seconds=300, step=5)
    assert await circuit_state(world) is CircuitState.CLOSED
    first, second, _, other = await stored(world)
    assert [row.state for row in (first, other)] == [MessageState.DEAD, MessageState.DELIVERED]
    assert (first.attempts, second.state) == (MAX_REFUSALS, MessageState.PENDING), "nothing else was received since"
    assert (first.last_error or "").startswith("HTTP 500, while the server takes others: it does")
    await operator_messages.store_messages(world.services, [message(9, visitor=9)])
    await live(world, seconds=1200, step=30)
    assert [row.state for row in (await stored(world))[:2]] == [MessageState.DEAD] * 2
    assert (await circuits.view(world.services, "acme")).failures == 0


async def test_chats_that_lhc_does_not_know_end_soon_though_nothing_else_is_said(world: World, lhc: Lhc) -> None:
    """However many they are: it takes a message of nobody, so its circuit stays closed."""

    async def knows_none(callback: Callback) -> int:
        return 200 if is_of_nobody(callback) else 500

    lhc.does(knows_none)
    visitors = range(1, FAILURES_TO_OPEN + 2)
    await operator_messages.store_messages(world.services, [message(visitor, visitor) for visitor in visitors])
    await live(world, seconds=4000, step=100)
    view = await circuits.view(world.services, "acme")
    assert (view.state, view.failures) == (CircuitState.CLOSED, 0)
    assert [(row.state, row.attempts) for row in await stored(world)] == [(MessageState.DEAD, MAX_DOUBTS)] * len(
        visitors
    )
    asked = [one for one in lhc.receiver.callbacks if is_of_nobody(one)]
    assert {one.raw for one in asked} == {
        b"body=&sender=nobody%20at%20all&receiver=visitor.0.chat&server=localhost&type=chat"
    }
    assert len(asked) == MAX_DOUBTS * len(visitors)


async def test_what_lhc_in_trouble_refuses_is_kept(world: World, lhc: Lhc) -> None:
    """It says 500 to everything, for hours."""
    lhc.answers(500)
    visitors = range(1, FAILURES_TO_OPEN + 1)
    await operator_messages.store_messages(world.services, [message(visitor, visitor) for visitor in visitors])
    await live(world, seconds=7200, step=300)
    assert await circuit_state(world) is not CircuitState.CLOSED
    assert {row.state for row in await stored(world)} == {MessageState.PENDING}
    lhc.answers(200)
    await live(world, seconds=600, step=60)
    assert {row.state for row in await stored(world)} == {MessageState.DELIVERED}


@pytest.mark.parametrize(("status", "tries"), [(302, MAX_REFUSALS), (404, MAX_REFUSALS), (410, 1), (429, 9), (502, 9)])
async def test_an_answer_that_means_no_ends_soon(world: World, lhc: Lhc, status: int, tries: int) -> None:
    lhc.answers(status)
    await operator_messages.store_messages(world.services, [message(1)])
    for _ in range(9):
        await work(world)
        world.clock.now += DAY
    (row,) = await stored(world)
    assert (row.attempts, row.state) == (tries, MessageState.PENDING if tries > MAX_REFUSALS else MessageState.DEAD)
    assert (row.last_error or "").startswith(f"HTTP {status}")
    assert (await circuit_state(world) is CircuitState.CLOSED) is (tries <= MAX_REFUSALS)


async def test_an_lhc_that_refuses_all_is_left_alone_for_a_while(world: World, lhc: Lhc) -> None:
    lhc.answers(302)
    visitors = range(1, 3 * FAILURES_TO_OPEN)
    await operator_messages.store_messages(world.services, [message(1, visitor) for visitor in visitors])
    await work(world, at_once=1)
    assert await circuit_state(world) is CircuitState.OPEN
    assert len(lhc.bodies) == FAILURES_TO_OPEN


async def test_no_answer_is_recorded_as_such(world: World, lhc: Lhc, unused_tcp_port: int) -> None:
    spec = TenantSpec({"callback_url": f"http://127.0.0.1:{unused_tcp_port}"})
    await registry.put(world.services, "acme", spec, Cause("panel"))
    await operator_messages.store_messages(world.services, [message(1)])
    await work(world)
    assert lhc.bodies == []
    (row,) = await stored(world)
    _, (attempt,) = await history.message(world.services.database, "acme", row.id)
    assert attempt.http_status is None
    assert attempt.error is not None
    assert attempt.error.startswith("ClientConnectorError")


async def test_answers_are_bounded_in_size_and_time(lhc: Lhc, world: World) -> None:
    done = asyncio.Event()

    async def pour() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 10_000
        # who wants to read it to the end waits for ever
        await done.wait()

    async def drip() -> AsyncIterator[bytes]:
        while not done.is_set():
            yield b"x"
            await asyncio.sleep(0.01)

    async def one_of_two(callback: Callback) -> Response:
        return StreamingResponse(pour() if callback.raw == b"pour" else drip())

    lhc.does(one_of_two)
    client = LhcClient(Settings(callback_timeout=0.5), world.clock)
    url = f"http://127.0.0.1:{lhc.receiver.port}"
    assert (await client.post_message(url, b"pour")).error is None
    dripped = await client.post_message(url, b"drip")
    assert (dripped.error, dripped.warning) == (None, "received, but no end of the answer within 0.5 s")
    await client.close()
    done.set()


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_puts_a_message_off(world: World, lhc: Lhc, status: int) -> None:
    date = formatdate(world.clock.now + 100, usegmt=True)
    for value, seconds in (("50", 50.0), (date, 100.0), ("999999", MAX_RETRY_AFTER)):
        lhc.receiver.callbacks.clear()
        lhc.answers(status, **{"Retry-After": value})
        await operator_messages.store_messages(world.services, [message(int(seconds))])
        start = world.clock.now
        await work(world)
        lhc.answers(200)
        world.clock.now = start + seconds - 1
        await work(world)
        assert len(lhc.bodies) == 1, f"Retry-After: {value} was not waited for"
        world.clock.now = start + seconds
        await work(world)
        assert len(lhc.bodies) == 2
        world.clock.now = start


async def test_retry_after_does_not_bring_a_message_forward(world: World, lhc: Lhc) -> None:
    lhc.answers(503, **{"Retry-After": "0"})
    await operator_messages.store_messages(world.services, [message(1)])
    await work(world)
    await work(world)
    assert lhc.bodies == ["body 1"]


async def test_only_the_latest_presence_is_told(world: World, lhc: Lhc) -> None:
    for online in (True, True, False, True, False):
        await operator_changed(world, online=online)
    await operator_presence.operator_answered(world.services, BOB, "bob.acme@localhost/desk")
    await work(world)
    await work(world)
    assert lhc.raw == [CONNECT.replace(b"connect", b"disconnect")]
    async with world.services.database.read() as session:
        presence = await session.get_one(OperatorPresence, "bob.acme")
    assert (presence.online, presence.pending, presence.due_at) == (False, None, None)


async def test_a_connection_is_told_again_and_a_ping_is_not(world: World, lhc: Lhc) -> None:
    lhc.answers(500)
    await operator_changed(world, online=True)
    await work(world)
    # it does not take the place of the connection that LHC does not know of
    await operator_presence.operator_answered(world.services, BOB, "bob.acme@localhost/desk")
    lhc.answers(200)
    world.clock.now += 60
    await work(world)
    assert lhc.raw == [CONNECT, CONNECT]
    await operator_presence.operator_answered(world.services, BOB, "bob.acme@localhost/desk")
    lhc.answers(500)
    await work(world)
    lhc.answers(200)
    world.clock.now += DAY
    await work(world)
    assert lhc.raw[2:] == [b'{"action":"ping","user":"bob.acme@localhost/desk"}']


@pytest.mark.parametrize("status", [302, 404, 410, 500])
async def test_a_presence_that_is_refused_counts_once_until_it_passes(world: World, lhc: Lhc, status: int) -> None:
    """LHC takes what is said. It answers 500 as well when the whole of it is in trouble: then nothing else passes."""

    async def refuse(callback: Callback) -> int:
        return 200 if callback.path.endswith("/processmessage") else status

    async def failures() -> int:
        return (await circuits.view(world.services, "acme")).failures

    lhc.does(refuse)
    await operator_changed(world, online=True)
    await work(world)
    # after a 500 LHC is asked whether it takes anything
    counted = 0 if status == HTTPStatus.INTERNAL_SERVER_ERROR else 1
    assert await failures() == counted
    world.clock.now += 1
    await operator_messages.store_messages(world.services, [message(1)])
    await work(world)
    await live(world, seconds=600, step=5)
    assert lhc.raw.count(CONNECT) == (1 if status == HTTPStatus.GONE else MAX_REFUSALS)
    await operator_presence.operator_answered(world.services, BOB, "bob.acme@localhost/desk")
    await work(world)
    await operator_changed(world, online=False)
    await live(world, seconds=600, step=5)
    assert (await circuit_state(world), await failures()) == (CircuitState.CLOSED, 0), "a line passed since the first"
    lhc.answers(200)
    await operator_changed(world, online=True)
    await work(world)
    lhc.does(refuse)
    await operator_changed(world, online=False)
    await work(world)
    assert await failures() == counted, "it passed meanwhile"


async def test_a_presence_that_nobody_answers_counts_each_time(world: World, lhc: Lhc) -> None:
    lhc.answers(503)
    await operator_changed(world, online=True)
    for _ in range(FAILURES_TO_OPEN):
        assert await circuit_state(world) is CircuitState.CLOSED
        await work(world)
        world.clock.now += DAY
    assert (await circuits.view(world.services, "acme")).failures == FAILURES_TO_OPEN


async def open_circuit(world: World, lhc: Lhc) -> None:
    """Fail with the messages of as many conversations as it takes."""
    lhc.answers(500)
    visitors = range(1, FAILURES_TO_OPEN + 1)
    await operator_messages.store_messages(world.services, [message(visitor, visitor) for visitor in visitors])
    await work(world, at_once=1)
    assert len(lhc.bodies) == FAILURES_TO_OPEN
    lhc.receiver.callbacks.clear()


async def test_failures_between_successes_do_not_open_the_circuit(world: World, lhc: Lhc) -> None:
    async def refuse_the_first(callback: Callback) -> int:
        return 500 if callback.form["body"] == "body 1" else 200

    lhc.does(refuse_the_first)
    for number in range(1, 2 * FAILURES_TO_OPEN + 1):
        await operator_messages.store_messages(
            world.services, [message(1, visitor=number), message(2, visitor=100 + number)]
        )
        await work(world, at_once=1)
    assert await circuit_state(world) is CircuitState.CLOSED
    assert lhc.bodies.count("body 1") == 2 * FAILURES_TO_OPEN


async def test_an_open_circuit_lets_nothing_through(world: World, lhc: Lhc) -> None:
    await open_circuit(world, lhc)
    view = await circuits.view(world.services, "acme")
    assert (view.state, view.failures, view.opened_at) == (CircuitState.OPEN, FAILURES_TO_OPEN, world.clock.now)
    await operator_messages.store_messages(world.services, [message(1, visitor=50)])
    await operator_changed(world, online=True)
    await operator_messages.store_messages(world.services, [message(1, instance="other")])
    attempts = await count_attempts(world)
    world.woken.clear()
    await worker.sweep(world.services)
    assert world.woken == [("callbacks.deliver", {"instance_names": ["other"]})]
    await work(world)
    assert lhc.raw == []
    assert await count_attempts(world) == attempts
    # the neighbour's is its own
    lhc.answers(200)
    await work(world, "other")
    assert lhc.bodies == ["body 1"]


async def test_one_probe_goes_and_its_failure_opens_the_circuit_for_longer(world: World, lhc: Lhc) -> None:
    await open_circuit(world, lhc)
    opened_at, pauses = world.clock.now, []
    for probes in range(1, 10):
        view = await circuits.view(world.services, "acme")
        assert view.next_probe_at is not None
        pauses.append(view.next_probe_at - world.clock.now)
        world.clock.now = view.next_probe_at
        await operator_messages.store_messages(world.services, [message(100 + probes, visitor=100 + probes)])
        assert await circuit_state(world) is CircuitState.HALF_OPEN
        await work(world, at_once=10)
        assert len(lhc.bodies) == probes
        assert await circuit_state(world) is CircuitState.OPEN
    assert 2.5 <= pauses[0] <= 5
    assert all(150 <= pause <= 300 for pause in pauses[-3:])
    assert (await circuits.view(world.services, "acme")).opened_at == opened_at


async def test_of_many_at_once_one_is_admitted_as_probe(world: World, lhc: Lhc) -> None:
    await open_circuit(world, lhc)
    world.clock.now += 300

    async def admit() -> circuits.Admission | None:
        async with world.services.database.write() as session:
            return await circuits.admit(session, "acme", world.clock())

    admitted = [admission for admission in await asyncio.gather(*(admit() for _ in range(10))) if admission]
    assert len(admitted) == 1
    assert admitted[0].probe is not None


async def test_a_probe_that_is_received_closes_the_circuit_and_all_goes_on(world: World, lhc: Lhc) -> None:
    """Those too that wait out a failure: it was not their own."""
    await open_circuit(world, lhc)
    for _ in range(4):  # the failures of the probes lengthen the backoff of some
        world.clock.now = (await circuits.view(world.services, "acme")).next_probe_at or 0
        await work(world)
    await operator_changed(world, online=True)
    lhc.receiver.callbacks.clear()
    lhc.answers(200)
    world.clock.now = (await circuits.view(world.services, "acme")).next_probe_at or 0
    await work(world)
    assert sorted(lhc.bodies) == [f"body {number}" for number in range(1, FAILURES_TO_OPEN + 1)]
    assert CONNECT in lhc.raw
    assert await circuits.view(world.services, "acme") == circuits.CircuitSummary(CircuitState.CLOSED, 0, None, None)


async def test_the_probe_of_a_dead_process_is_replaced(world: World, lhc: Lhc) -> None:
    await open_circuit(world, lhc)
    world.clock.now += 300
    lost = await claim_next(world.services, "acme")
    assert lost is not None
    assert lost.probe is not None
    assert await claim_next(world.services, "acme") is None, "there is one probe"
    lhc.answers(200)
    world.clock.now += claims.CLAIM_TERM
    await work(world)
    assert len(lhc.bodies) == FAILURES_TO_OPEN
    # the dead one comes back, and finds that it has lost everything
    lhc.answers(500)
    await deliver(world.services, lost)
    assert await circuit_state(world) is CircuitState.CLOSED
    assert {row.state for row in await stored(world)} == {MessageState.DELIVERED}


async def test_retry_after_prolongs_the_pause(world: World, lhc: Lhc) -> None:
    await open_circuit(world, lhc)
    lhc.answers(503, **{"Retry-After": "1000"})
    world.clock.now += 300
    await work(world)
    assert (await circuits.view(world.services, "acme")).next_probe_at == world.clock.now + 1000


async def kill_messages(world: World, lhc: Lhc, *messages: OperatorMessage) -> list[int]:
    """Let these messages die. Returns their ids."""
    lhc.answers(503)
    await operator_messages.store_messages(world.services, list(messages))
    for _ in range(MAX_ATTEMPTS * len(messages)):
        await work(world, "acme")
        await work(world, "other")
        world.clock.now += DAY
    assert MessageState.PENDING not in {row.state for row in await stored(world)}
    lhc.receiver.callbacks.clear()
    lhc.answers(200)
    return [row.id for row in await stored(world)]


async def test_replay_of_one_dead_message(world: World, lhc: Lhc) -> None:
    first, second = await kill_messages(world, lhc, message(1), message(2))
    assert await circuit_state(world) is not CircuitState.CLOSED
    await operator_messages.store_messages(world.services, [message(3)])
    replayed = await history.replay(world.services, "acme", second, PANEL)
    assert (replayed.state, replayed.attempts, replayed.finished_at) == (MessageState.PENDING, 0, None)
    assert await circuit_state(world) is CircuitState.CLOSED
    with pytest.raises(ConflictError, match="pending, not dead"):
        await history.replay(world.services, "acme", second, PANEL)
    await work(world)
    assert lhc.bodies == ["body 2", "body 3"]
    again, attempts = await history.message(world.services.database, "acme", second)
    assert (again.state, again.attempts) == (MessageState.DELIVERED, 1)
    assert len(attempts) == MAX_ATTEMPTS + 1
    with pytest.raises(ConflictError, match="delivered, not dead"):
        await history.replay(world.services, "acme", second, PANEL)
    for instance_name, message_id in (("other", first), ("acme", 999_999)):
        with pytest.raises(NotFoundError):
            await history.replay(world.services, instance_name, message_id, PANEL)
    assert (await stored(world))[0].state is MessageState.DEAD


async def test_replay_of_all_in_order(world: World, lhc: Lhc) -> None:
    await kill_messages(world, lhc, message(1), message(2), message(8, visitor=2), message(9, instance="other"))
    await operator_messages.store_messages(world.services, [message(3)])
    world.woken.clear()
    assert await history.replay_all(world.services, "acme", PANEL) == 3
    assert world.woken == [("callbacks.deliver", {"instance_names": ["acme"]})]
    assert await history.replay_all(world.services, "acme", PANEL) == 0
    logged = [
        (one.action, one.actor, one.reason) for one in await audit.entries(world.services.database, "acme", limit=1)
    ]
    assert logged == [("deliveries.replayed", "panel", "all 3 dead deliveries: because")]
    await work(world)
    assert [body for body in lhc.bodies if body != "body 8"] == ["body 1", "body 2", "body 3"]
    assert "body 8" in lhc.bodies
    assert [row.state for row in await stored(world)].count(MessageState.DEAD) == 1


async def test_pages_of_deliveries(world: World, lhc: Lhc) -> None:
    ids = await kill_messages(world, lhc, *(message(number) for number in range(3)))
    await operator_messages.store_messages(world.services, [message(7), message(1, instance="other")])

    async def page(**wanted: object) -> list[int]:
        found = await history.messages(world.services.database, "acme", **wanted)  # type: ignore[arg-type]
        return [row.id for row in found]

    assert await page(state=MessageState.DEAD, limit=2) == ids[:2]
    assert await page(state=MessageState.DEAD, after=ids[1]) == ids[2:]
    assert (await page())[:3] == ids
    assert len(await page()) == 4
    assert await page(state=MessageState.DELIVERED) == []


async def test_old_messages_are_forgotten_with_their_attempts(world: World, lhc: Lhc) -> None:
    await operator_messages.store_messages(world.services, [message(1, visitor=1)])
    await work(world)
    await kill_messages(world, lhc, message(2, visitor=2))
    lhc.answers(500)
    await operator_messages.store_messages(world.services, [message(3, visitor=3)])
    await work(world)
    await worker.purge(world.services)
    assert [row.body for row in await stored(world)] == ["body 2", "body 3"]
    world.clock.now += 31 * DAY
    await worker.purge(world.services)
    assert [row.body for row in await stored(world)] == ["body 3"], "what is to be delivered stays, however old"
    assert await count_attempts(world) == 1
    async with world.services.database.read() as session:
        assert list(await session.scalars(select(Conversation.receiver))) == ["visitor.3.acme"]


class Hanging:
    """An LHC that answers nothing until it is let go. Counts what it holds at once."""

    def __init__(self, lhc: Lhc) -> None:
        self.held: list[Callback] = []
        self.most = 0
        self.go = asyncio.Event()
        lhc.does(self._hang)

    async def _hang(self, callback: Callback) -> int:
        self.held.append(callback)
        self.most = max(self.most, len(self.held))
        await self.go.wait()
        self.held.remove(callback)
        return 200


async def test_runners_of_a_tenant_are_few_and_one_wakeup_is_enough(world: World, lhc: Lhc) -> None:
    hanging = Hanging(lhc)
    await operator_messages.store_messages(world.services, [message(number, visitor=number) for number in range(1, 21)])
    runners = Runners(world.services, per_tenant=3)
    runners.start("acme")
    await until(lambda: len(hanging.held) == 3, "three are under way")
    for _ in range(10):
        runners.start("acme")
    hanging.go.set()
    await until(lambda: len(lhc.bodies) == 20, "all arrive")
    await runners.stop(10)
    assert hanging.most == 3


async def test_what_comes_while_the_last_runner_ends_is_not_left(
    world: World, lhc: Lhc, monkeypatch: pytest.MonkeyPatch
) -> None:
    runners = Runners(world.services, per_tenant=1)

    async def message_comes_in_just_after(services: Services, instance_name: str) -> Piece | None:
        piece = await claim_next(services, instance_name)
        if not await stored(world):
            await operator_messages.store_messages(services, [message(1)])
            runners.start(instance_name)
        return piece

    monkeypatch.setattr("tenants.delivery.runners.claim_next", message_comes_in_just_after)
    runners.start("acme")
    await until(lambda: lhc.bodies == ["body 1"], "it arrives")
    await runners.stop(10)


async def test_a_full_process_serves_the_waiting_in_turn(world: World, lhc: Lhc) -> None:
    hanging = Hanging(lhc)
    messages = [message(number, number, instance) for number in range(1, 11) for instance in ("acme", "other")]
    await operator_messages.store_messages(world.services, messages)
    runners = Runners(world.services, per_tenant=3, in_all=3)
    runners.start("acme")
    await until(lambda: len(hanging.held) == 3, "one tenant has taken all places")
    runners.start("other")
    hanging.go.set()
    await until(lambda: len(lhc.bodies) == 20, "all arrive")
    await runners.stop(10)
    assert hanging.most == 3
    order = [callback.form["receiver"].rpartition(".")[2] for callback in lhc.receiver.callbacks]
    assert "other" in order[3:8], "who waited longer came first"


async def test_what_is_not_done_when_the_process_ends_is_given_back(world: World, lhc: Lhc) -> None:
    hanging = Hanging(lhc)
    await operator_messages.store_messages(world.services, [message(1), message(2, visitor=2)])
    runners = Runners(world.services)
    runners.start("acme")
    await until(lambda: len(hanging.held) == 2, "both are under way")
    await runners.stop(0)
    assert await count_attempts(world) == 0
    hanging.go.set()
    await work(world)
    assert sorted(lhc.bodies) == ["body 1", "body 1", "body 2", "body 2"]
    assert {row.state for row in await stored(world)} == {MessageState.DELIVERED}


async def test_what_is_under_way_is_finished_when_the_process_ends(world: World, lhc: Lhc) -> None:
    hanging = Hanging(lhc)
    await operator_messages.store_messages(world.services, [message(1), message(2)])
    runners = Runners(world.services)
    runners.start("acme")
    await until(lambda: len(hanging.held) == 1, "one is under way")
    stopping = asyncio.create_task(runners.stop(10))
    await asyncio.sleep(0)
    hanging.go.set()
    await stopping
    assert lhc.bodies == ["body 1"], "the next is not begun"
    assert [row.state for row in await stored(world)] == [MessageState.DELIVERED, MessageState.PENDING]


async def test_who_was_woken_looks_for_more_for_a_while(
    world: World, lhc: Lhc, monkeypatch: pytest.MonkeyPatch
) -> None:
    runners = Runners(world.services)
    looks: list[list[str]] = []
    look = worker.find_due

    async def find_due(services: Services) -> list[str]:
        looks.append(await look(services))
        return looks[-1]

    monkeypatch.setattr(worker, "find_due", find_due)
    lookout = Lookout(world.services, runners.start, awake=3)
    await operator_messages.store_messages(world.services, [message(1), message(1, instance="other")])
    lookout.wake()
    await until(lambda: sorted(lhc.bodies) == ["body 1", "body 1"], "what nobody was woken for arrives")
    assert ["acme", "other"] in [sorted(names) for names in looks]

    def is_asleep() -> bool:
        return not any(task.get_name() == "lookout" for task in asyncio.all_tasks())

    await until(is_asleep, "it looks no more")
    await operator_messages.store_messages(world.services, [message(2)])
    assert lhc.bodies == ["body 1", "body 1"]
    lookout.wake()
    await until(lambda: lhc.bodies[2:] == ["body 2"], "it was woken again")
    await lookout.close()
    await runners.stop(10)


async def test_a_look_that_fails_is_the_last_until_the_next_wakeup(
    world: World, lhc: Lhc, monkeypatch: pytest.MonkeyPatch
) -> None:
    runners = Runners(world.services)
    looks = 0
    look = worker.find_due

    async def find_due(services: Services) -> list[str]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise OperationalError("SELECT", {}, OSError("the database is away"))
        return await look(services)

    monkeypatch.setattr(worker, "find_due", find_due)
    lookout = Lookout(world.services, runners.start, awake=60)
    lookout.wake()
    await until(lambda: looks == 1, "it fails")
    await operator_messages.store_messages(world.services, [message(1)])
    await asyncio.sleep(0.1)
    assert looks == 1
    lookout.wake()
    await until(lambda: lhc.bodies == ["body 1"], "it looks again")
    await lookout.close()
    await runners.stop(10)


async def test_a_claim_is_kept_while_the_work_is_under_way(world: World) -> None:
    await operator_messages.store_messages(world.services, [message(1)])
    piece = await claim_next(world.services, "acme")
    assert piece is not None
    claim_renewer = claims.ClaimRenewer(world.services.database, world.clock, interval=0.01)

    async def kept_until_now() -> bool:
        async with world.services.database.read() as session:
            conversation = await session.get_one(Conversation, piece.key)
        return conversation.claimed_until == world.clock.now + claims.CLAIM_TERM

    with claim_renewer.keep(Conversation, piece.key, piece.token):
        for _ in range(3):
            world.clock.now += claims.CLAIM_TERM * 0.9
            await until_async(kept_until_now, "the claim is renewed")
        assert await claim_next(world.services, "acme") is None
    await claim_renewer.close()
    world.clock.now += claims.CLAIM_TERM
    successor = await claim_next(world.services, "acme")
    assert successor is not None


async def test_of_two_holders_that_are_done_at_once_the_one_with_the_claim_goes_on(world: World) -> None:
    """The other one stood still until its claim was over."""
    await operator_messages.store_messages(world.services, [message(1), message(2)])
    late = await claim_next(world.services, "acme")
    world.clock.now += claims.CLAIM_TERM
    holder = await claim_next(world.services, "acme")
    assert late is not None
    assert holder is not None
    received = Answer(None, 0.0, 200)
    following = await asyncio.gather(
        *(outcomes.record(world.services, one, one.message, received, go_on=True) for one in (late, holder))
    )
    assert [one.body if one else None for one in following] == [None, "body 2"]


async def test_of_a_backlog_that_is_claimed_what_waited_longest_comes_first(world: World) -> None:
    for number in range(1, 31):
        world.clock.now += 1
        await operator_messages.store_messages(
            world.services, [message(number, visitor=number, instance=name) for name in ("acme", "other")]
        )
    asked = ["acme"] * 3 + ["other"] * 2
    pieces = await asyncio.gather(*(claim_next(world.services, name) for name in asked))
    found = [(one.instance_name, one.message.body, one.more) for one in pieces if one and one.message]
    assert found == [(name, f"body {number}", True) for name, number in zip(asked, (1, 2, 3, 1, 2), strict=True)]

"""Which tenants carry traffic, and how much of it, on both databases."""

import asyncio
from collections.abc import Awaitable

import pytest
from sqlalchemy import select, update

from bench.testbed.receiver import Callback, Receiver
from tenants.conversations import operator_messages, operator_presence
from tenants.conversations.reports import OperatorMessage
from tenants.core.errors import ConflictError, NotFoundError, QuotaExceededError, UnavailableError
from tenants.core.naming import AccountKind, AccountName
from tenants.delivery import worker
from tenants.delivery.claim_work import claim_next
from tenants.delivery.worker import deliver
from tenants.lifecycle import admission, registry
from tenants.lifecycle.admission import Refusal
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.registry import TenantSpec
from tenants.process.rate_limits import CallKind, CallLimiter
from tenants.shards.queues import QueueUnavailableError
from tenants.store.models import (
    Account,
    AccountState,
    CallbackMessage,
    Conversation,
    MessageState,
    OperatorPresence,
    Tenant,
    TenantState,
    VisitorSession,
)
from tenants.visitors import presence
from tests.world.registry import World

S = TenantState
BOB = AccountName(AccountKind.OPERATOR, "bob", "acme")
SHUT = [(S.SUSPENDING,), (S.SUSPENDING, S.SUSPENDED), (S.SUSPENDING, S.SUSPENDED, S.RESUMING), (S.DESTROYING,)]


@pytest.fixture
async def world(world: World) -> World:
    """With the tenant `acme`, which is active."""
    await world.open_tenant("acme")
    world.woken.clear()
    return world


def visitor(number: int) -> AccountName:
    return AccountName(AccountKind.VISITOR, str(number), "acme")


def chat(number: int) -> AccountName:
    return AccountName(AccountKind.CHAT, str(number), "acme")


def message(number: int) -> OperatorMessage:
    return OperatorMessage(f"id-{number}", BOB, visitor(1), f"body {number}", host="localhost")


async def settings(world: World, **changes: object) -> None:
    await registry.put(world.services, "acme", TenantSpec(changes), Cause("test"))


async def add_account(world: World, name: AccountName, **columns: object) -> str:
    username = world.services.naming.username(name)
    values = {"created_at": world.clock(), "last_active_at": world.clock(), "state": AccountState.ACTIVE} | columns
    async with world.services.database.write() as session:
        session.add(Account(username=username, instance_name=name.instance, kind=name.kind, **values))
    return username


async def show(world: World, name: AccountName) -> bool:
    """A page view as far as the broker, which is away. False when the quota refused it."""
    tenant = await registry.get(world.services, "acme")
    try:
        await presence.show(world.services, tenant, name, "nick", "status")
    except QueueUnavailableError:
        return True
    except QuotaExceededError:
        return False
    raise AssertionError("there is no broker")


async def online(world: World) -> list[str]:
    async with world.services.database.read() as session:
        return sorted(await session.scalars(select(VisitorSession.username)))


async def message_states(world: World) -> list[tuple[MessageState, int]]:
    async with world.services.database.read() as session:
        rows = await session.execute(
            select(CallbackMessage.state, CallbackMessage.attempts).order_by(CallbackMessage.id)
        )
        return [(state, attempts) for state, attempts in rows]


@pytest.mark.parametrize("states", SHUT, ids=lambda states: states[-1])
async def test_nothing_is_posted_for_a_tenant_that_is_shut(world: World, states: tuple[TenantState, ...]) -> None:
    assert (await operator_messages.store_messages(world.services, [message(1)])).refused == {}
    world.woken.clear()
    await world.enter("acme", *states)
    assert await claim_next(world.services, "acme") is None
    await worker.sweep(world.services)
    assert world.woken == [], "the sweep passes it by"
    assert await message_states(world) == [(MessageState.PENDING, 0)]
    why = f"tenant 'acme' is {states[-1]}, not active"
    assert (await operator_messages.store_messages(world.services, [message(1), message(2)])).refused == {
        "id-2": Refusal(why)
    }
    assert len(await message_states(world)) == 1


async def test_what_waited_goes_when_the_tenant_is_open_again(world: World, free_port: int) -> None:
    async with Receiver(free_port) as lhc:
        await settings(world, callback_url=f"http://127.0.0.1:{free_port}")
        await operator_messages.store_messages(world.services, [message(1), message(2)])
        await world.enter("acme", S.SUSPENDING, S.SUSPENDED, S.RESUMING, S.ACTIVE)
        world.woken.clear()
        await worker.sweep(world.services)
        assert world.woken == [("callbacks.deliver", {"instance_names": ["acme"]})]
        while piece := await claim_next(world.services, "acme"):
            await deliver(world.services, piece)
        assert [callback.form["body"] for callback in lhc.callbacks] == ["body 1", "body 2"]


async def test_a_tenant_that_is_shut_while_a_conversation_is_delivered(world: World, free_port: int) -> None:
    """The message under way is the last; one that was only claimed is given back without an attempt."""

    async def suspend(_callback: Callback) -> int:
        await world.enter("acme", S.SUSPENDING)
        return 200

    async with Receiver(free_port) as lhc:
        lhc.behaviours["127.0.0.1"] = suspend
        await settings(world, callback_url=f"http://127.0.0.1:{free_port}")
        await operator_messages.store_messages(world.services, [message(1), message(2)])
        piece = await claim_next(world.services, "acme")
        assert piece is not None
        await deliver(world.services, piece)
        assert [callback.form["body"] for callback in lhc.callbacks] == ["body 1"]
    assert await message_states(world) == [(MessageState.DELIVERED, 1), (MessageState.PENDING, 0)]
    async with world.services.database.read() as session:
        conversation = (await session.scalars(select(Conversation))).one()
    assert (conversation.due_at, conversation.claim_token) == (world.clock(), None)


async def test_what_was_claimed_before_the_tenant_was_shut_is_given_back(world: World) -> None:
    """By a process that stood still in between."""
    await operator_messages.store_messages(world.services, [message(1)])
    due_at = world.clock()
    piece = await claim_next(world.services, "acme")
    assert piece is not None
    await world.enter("acme", S.SUSPENDING)
    world.clock.now += 1
    await deliver(world.services, piece)
    assert await message_states(world) == [(MessageState.PENDING, 0)]
    async with world.services.database.read() as session:
        conversation = (await session.scalars(select(Conversation))).one()
    assert (conversation.due_at, conversation.claim_token) == (due_at, None)


async def test_the_sweep_finds_the_open_behind_many_that_are_shut(world: World) -> None:
    """More than one sweep takes, and all of them longer due."""
    async with world.services.database.write() as session:
        for number in range(250):
            name = f"t{number}"
            row = {"state": S.SUSPENDED, "online_seconds": 1, "idle_hours": 1, "created_at": 0, "updated_at": 0}
            session.add(Tenant(instance_name=name, xmpp_host="localhost", **row))
            session.add(Conversation(instance_name=name, receiver=f"visitor.1.{name}", due_at=number))
    await operator_messages.store_messages(world.services, [message(1)])
    world.woken.clear()
    await worker.sweep(world.services)
    assert world.woken == [("callbacks.deliver", {"instance_names": ["acme"]})]


async def test_a_ping_at_a_tenant_that_is_shut_is_not_told(world: World) -> None:
    async with world.services.database.write() as session:
        session.add(OperatorPresence(username="bob.acme", instance_name="acme", online=True))

    async def pending() -> str | None:
        async with world.services.database.read() as session:
            return await session.scalar(select(OperatorPresence.pending))

    await world.enter("acme", S.SUSPENDING)
    await operator_presence.operator_answered(world.services, BOB, "bob.acme@localhost/desk")
    assert await pending() is None
    await world.enter("acme", S.SUSPENDED, S.RESUMING, S.ACTIVE)
    await operator_presence.operator_answered(world.services, BOB, "bob.acme@localhost/desk")
    assert await pending() is not None


async def test_messages_of_several_tenants_are_refused_each_on_its_own(world: World) -> None:
    await world.open_tenant("shut")
    await world.enter("shut", S.SUSPENDING)
    of = {
        name: OperatorMessage(
            name,
            AccountName(AccountKind.OPERATOR, "bob", name),
            AccountName(AccountKind.VISITOR, "1", name),
            "hello",
            host="localhost",
        )
        for name in ("acme", "shut", "nobody")
    }
    assert (await operator_messages.store_messages(world.services, list(of.values()))).refused == {
        "shut": Refusal("tenant 'shut' is suspending, not active"),
        "nobody": Refusal("there is no tenant 'nobody'"),
    }
    assert await message_states(world) == [(MessageState.PENDING, 0)]


async def test_an_operators_message_counts_as_activity_once_a_minute(world: World) -> None:
    await add_account(world, visitor(1))
    began = world.clock()

    async def last_active() -> float | None:
        async with world.services.database.read() as session:
            return await session.scalar(select(Account.last_active_at))

    for later, noted in ((10, 10), (69, 10), (70, 70), (100, 70), (131, 131)):
        world.clock.now = began + later
        await operator_messages.store_messages(world.services, [message(later)])
        assert await last_active() == began + noted


async def test_a_page_view_behind_a_closed_door_leaves_nothing(world: World) -> None:
    await add_account(world, visitor(1))
    tenant = await registry.get(world.services, "acme")
    await world.enter("acme", S.SUSPENDING)
    with pytest.raises(ConflictError, match="tenant 'acme' is suspending, not active"):
        await presence.show(world.services, tenant, visitor(1), "nick", None)
    await world.enter("acme", S.DESTROYING, S.DESTROYED)
    with pytest.raises(NotFoundError, match="there is no tenant 'acme'"):
        await presence.send(world.services, tenant, visitor(1), BOB, body="hello", nick="nick", status=None)
    assert await online(world) == []


async def test_a_door_is_closed_when_who_stands_in_it_is_through(world: World) -> None:
    ended: list[str] = []
    inside = asyncio.Event()

    async def page_view() -> None:
        async with world.services.database.write() as session:
            await admission.hold(session, "acme", AccountKind.VISITOR)
            inside.set()
            await asyncio.sleep(0.3)
            ended.append("page view")

    async def suspend() -> None:
        await inside.wait()
        await world.enter("acme", S.SUSPENDING)
        ended.append("suspended")

    await asyncio.gather(page_view(), suspend())
    assert ended == ["page view", "suspended"]


@pytest.mark.parametrize("state", [None, AccountState.REMOVING])
async def test_a_page_view_of_an_account_that_goes_leaves_no_session(world: World, state: AccountState | None) -> None:
    if state is not None:
        await add_account(world, visitor(1), state=state)
    tenant = await registry.get(world.services, "acme")
    with pytest.raises(UnavailableError, match="is being removed"):
        await presence.show(world.services, tenant, visitor(1), "nick", None)
    assert await online(world) == []


@pytest.mark.parametrize(
    ("changes", "refused", "why"),
    [
        ({"xmpp": False}, {AccountKind.OPERATOR, AccountKind.CHAT, AccountKind.VISITOR}, "the feature 'xmpp'"),
        ({"visitor_tracking": False}, {AccountKind.VISITOR}, "the feature 'visitor_tracking'"),
        ({}, set(), ""),
    ],
)
async def test_what_a_tenant_may_not_is_refused_by_the_features_name(
    world: World, changes: dict[str, object], refused: set[AccountKind], why: str
) -> None:
    await settings(world, **changes)
    for kind in AccountKind:
        asked: list[Awaitable[object]] = [admission.get(world.services, "acme", kind)]
        async with world.services.database.write() as session:
            asked.append(admission.hold(session, "acme", kind))
            for one in asked:
                if kind in refused:
                    with pytest.raises(ConflictError, match=f"tenant 'acme' does not have {why}"):
                        await one
                else:
                    await one


async def test_without_xmpp_messages_wait_and_operators_are_told(world: World) -> None:
    await operator_messages.store_messages(world.services, [message(1)])
    await settings(world, xmpp=False)
    assert await claim_next(world.services, "acme") is None
    assert (await operator_messages.store_messages(world.services, [message(2)])).refused == {
        "id-2": Refusal("tenant 'acme' does not have the feature 'xmpp'")
    }


async def test_no_more_visitors_are_online_than_may_be_however_many_come_at_once(world: World) -> None:
    names = [visitor(number) for number in range(1, 21)]
    for name in [*names, chat(1)]:
        await add_account(world, name)
    await settings(world, max_online_visitors=5)
    shown = await asyncio.gather(*(show(world, name) for name in names))
    assert sum(shown) == 5
    there = [name for name, was in zip(names, shown, strict=True) if was]
    assert await online(world) == sorted(map(world.services.naming.username, there))
    assert await show(world, there[0]), "who is online stays"
    assert await show(world, chat(1)), "somebody waits for an answer"
    one_more = next(name for name in names if name not in there)
    tenant = await registry.get(world.services, "acme")
    with pytest.raises(QuotaExceededError, match="tenant 'acme' may have 5 visitors online") as refused:
        await presence.check_quota(world.services, tenant, one_more)
    assert refused.value.retry_after > 0
    await presence.check_quota(world.services, tenant, there[0])
    # when one has left, another may come, although the row of the first is not gone yet
    async with world.services.database.write() as session:
        leaves = VisitorSession.username == world.services.naming.username(there[0])
        await session.execute(update(VisitorSession).where(leaves).values(online_until=world.clock()))
    assert await show(world, one_more)
    assert not await show(world, there[0])


async def test_a_quota_of_none_lets_nobody_in(world: World) -> None:
    await add_account(world, visitor(1))
    await settings(world, max_online_visitors=0)
    assert not await show(world, visitor(1))


DEFAULT_RATE = 50


class Calls:
    """Counts what a limiter admits."""

    def __init__(self, world: World) -> None:
        self.limiter = CallLimiter(world.services.database, world.clock, DEFAULT_RATE, self._sleep)
        self.slept: list[float] = []

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def at_once(self, number: int) -> int:
        outcomes = await asyncio.gather(
            *(self.limiter.admit("acme", CallKind.OTHER) for _ in range(number)), return_exceptions=True
        )
        assert all(isinstance(outcome, QuotaExceededError | None) for outcome in outcomes)
        return outcomes.count(None)

    async def wait(self) -> float:
        """Seconds that a call is told to wait for."""
        with pytest.raises(QuotaExceededError, match="tenant 'acme' may make") as refused:
            await self.limiter.admit("acme", CallKind.OTHER)
        return refused.value.retry_after


async def test_calls_per_second(world: World) -> None:
    await settings(world, calls_per_second=5)
    calls = Calls(world)
    assert await calls.at_once(20) == 5
    assert await calls.wait() == pytest.approx(0.2)
    assert calls.slept == [pytest.approx(0.2)] * 16, "each refusal comes after a pause"
    world.clock.now += 0.41
    assert await calls.at_once(20) == 2
    world.clock.now += 1000
    assert await calls.at_once(20) == 5, "what was not used long ago is not saved"


async def test_less_than_one_call_per_second(world: World) -> None:
    await settings(world, calls_per_second=0.1)
    calls = Calls(world)
    assert await calls.at_once(20) == 1
    assert await calls.wait() == pytest.approx(10)
    assert set(calls.slept) == {1.0}, "of a second at most"
    world.clock.now += 9.9
    assert await calls.at_once(20) == 0
    world.clock.now += 0.1
    assert await calls.at_once(20) == 1


async def test_a_limit_that_changes_counts_from_then_on(world: World) -> None:
    calls = Calls(world)
    assert await calls.at_once(2 * DEFAULT_RATE) == DEFAULT_RATE, "no limit of its own"
    await settings(world, calls_per_second=0.01)
    world.clock.now += 2
    assert await calls.at_once(20) == 0, "as many were made just before"
    world.clock.now += 100
    assert await calls.at_once(20) == 1
    await settings(world, calls_per_second=5)
    world.clock.now += 2
    assert await calls.at_once(20) == 5
    world.clock.now -= 3600
    assert await calls.at_once(20) == 0, "the clock was set back"
    world.clock.now += 0.21
    assert await calls.at_once(20) == 1
    await settings(world, calls_per_second=None)
    world.clock.now += 2
    assert await calls.at_once(2 * DEFAULT_RATE) == DEFAULT_RATE


async def test_page_views_are_counted_apart(world: World) -> None:
    await settings(world, calls_per_second=5)
    calls = Calls(world)
    assert await calls.at_once(20) == 5
    await calls.limiter.admit("acme", CallKind.PAGE_VIEW)


async def test_an_unknown_tenant_is_counted_like_any_other(world: World) -> None:
    await Calls(world).limiter.admit("nobody", CallKind.OTHER)


async def test_messages_that_may_wait(world: World) -> None:
    """Of one tenant's operators so many, and so many bytes; nobody else is concerned."""
    await settings(world, max_waiting_messages=3)
    await world.open_tenant("other")

    def written(number: int, body: str = "hello", instance: str = "acme") -> OperatorMessage:
        operator = AccountName(AccountKind.OPERATOR, "bob", instance)
        return OperatorMessage(
            f"{instance}-{number}", operator, AccountName(AccountKind.VISITOR, "1", instance), body, host="localhost"
        )

    refused = (await operator_messages.store_messages(world.services, [written(number) for number in range(5)])).refused
    assert {name: one.later for name, one in refused.items()} == {"acme-3": True, "acme-4": True}
    assert "3 messages wait" in refused["acme-3"].reason
    assert (await operator_messages.store_messages(world.services, [written(1, instance="other")])).refused == {}
    # the acknowledgement of what is kept was lost: it is no news that it waits, and nobody is told that it does not
    assert (await operator_messages.store_messages(world.services, [written(1), written(3)])).refused == {
        "acme-3": refused["acme-3"]
    }
    # as others see it that did not store them; and what has been delivered waits no more
    world.clock.now += 10
    assert set((await operator_messages.store_messages(world.services, [written(5)])).refused) == {"acme-5"}
    async with world.services.database.write() as session:
        await session.execute(update(CallbackMessage).values(state=MessageState.DELIVERED))
    world.clock.now += 10
    long = [written(6, "x" * 20_000), written(7, "x" * 20_000)]
    assert set((await operator_messages.store_messages(world.services, long)).refused) == {"acme-7"}

"""Idle accounts go from a real ejabberd, on both databases; accounts are removed by one and never half."""

import asyncio
import itertools
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, update

from bench.testbed.chat_server import ChatServer
from bench.testbed.waiting import until_async
from tenants.accounts import accounts, expiry, removal, rows
from tenants.conversations import operator_messages
from tenants.conversations.reports import OperatorMessage
from tenants.core import scram
from tenants.core.errors import DomainError, QuotaExceededError, UnavailableError
from tenants.core.naming import AccountKind, AccountName
from tenants.ejabberd.bulk import IN_USE
from tenants.ejabberd.client import Ejabberd
from tenants.lifecycle import registry
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.registry import TenantSpec
from tenants.store.models import Account, AccountState, Chat, ChatState, Conversation, TenantState, VisitorSession
from tenants.visitors import presence
from tests.world.registry import World, make_world

PASSWORD = "0123456789abcdef0123"
DAY = 24 * 3600.0
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ChatServer]:
    state = Path(tempfile.mkdtemp(prefix="lhc-expiry-"))
    server = ChatServer(state, {"iq_timeout": 1})
    await server.start()
    yield server
    await server.kill()
    shutil.rmtree(state)


@pytest.fixture
async def world(database_url: str, server: ChatServer) -> AsyncIterator[World]:
    """With an ejabberd behind it."""
    async with make_world(
        database_url, ejabberd_api_url=server.api_url, ejabberd_api_secret=server.api_secret
    ) as world:
        yield world
        await world.clear()


class Tenant:
    """A tenant that is active, with its rosters in ejabberd."""

    def __init__(self, world: World, server: ChatServer) -> None:
        self.world = world
        self.services = world.services
        self.server = server
        self.name = f"x{next(_numbers)}"

    async def open(self, **settings: object) -> "Tenant":
        await self.world.open_tenant(self.name, **settings)
        for kind in ("visitors", "operators"):
            await self.server.make_roster(f"{kind}.{self.name}")
        return self

    def visitor(self, number: int) -> AccountName:
        return AccountName(AccountKind.VISITOR, str(number), self.name)

    def chat(self, number: int) -> AccountName:
        return AccountName(AccountKind.CHAT, str(number), self.name)

    def operator(self, local: str) -> AccountName:
        return AccountName(AccountKind.OPERATOR, local, self.name)

    def username(self, name: AccountName) -> str:
        return self.services.naming.username(name)

    async def add(self, names: Iterable[AccountName], *, idle: float = 0, state: str = "active") -> None:
        """Accounts that were last active `idle` seconds ago."""
        now = self.world.clock()
        rows = {self.username(name): name for name in names}
        verifier = await scram.make_verifier(PASSWORD)
        await self.services.ejabberd.bulk.register(dict.fromkeys(rows, verifier))
        async with self.services.database.write() as session:
            session.add_all(
                Account(
                    username=username,
                    instance_name=self.name,
                    kind=name.kind,
                    state=AccountState(state),
                    created_at=now - idle,
                    last_active_at=now - idle,
                )
                for username, name in rows.items()
            )

    async def register(self, name: AccountName) -> None:
        await accounts.register(self.services, await registry.get(self.services, self.name), name, PASSWORD)

    async def left(self) -> list[str]:
        """The accounts, of which registry and ejabberd must tell the same."""
        async with self.services.database.read() as session:
            rows = await session.execute(
                select(Account.username, Account.state).where(Account.instance_name == self.name)
            )
            known = {username: AccountState(state) for username, state in rows}
        assert set(known.values()) <= {AccountState.ACTIVE}
        assert sorted(known) == await self.services.ejabberd.bulk.accounts(f".{self.name}")
        return sorted(known)

    async def change(self, name: AccountName, **columns: object) -> None:
        async with self.services.database.write() as session:
            await session.execute(update(Account).where(Account.username == self.username(name)).values(**columns))


@pytest.fixture
async def tenant(world: World, server: ChatServer) -> Tenant:
    return await Tenant(world, server).open()


async def test_idle_visitors_and_chats_go_and_nobody_else(world: World, server: ChatServer, tenant: Tenant) -> None:
    suspended = await Tenant(world, server).open()
    patient = await Tenant(world, server).open(idle_hours=48)
    idle = [tenant.visitor(1), tenant.chat(2)]
    online, ending, talking, operator = tenant.visitor(3), tenant.visitor(4), tenant.chat(5), tenant.operator("bob")
    active, pending = tenant.visitor(6), tenant.visitor(7)
    await tenant.add([*idle, online, ending, talking, operator], idle=DAY + 1)
    await tenant.add([pending], idle=DAY + 1, state="pending")
    await tenant.add([active], idle=DAY - 1)
    await suspended.add([suspended.visitor(1)], idle=DAY + 1)
    await patient.add([patient.visitor(1)], idle=2 * DAY - 1)
    async with world.services.database.write() as session:
        for name, until in ((online, 100), (ending, -1)):
            username = tenant.username(name)
            session.add(
                VisitorSession(
                    username=username, instance_name=tenant.name, nick="", status="", online_until=world.clock() + until
                )
            )
    message = OperatorMessage("id", operator, talking, "hello", host="localhost")
    assert (await operator_messages.store_messages(world.services, [message])).refused == {}
    await tenant.change(talking, last_active_at=world.clock() - DAY - 1)
    await world.enter(suspended.name, TenantState.SUSPENDING)

    assert await expiry.run(world.services) == 3
    assert await tenant.left() == sorted(map(tenant.username, [online, ending, talking, operator, active]))
    assert await suspended.left() == [suspended.username(suspended.visitor(1))]
    assert await patient.left() == [patient.username(patient.visitor(1))]

    # when LHC has received the message, the chat goes as well
    async with world.services.database.write() as session:
        await session.execute(update(Conversation).values(due_at=None))
    assert await expiry.run(world.services) == 1
    assert tenant.username(talking) not in await tenant.left()


async def test_an_operators_message_keeps_a_chat(world: World, tenant: Tenant) -> None:
    await tenant.add([tenant.chat(1)], idle=DAY + 1)
    await operator_messages.store_messages(
        world.services, [OperatorMessage("id", tenant.operator("bob"), tenant.chat(1), "hello", host="localhost")]
    )
    async with world.services.database.write() as session:
        await session.execute(update(Conversation).values(due_at=None))
    assert await expiry.run(world.services) == 0


async def test_whose_browser_is_logged_in_is_not_idle(world: World, server: ChatServer, tenant: Tenant) -> None:
    """For as long as it is, and then for as long as anybody else."""
    visitor, chat, gone = tenant.visitor(1), tenant.chat(2), tenant.visitor(3)
    await tenant.add([visitor, chat, gone], idle=DAY + 1)

    async def nobody_is_there() -> bool:
        return await world.services.ejabberd.bulk.browsers() == []

    browsers = [server.browser(tenant.username(name), password=PASSWORD) for name in (visitor, chat)]
    async with browsers[0], browsers[1]:
        for browser in browsers:
            await browser.present("John", "page 1")
        assert await expiry.run(world.services) == 1
        world.clock.now += 2 * DAY
        assert await expiry.run(world.services) == 0
        assert all(not browser.is_closed for browser in browsers)
    await until_async(nobody_is_there, "the browsers' sessions end")
    world.clock.now += DAY - 1
    assert await expiry.run(world.services) == 0
    world.clock.now += 2
    assert await expiry.run(world.services) == 2
    assert await tenant.left() == []


async def test_who_logs_in_while_the_account_is_to_expire_keeps_it(
    world: World, server: ChatServer, tenant: Tenant
) -> None:
    visitor = tenant.visitor(1)
    await tenant.add([visitor], state="removing")
    async with server.browser(tenant.username(visitor), password=PASSWORD) as browser:
        assert await removal.remove_claimed(world.services, [tenant.username(visitor)], only_idle=True) == {
            tenant.username(visitor): IN_USE
        }
        assert await tenant.left() == [tenant.username(visitor)]
        assert not browser.is_closed
        # whom LHC removes goes at once
        await tenant.change(visitor, state=AccountState.REMOVING)
        assert await removal.remove_claimed(world.services, [tenant.username(visitor)]) == {}
        assert await tenant.left() == []


async def test_an_open_chat_keeps_its_account(world: World, tenant: Tenant) -> None:
    await tenant.add([tenant.visitor(1)], idle=DAY + 1)
    async with world.services.database.write() as session:
        session.add(
            Chat(
                instance_name=tenant.name,
                chat_id="1",
                username=tenant.username(tenant.visitor(1)),
                nick="John",
                state=ChatState.PENDING,
                created_at=0.0,
                pending_since=0.0,
            )
        )
    assert await expiry.run(world.services) == 0
    async with world.services.database.write() as session:
        await session.execute(update(Chat).values(state=ChatState.CLOSED))
    assert await expiry.run(world.services) == 1


async def test_tenants_have_their_turns_and_the_next_run_goes_on(world: World, server: ChatServer) -> None:
    many, few = await Tenant(world, server).open(), await Tenant(world, server).open()
    await many.add(map(many.visitor, range(1, 251)), idle=2 * DAY)
    await few.add(map(few.visitor, range(1, 11)), idle=DAY + 1)
    # the time is over after the first round
    time = iter([*[0.0] * 7, *[100.0] * 10])
    assert await expiry.run(world.services, seconds=10, monotonic=lambda: next(time)) == 110
    assert (len(await many.left()), await few.left()) == (150, [])
    assert await expiry.run(world.services) == 150
    assert await many.left() == []


async def test_two_runs_at_once_remove_each_account_once(world: World, tenant: Tenant) -> None:
    await tenant.add(map(tenant.visitor, range(1, 251)), idle=DAY + 1)
    removed = await asyncio.gather(*(expiry.run(world.services) for _ in range(3)))
    assert sum(removed) == 250
    assert await tenant.left() == []


async def test_what_a_run_that_died_has_claimed_is_taken_up(world: World, tenant: Tenant) -> None:
    await tenant.add([tenant.visitor(1), tenant.operator("bob")], state="removing")
    assert await expiry.run(world.services) == 0, "somebody may be at it"
    world.clock.now += rows.REMOVAL_TERM + 1
    assert await expiry.run(world.services) == 2
    assert await tenant.left() == []


async def test_an_ejabberd_that_is_away_costs_one_run(world: World, tenant: Tenant, unused_tcp_port: int) -> None:
    await tenant.add([tenant.visitor(1)], idle=DAY + 1)
    away = replace(world.services, ejabberd=Ejabberd(f"http://127.0.0.1:{unused_tcp_port}/api", "localhost", ""))
    with pytest.raises(UnavailableError):
        await expiry.run(away)
    await away.ejabberd.close()
    assert await expiry.run(world.services) == 1
    assert await tenant.left() == []


async def test_who_meets_an_account_that_is_being_removed_waits_and_makes_it_anew(world: World, tenant: Tenant) -> None:
    name = tenant.visitor(1)
    await tenant.add([name], state="removing")
    row = await registry.get(world.services, tenant.name)
    coming = asyncio.create_task(accounts.ensure_visitor(world.services, row, name, PASSWORD, "nick"))
    await asyncio.sleep(0.3)
    assert not coming.done()
    await removal.remove_claimed(world.services, [tenant.username(name)])
    assert await coming
    assert await tenant.left() == [tenant.username(name)]


async def test_who_waits_too_long_is_told_to_come_again(world: World, tenant: Tenant) -> None:
    name = tenant.visitor(1)
    await tenant.add([name], state="removing")
    row = await registry.get(world.services, tenant.name)
    with pytest.raises(UnavailableError, match="is being removed; try again"):
        await accounts.ensure_visitor(world.services, row, name, PASSWORD, "nick")


async def test_page_views_and_expiry_at_once_never_leave_half_an_account(world: World, tenant: Tenant) -> None:
    """Whoever is online in the end has an account, in the registry and in ejabberd."""
    names = list(map(tenant.visitor, range(1, 61)))
    await tenant.add(names, idle=DAY + 1)
    row = await registry.get(world.services, tenant.name)
    shuffled = random.Random(1)

    async def page_view(name: AccountName) -> None:
        await asyncio.sleep(shuffled.uniform(0, 0.5))
        with suppress(UnavailableError):  # the broker is away, or the account goes: what counts is what is left
            await accounts.ensure_visitor(world.services, row, name, PASSWORD, "nick")
            await presence.show(world.services, row, name, "nick", None)

    async def expire() -> None:
        for _ in range(10):
            await expiry.run(world.services)
            await asyncio.sleep(0.05)

    await asyncio.gather(expire(), *map(page_view, names))
    left = await tenant.left()
    async with world.services.database.read() as session:
        online = sorted(await session.scalars(select(VisitorSession.username)))
    assert online == left


async def test_registering_and_removing_at_once_never_leaves_half_an_account(world: World, tenant: Tenant) -> None:
    bob = tenant.operator("bob")
    chance = random.Random(2)

    async def meddle(*, register: bool) -> None:
        await asyncio.sleep(chance.uniform(0, 1))
        with suppress(DomainError):  # told to come again, or that it is there already
            await (tenant.register(bob) if register else removal.remove(world.services, bob))

    await asyncio.gather(*(meddle(register=number % 2 == 0) for number in range(40)))
    await tenant.left()
    await tenant.register(bob)
    assert await tenant.left() == [tenant.username(bob)]
    await removal.remove(world.services, bob)
    assert await tenant.left() == []


async def test_what_is_registered_while_its_row_goes_is_taken_back(world: World, tenant: Tenant) -> None:
    """As when the tenant ends meanwhile."""
    bob = tenant.operator("bob")

    class Slow(Ejabberd):
        async def register(self, user: str, password: str) -> None:
            await super().register(user, password)
            async with world.services.database.write() as session:
                await session.delete(await session.get_one(Account, user))

    slow = Slow(tenant.server.api_url, tenant.server.host, tenant.server.api_secret)
    row = await registry.get(world.services, tenant.name)
    with pytest.raises(UnavailableError, match="was removed meanwhile"):
        await accounts.register(replace(world.services, ejabberd=slow), row, bob, PASSWORD)
    await slow.close()
    assert await tenant.left() == []


async def test_the_password_of_an_imported_account_is_asked_once(
    world: World, tenant: Tenant, unused_tcp_port: int
) -> None:
    name = tenant.visitor(1)
    await tenant.add([name])
    row = await registry.get(world.services, tenant.name)
    for password in ("wrong", ""):
        assert not await accounts.ensure_visitor(world.services, row, name, password, "nick")
    assert await accounts.ensure_visitor(world.services, row, name, PASSWORD, "nick")
    away = replace(world.services, ejabberd=Ejabberd(f"http://127.0.0.1:{unused_tcp_port}/api", "localhost", ""))
    assert await accounts.ensure_visitor(away, row, name, PASSWORD, "nick")
    assert not await accounts.ensure_visitor(away, row, name, "wrong", "nick")
    await away.ejabberd.close()


async def test_no_more_accounts_are_made_than_may_be_however_many_come_at_once(world: World, tenant: Tenant) -> None:
    await registry.put(world.services, tenant.name, TenantSpec({"max_accounts": 3}), Cause("test"))
    names = [tenant.operator("bob"), *map(tenant.visitor, range(1, 12))]
    outcomes = await asyncio.gather(*map(tenant.register, names), return_exceptions=True)
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert len(refused) == 9
    assert all(isinstance(outcome, QuotaExceededError) for outcome in refused)
    assert {str(outcome) for outcome in refused} == {f"tenant '{tenant.name}' may have 3 accounts"}
    made = [name for name, outcome in zip(names, outcomes, strict=True) if outcome is None]
    assert await tenant.left() == sorted(map(tenant.username, made))
    await tenant.register(made[0])
    world.clock.now += 2 * DAY
    await expiry.run(world.services)
    await tenant.register(tenant.visitor(99))

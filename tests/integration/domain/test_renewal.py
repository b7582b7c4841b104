"""Page views without news: what is known of tenants and visitors, and how it is compared with the database, on both."""

import pytest
from sqlalchemy import delete, select, update

from tenants.core.digests import digest
from tenants.core.naming import AccountKind
from tenants.lifecycle import admission, registry
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.registry import TenantSpec
from tenants.process.cache import MARGIN, TENANT_SECONDS, KnownVisitor
from tenants.store.models import Account, AccountState, Tenant, TenantState, VisitorSession
from tenants.visitors import presence, write_behind
from tests.world.registry import World

NAME = "visitor.1.acme"
ACME = Tenant(instance_name="acme", incarnation="1")
WINDOW = 300.0
PASSWORD_DIGEST = digest(NAME, "0123456789abcdef0123")


@pytest.fixture
async def world(world: World) -> World:
    """With a tenant, and a visitor of it who is online, and known to be."""
    await world.open_tenant("acme", online_seconds=WINDOW)
    await come(world, NAME)
    return world


async def come(world: World, username: str) -> None:
    """A visitor with an account is online from now, and this process knows."""
    now = world.clock()
    account = Account(
        username=username,
        instance_name="acme",
        kind=AccountKind.VISITOR,
        state=AccountState.ACTIVE,
        password_digest=PASSWORD_DIGEST,
        created_at=now,
        last_active_at=now,
    )
    async with world.services.database.write() as session:
        session.add(account)
        session.add(
            VisitorSession(
                username=username,
                instance_name="acme",
                nick="nick",
                status="here",
                online_until=now + WINDOW,
                version=3,
            )
        )
    world.services.cache.keep_account(ACME, account, PASSWORD_DIGEST)
    world.services.cache.keep_session(username, "nick", "here", now + WINDOW, 3)


def known(world: World, username: str = NAME) -> KnownVisitor:
    found = world.services.cache.visitor(username, ACME.incarnation)
    assert found is not None
    return found


async def view(world: World, later: float, username: str = NAME, *, viewed: bool = True) -> None:
    """A page view without news so much later, or a message, and its renewal."""
    world.clock.now += later
    world.services.cache.renew(known(world, username), world.clock() + WINDOW, viewed=viewed)
    await write_behind.renew(world.services)


async def stored(world: World, username: str = NAME) -> VisitorSession | None:
    async with world.services.database.read() as session:
        return await session.get(VisitorSession, username)


async def change(world: World, **columns: object) -> None:
    """Another process has changed the session."""
    async with world.services.database.write() as session:
        await session.execute(update(VisitorSession).values(**columns))


async def change_account(world: World, **columns: object) -> None:
    async with world.services.database.write() as session:
        await session.execute(update(Account).values(**columns))


async def last_active(world: World) -> float | None:
    async with world.services.database.read() as session:
        return await session.scalar(select(Account.last_active_at))


async def test_windows_are_prolonged_and_accounts_touched_once_a_minute(world: World) -> None:
    began = world.clock()
    for later, touched in ((0.5, 0), (60, 60.5), (59, 60.5), (2, 121.5)):
        await view(world, later)
        row = await stored(world)
        assert row is not None
        assert (row.online_until, row.version) == (world.clock() + WINDOW, 3)
        assert known(world).online_until == row.online_until
        assert await last_active(world) == began + touched


async def test_many_at_once(world: World) -> None:
    names = [f"visitor.{number}.acme" for number in range(2, 1500)]
    for name in names:
        account = Account(
            username=name,
            instance_name="acme",
            kind=AccountKind.VISITOR,
            state=AccountState.ACTIVE,
            password_digest=PASSWORD_DIGEST,
            created_at=0,
            last_active_at=0,
        )
        world.services.cache.keep_account(ACME, account, PASSWORD_DIGEST)
        world.services.cache.keep_session(name, "nick", "here", world.clock() + WINDOW, 1)
        async with world.services.database.write() as session:
            session.add(account)
            session.add(
                VisitorSession(
                    username=name, instance_name="acme", nick="nick", status="here", online_until=world.clock() + WINDOW
                )
            )
    world.clock.now += 10
    for name in names:
        world.services.cache.renew(known(world, name), world.clock() + WINDOW, viewed=True)
    await write_behind.renew(world.services)
    async with world.services.database.read() as session:
        ends = await session.scalars(select(VisitorSession.online_until).where(VisitorSession.username != NAME))
        assert set(ends) == {world.clock() + WINDOW}


@pytest.mark.parametrize(
    "columns",
    [{"state": AccountState.REMOVING}, {"password_digest": digest(NAME, "another")}, {"password_digest": None}],
)
async def test_an_account_that_changed_elsewhere_is_known_no_more(world: World, columns: dict[str, object]) -> None:
    ends = world.clock() + WINDOW
    await change_account(world, **columns)
    world.clock.now += 10
    world.services.cache.renew(known(world), world.clock() + WINDOW, viewed=True)
    await write_behind.renew(world.services)
    assert world.services.cache.visitor(NAME, ACME.incarnation) is None
    row = await stored(world)
    assert row is not None
    assert (row.online_until, row.version) == (ends, 3)


async def test_a_status_that_another_process_showed_before_gives_way(world: World) -> None:
    await change(world, status="elsewhere", version=4, online_until=world.clock() + 5 + WINDOW)
    await view(world, 10)
    row = await stored(world)
    assert row is not None
    assert (row.status, row.version, row.online_until) == ("here", 5, world.clock() + WINDOW)


async def test_a_status_that_another_process_showed_later_stays(world: World) -> None:
    await change(world, status="elsewhere", version=4, online_until=world.clock() + 11 + WINDOW)
    await view(world, 10)
    row = await stored(world)
    assert row is not None
    assert (row.status, row.version) == ("elsewhere", 4)
    # whether the pool was told is not known here
    assert world.services.cache.visitor(NAME, ACME.incarnation) is None


async def test_a_message_does_not_bring_back_where_the_visitor_was_before(world: World) -> None:
    # stored, and refused because the pool could not be told: it will be said again
    await change(world, status="elsewhere", version=4, online_until=world.clock() + 5 + WINDOW)
    await view(world, 10, viewed=False)
    row = await stored(world)
    assert row is not None
    assert (row.status, row.version, row.online_until) == ("elsewhere", 5, world.clock() + WINDOW)


async def test_what_was_seen_earlier_is_not_shown_over_what_came_meanwhile(world: World) -> None:
    tenant = await admission.get(world.services, "acme")
    await change(world, status="elsewhere", version=4)
    for over in (3, 0):
        assert not await presence.show_again(world.services, tenant, known(world), over)
    row = await stored(world)
    assert row is not None
    assert (row.status, row.version) == ("elsewhere", 4)


async def test_the_same_after_something_else_is_shown_again(world: World) -> None:
    # of the two that another process stored, the pool may have been told only the first
    await change(world, version=5)
    await view(world, 10)
    row = await stored(world)
    assert row is not None
    assert (row.status, row.version) == ("here", 6)


async def test_the_same_that_another_process_showed_is_prolonged_in_the_next_round(world: World) -> None:
    await change(world, version=4)
    await view(world, 10)
    await write_behind.renew(world.services)
    row = await stored(world)
    assert row is not None
    assert (row.version, row.online_until) == (4, world.clock() + WINDOW)


async def test_what_another_process_prolonged_further_is_known_still(world: World) -> None:
    await change(world, online_until=world.clock() + 11 + WINDOW)
    await view(world, 10)
    row = await stored(world)
    assert row is not None
    assert (row.online_until, row.version) == (world.clock() + 1 + WINDOW, 3)
    assert known(world).version == 3


async def test_a_session_that_was_closed_is_made_anew_unless_the_tenant_is_shut(world: World) -> None:
    await come(world, "visitor.2.acme")
    async with world.services.database.write() as session:
        await session.execute(delete(VisitorSession))
    await view(world, 10)
    row = await stored(world)
    assert row is not None
    assert (row.status, row.online_until) == ("here", world.clock() + WINDOW)
    await world.enter("acme", TenantState.SUSPENDING)
    await view(world, 10, "visitor.2.acme")
    assert await stored(world, "visitor.2.acme") is None


async def test_near_its_end_a_window_is_not_prolonged_from_memory(world: World) -> None:
    world.clock.now += WINDOW - MARGIN - 0.1
    assert known(world)
    world.clock.now += 0.1
    assert world.services.cache.visitor(NAME, ACME.incarnation) is None


async def test_a_visitor_who_was_removed_here_is_known_no_more(world: World) -> None:
    world.services.cache.renew(known(world), world.clock() + WINDOW + 10, viewed=True)
    world.services.cache.forget_visitor(NAME)
    assert world.services.cache.visitor(NAME, ACME.incarnation) is None
    assert world.services.cache.take_renewed() == []


async def test_a_tenant_is_read_again_while_it_is_used(world: World) -> None:
    await admission.get(world.services, "acme")
    assert world.services.cache.tenants.get("acme") is not None
    await world.enter("acme", TenantState.SUSPENDING)
    world.clock.now += TENANT_SECONDS / 2
    await write_behind.refresh(world.services)
    tenant = world.services.cache.tenants.get("acme")
    assert tenant is not None
    assert tenant.state is TenantState.SUSPENDING
    for _ in range(2):
        # the second time nobody has asked for it since it was read
        world.clock.now += TENANT_SECONDS / 2
        await write_behind.refresh(world.services)
    world.clock.now += TENANT_SECONDS / 2
    assert world.services.cache.tenants.get("acme") is None


async def test_what_this_process_changes_of_a_tenant_is_known_at_once(world: World) -> None:
    await admission.get(world.services, "acme")
    await registry.put(world.services, "acme", TenantSpec({"xmpp": False}), Cause("test"))
    assert world.services.cache.tenants.get("acme") is None

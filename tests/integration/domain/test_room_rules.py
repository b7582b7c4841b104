"""The rules of rooms on both databases, without ejabberd."""

from typing import Any

import pytest
from sqlalchemy import select

from tenants.conversations import room_reports, rooms
from tenants.conversations.reports import RoomReport
from tenants.conversations.rooms import MAX_MEMBERS, Participant
from tenants.core.errors import ConflictError, ForeignNameError, InvalidInputError, NotFoundError, TakenError
from tenants.core.naming import AccountKind, AccountName, Naming, RoomName
from tenants.ejabberd.errors import EjabberdUnavailableError
from tenants.lifecycle.admission import Refusal
from tenants.store.models import (
    Account,
    AccountState,
    CallbackMessage,
    Room,
    RoomMember,
    RoomOrigin,
    RoomState,
    TenantState,
)
from tests.world.registry import World

BOB = AccountName(AccountKind.OPERATOR, "bob", "acme")


async def create(world: World, name: str = "jd,br") -> Room:
    return await rooms.create(world.services, "acme", name, RoomOrigin.LHC)


async def put(world: World, who: Participant, nick: str | None = None) -> str:
    return (await rooms.put_member(world.services.database, "acme", "jd,br", who, nick)).nick


async def add(world: World, *rows: Any) -> None:
    async with world.services.database.write() as session:
        session.add_all(rows)


def room(world: World, state: RoomState = RoomState.ACTIVE) -> Room:
    now = world.clock()
    made = {"title": "t", "origin": RoomOrigin.LHC, "state": state, "created_at": now, "changed_at": now}
    return Room(instance_name="acme", name="jd,br", **made)


def page_operator(name: str = "John.Doe.operator") -> Participant:
    return rooms.person(Naming(hosting=True), "acme", name)


async def test_a_creation_that_ended_half_way_goes_on(world: World) -> None:
    await world.open_tenant("acme")
    for _ in range(2):
        with pytest.raises(EjabberdUnavailableError):
            await create(world)
    async with world.services.database.read() as session:
        (row,) = await session.scalars(select(Room))
        assert row.state is RoomState.PENDING
    # nobody is told of it before it is there
    assert await rooms.find(world.services.database, "acme") == []
    with pytest.raises(NotFoundError):
        await rooms.get(world.services.database, "acme", "jd,br")


@pytest.mark.parametrize(("state", "error"), [(RoomState.ACTIVE, TakenError), (RoomState.REMOVING, ConflictError)])
async def test_a_name_is_given_once(world: World, state: RoomState, error: type[Exception]) -> None:
    await world.open_tenant("acme")
    await add(world, room(world, state))
    with pytest.raises(error):
        await create(world, "JD,BR")


async def test_a_removal_that_ended_half_way_stays_one(world: World) -> None:
    await world.open_tenant("acme")
    await add(world, room(world))
    for _ in range(2):
        with pytest.raises(EjabberdUnavailableError):
            await rooms.destroy(world.services, "acme", "jd,br")
    assert await rooms.find(world.services.database, "acme") == []
    with pytest.raises(NotFoundError):
        await rooms.destroy(world.services, "acme", "another")


async def test_members_have_names(world: World) -> None:
    await world.open_tenant("acme")
    await add(world, room(world))
    john = page_operator()
    assert await put(world, john) == "John Doe"
    assert await put(world, john, "  Johnny ") == "Johnny"
    (member,) = (await rooms.get(world.services.database, "acme", "jd,br")).members
    assert (member.username, member.nick) == ("john.doe.operator", "Johnny")
    bob = rooms.person(world.services.naming, "acme", "Bob.acme")
    with pytest.raises(NotFoundError):
        await put(world, bob)
    now = world.clock()
    account = {"instance_name": "acme", "kind": AccountKind.OPERATOR, "state": AccountState.ACTIVE}
    await add(world, Account(username="bob.acme", created_at=now, last_active_at=now, **account))
    assert await put(world, bob) == "bob"
    await rooms.remove_member(world.services.database, "acme", "jd,br", john)
    assert [one.username for one in (await rooms.get(world.services.database, "acme", "jd,br")).members] == ["bob.acme"]


async def test_a_room_has_a_bounded_number_of_members(world: World) -> None:
    await world.open_tenant("acme")
    await add(world, room(world))
    for number in range(MAX_MEMBERS):
        await put(world, page_operator(f"o{number}.operator"))
    with pytest.raises(ConflictError, match=f"{MAX_MEMBERS} members"):
        await put(world, page_operator())
    assert await put(world, page_operator("o1.operator"), "a new name") == "a new name"


async def test_who_is_meant(world: World) -> None:
    def person(name: str, instance_name: str = "acme") -> Participant:
        return rooms.person(world.services.naming, instance_name, name)

    assert person("Name.Surname.operator") == Participant(
        "name.surname.operator", "name.surname.operator", "Name Surname"
    )
    assert person("bob.acme") == Participant("bob.acme", "bob.operator", "bob")
    assert (person("bob.acme").has_account, person("Bob.operator").has_account) == (True, False)
    # whatever another tenant is called: it is the caller's own
    assert person("bob.operator") == person("bob.operator", "operator")
    for foreign in ("bob.my-acme", "bob.acme.another"):
        with pytest.raises(ForeignNameError):
            person(foreign)
    for nobody in ("visitor.1.acme", "visitor.1.chat.acme", "a b.operator", ".operator", "bob"):
        with pytest.raises(InvalidInputError):
            person(nobody)


def reports() -> list[RoomReport]:
    there = RoomName("jd,br", "acme")
    return [
        RoomReport("1", BOB, there, arrived=True, host="localhost"),
        RoomReport("2", BOB, there, "hello", host="localhost"),
        RoomReport("2", BOB, there, "hello", host="localhost"),
        RoomReport("3", BOB, there, arrived=False, host="localhost"),
    ]


async def events(world: World) -> list[tuple[str, str]]:
    async with world.services.database.read() as session:
        rows = await session.scalars(select(CallbackMessage).order_by(CallbackMessage.id))
        return [(row.event, row.receiver) for row in rows]


@pytest.mark.parametrize(
    ("event_format", "members", "told"),
    [
        ("lhc", [], False),
        ("lhc", ["bob.acme"], False),
        ("lhc", ["john.operator", "bob.acme"], True),
        ("webhook", [], True),
    ],
)
async def test_who_is_told(world: World, event_format: str, members: list[str], *, told: bool) -> None:
    await world.open_tenant("acme", event_format=event_format, callback_url="https://acme.example")
    made = room(world)
    made.members = [RoomMember(username=username, nick=username) for username in members]
    await add(world, made)
    assert await room_reports.store_reports(world.services, reports()) == {}
    assert await room_reports.store_reports(world.services, reports()) == {}
    expected = [("room.joined", "jd,br"), ("room.message", "jd,br"), ("room.left", "jd,br")]
    assert await events(world) == (expected if told else [])


@pytest.mark.parametrize("state", [None, RoomState.REMOVING])
async def test_what_is_refused(world: World, state: RoomState | None) -> None:
    await world.open_tenant("acme", event_format="webhook", callback_url="https://acme.example")
    if state is not None:
        await add(world, room(world, state))
    refused = await room_reports.store_reports(world.services, reports())
    assert refused == dict.fromkeys("123", Refusal("there is no room 'jd,br'"))
    await world.enter("acme", TenantState.SUSPENDING, TenantState.SUSPENDED)
    refused = await room_reports.store_reports(world.services, reports())
    assert refused == dict.fromkeys("123", Refusal("tenant 'acme' is suspended, not active"))
    assert await events(world) == []

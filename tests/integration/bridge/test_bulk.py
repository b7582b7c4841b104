"""The admin commands that take many names at once, in a real ejabberd."""

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.testbed.chat_server import ChatServer
from bench.testbed.waiting import until
from tenants.core import scram
from tenants.core.errors import InvalidInputError
from tenants.ejabberd import answers
from tenants.ejabberd.bulk import BATCH, Kind, Left, NewMember, SharedRoster
from tenants.ejabberd.client import Ejabberd
from tenants.ejabberd.errors import EjabberdError, PasswordRefusedError
from tests.world.component import Component

_numbers = itertools.count(1)

# what SASLprep maps, composes or forbids: soft hyphen, spaces, ligature, compatibility forms, right to left, controls
_SPECIAL = (
    "\u00ad\u200b\u00a0\u3000\ufb01\u2126\uff21e\u0301\u00aa\u0627\u05d0\u0661\u0000\u007f\u200f\ue000\ufffd\ufdd0\u0340"
    "\u0221\U0001f600\u1e9e\u2028\ufeff"
)
PASSWORDS = st.text(st.one_of(st.sampled_from(_SPECIAL + "ab1 "), st.characters()), min_size=1, max_size=8)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ChatServer]:
    state = Path(tempfile.mkdtemp(prefix="lhc-bulk-"))
    server = ChatServer(state, {"iq_timeout": 1})
    await server.start()
    yield server
    await server.kill()
    shutil.rmtree(state)


@pytest.fixture(scope="module")
async def ejabberd(server: ChatServer) -> AsyncIterator[Ejabberd]:
    client = server.client()
    yield client
    await client.close()


@pytest.fixture
async def tenant(server: ChatServer) -> str:
    """A tenant of its own for each test, with its rosters."""
    name = f"b{next(_numbers)}"
    await make_rosters(server, name)
    return name


async def make_rosters(server: ChatServer, name: str) -> None:
    visitors, operators = f"visitors.{name}", f"operators.{name}"
    for group, displayed in ((visitors, ()), (operators, (operators, visitors))):
        await server.make_roster(group, *displayed, label=group.partition(".")[0], description="d")


def groups_of(name: str) -> list[str]:
    return [f"visitors.{name}", f"operators.{name}"]


async def register(ejabberd: Ejabberd, *users: str, password: str = "operator-pw") -> dict[str, str]:
    return await ejabberd.bulk.register({user: await scram.make_verifier(password) for user in users})


async def test_an_operator_sees_the_contact_go_and_nothing_of_it_is_left(
    server: ChatServer, ejabberd: Ejabberd, tenant: str
) -> None:
    bob, visitor = f"bob.{tenant}", f"visitor.1.{tenant}"
    await register(ejabberd, bob, visitor)
    assert await ejabberd.bulk.set_nicks({visitor: "John"}) == [visitor]
    await ejabberd.bulk.add_to_roster([bob], f"operators.{tenant}")
    async with server.operator(bob) as client:
        assert await ejabberd.bulk.add_to_roster([visitor], f"visitors.{tenant}") == []
        await client.has_contact(visitor, "John")
        assert set(await ejabberd.bulk.tenant_left(f".{tenant}", [])) == {
            Kind.ACCOUNTS,
            Kind.ROSTERS,
            Kind.MEMBERS,
            Kind.SESSIONS,
            Kind.VCARDS,
            Kind.LAST_ACTIVITY,  # begins with the registration
        }
        assert await ejabberd.bulk.remove_users([visitor]) == {}
        await client.has_no_contact(visitor)
        assert await ejabberd.bulk.usernames(f".{tenant}") == [bob]
        # the end of the session stores when it was
        assert await ejabberd.bulk.remove_users([bob]) == {}
        await until(client.disconnected.is_set, "the operator's session is ended")
    left = await ejabberd.bulk.tenant_left(f".{tenant}", [])
    assert left == {Kind.ROSTERS: Left(2, tuple(sorted(groups_of(tenant))))}


async def test_an_operator_who_is_added_while_online_gets_the_visitors(
    server: ChatServer, ejabberd: Ejabberd, tenant: str
) -> None:
    bob, visitor = f"bob.{tenant}", f"visitor.1.{tenant}"
    await register(ejabberd, bob, visitor)
    await ejabberd.bulk.set_nicks({visitor: "John"})
    await ejabberd.bulk.add_to_roster([visitor], f"visitors.{tenant}")
    async with server.operator(bob) as client:
        await ejabberd.bulk.add_to_roster([bob], f"operators.{tenant}")
        await client.has_contact(visitor, "John")
        assert await ejabberd.bulk.set_nicks({visitor: "Jane", f"visitor.2.{tenant}": "Nobody"}) == [visitor]
        await client.has_contact(visitor, "Jane")
        assert await ejabberd.bulk.set_nicks({visitor: "Jane"}) == []


async def test_leaving_a_roster_is_seen_by_both_sides(server: ChatServer, ejabberd: Ejabberd, tenant: str) -> None:
    bob, eve, visitor = f"bob.{tenant}", f"eve.{tenant}", f"visitor.1.{tenant}"
    await register(ejabberd, bob, eve, visitor)
    await ejabberd.bulk.add_to_roster([bob, eve], f"operators.{tenant}")
    await ejabberd.bulk.add_to_roster([visitor], f"visitors.{tenant}")
    async with server.operator(bob) as first, server.operator(eve) as second:
        await first.has_contact(visitor)
        await second.has_contact(visitor)
        await second.has_contact(bob)
        assert await ejabberd.bulk.remove_from_roster([bob], f"operators.{tenant}") == []
        await second.has_no_contact(bob)
        await first.has_no_contact(visitor)
        assert await ejabberd.bulk.remove_from_roster([visitor, "nobody"], f"visitors.{tenant}") == []
        await second.has_no_contact(visitor)
    assert await ejabberd.bulk.accounts(f".{tenant}") == [bob, eve, visitor]
    assert await ejabberd.roster_members(f"operators.{tenant}") == [eve]


async def test_what_an_account_left_behind_goes_as_well(server: ChatServer, ejabberd: Ejabberd, tenant: str) -> None:
    """Orphans: a member of a roster alone, a vCard alone, offline messages of an account that vanished."""
    bob, member, named, gone = (f"{name}.{tenant}" for name in ("bob", "visitor.1", "visitor.2", "visitor.3"))
    await register(ejabberd, bob)
    await ejabberd.bulk.add_to_roster([member], f"visitors.{tenant}")
    await server.command("set_nickname", user=named, host=server.host, nickname="John")
    async with Component(server) as component:
        component.say(gone, bob, "is anybody there?")
    left = await ejabberd.bulk.tenant_left(f".{tenant}", groups_of(tenant))
    assert {kind: left[kind].names for kind in (Kind.MEMBERS, Kind.VCARDS, Kind.OFFLINE_MESSAGES)} == {
        Kind.MEMBERS: (member,),
        Kind.VCARDS: (named,),
        Kind.OFFLINE_MESSAGES: (bob,),
    }
    assert await ejabberd.bulk.usernames(f".{tenant}") == [bob, member, named]
    assert await ejabberd.bulk.accounts(f".{tenant}") == [bob]
    for _ in range(2):
        assert await ejabberd.bulk.remove_users([member, named, bob, gone]) == {}
    assert set(await ejabberd.bulk.tenant_left(f".{tenant}", [])) == {Kind.ROSTERS}


async def test_tenants_with_similar_names_do_not_touch_each_other(
    server: ChatServer, ejabberd: Ejabberd, tenant: str
) -> None:
    other = f"my-{tenant}"
    await make_rosters(server, other)
    names = {suffix: [f"bob.{suffix}", f"visitor.1.{suffix}"] for suffix in (tenant, other)}
    for name, users in names.items():
        await register(ejabberd, *users)
        await ejabberd.bulk.add_to_roster(users, f"visitors.{name}")
    before = await ejabberd.bulk.tenant_left(f".{other}", groups_of(other))
    assert await ejabberd.bulk.accounts(f".{tenant}") == names[tenant]
    assert await ejabberd.bulk.usernames(f".{tenant}") == names[tenant]
    assert await ejabberd.bulk.remove_users(names[tenant]) == {}
    assert await ejabberd.bulk.forget_tenant(f".{tenant}") == 0
    assert await ejabberd.bulk.tenant_left(f".{other}", groups_of(other)) == before
    assert before[Kind.MEMBERS] == Left(2, tuple(names[other]))


async def test_many_names_are_several_calls(server: ChatServer, ejabberd: Ejabberd, tenant: str) -> None:
    users = sorted(f"visitor.{number}.{tenant}" for number in range(1, BATCH + 2))
    verifier = await scram.make_verifier("pw")
    assert await ejabberd.bulk.register(dict.fromkeys(users, verifier)) == dict.fromkeys(users, "created")
    before = await server.command("stats_host", host=server.host, name="registeredusers")
    assert await ejabberd.bulk.add_to_roster(users, f"visitors.{tenant}") == []
    assert await ejabberd.bulk.accounts(f".{tenant}") == users
    assert [user for user in await ejabberd.bulk.accounts() if user.endswith(f".{tenant}")] == users
    left = await ejabberd.bulk.tenant_left(f".{tenant}", [])
    assert left[Kind.ACCOUNTS] == Left(BATCH + 1, tuple(users[:20]))
    for _ in range(2):
        assert await ejabberd.bulk.remove_users(users) == {}
    after = await server.command("stats_host", host=server.host, name="registeredusers")
    assert answers.single(before, "stat") - answers.single(after, "stat") == BATCH + 1


async def test_shared_rosters_are_read_in_pages(
    server: ChatServer, ejabberd: Ejabberd, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ejabberd.bulk.add_to_roster([f"visitor.2.{tenant}", f"visitor.1.{tenant}"], f"visitors.{tenant}")
    expected = sorted(await server.command("srg_list", host=server.host))
    for page in (1, 2, 200):
        monkeypatch.setattr("tenants.ejabberd.bulk._ROSTER_PAGE", page)
        rosters = {roster.group: roster async for roster in ejabberd.bulk.shared_rosters()}
        assert list(rosters) == expected
        visitors, operators = groups_of(tenant)
        members = (f"visitor.1.{tenant}", f"visitor.2.{tenant}")
        assert rosters[visitors] == SharedRoster(visitors, "visitors", "d", (), members)
        assert rosters[operators] == SharedRoster(operators, "operators", "d", (operators, visitors), ())


async def test_messages_that_wait_for_the_pool_are_dropped(server: ChatServer, ejabberd: Ejabberd, tenant: str) -> None:
    other = f"my-{tenant}"
    await make_rosters(server, other)
    for name in (tenant, other):
        await register(ejabberd, f"bob.{name}")
        await ejabberd.bulk.add_to_roster([f"bob.{name}"], f"operators.{name}")
        async with server.operator(f"bob.{name}") as bob:
            for number in range(3):
                bob.write(f"visitor.{number}.chat.{name}", f"message {number}")
            await bob.taken()
    assert (await ejabberd.bulk.tenant_left(f".{tenant}", []))[Kind.WAITING_MESSAGES].count == 3
    assert await ejabberd.bulk.forget_tenant(f".{tenant}") == 3
    assert await ejabberd.bulk.forget_tenant(f".{tenant}") == 0
    async with Component(server) as component:
        await until(lambda: len(component.stored) >= 3, "the other tenant's messages come")
    assert {handed.operator for handed in component.stored} == {f"bob.{other}"}


async def test_a_verifier_sets_the_password(server: ChatServer, ejabberd: Ejabberd, tenant: str) -> None:
    bob = f"bob.{tenant}"
    assert await register(ejabberd, bob, password="first") == {bob: "created"}
    assert await register(ejabberd, bob) == {bob: "updated"}
    async with server.operator(bob):  # SCRAM-SHA-1
        pass
    assert await server.command("check_password", user=bob, host=server.host, password="operator-pw") == 0
    assert await server.command("check_password", user=bob, host=server.host, password="first") == 1
    verifier = await scram.make_verifier("third")
    await ejabberd.bulk.register({bob: verifier})
    assert "lhc_register_scram" in server.log
    assert [
        name for name, value in verifier.arguments().items() if str(value) in server.log and name.endswith("key")
    ] == []


async def test_new_members_are_made_and_others_left_as_they_are(
    server: ChatServer, ejabberd: Ejabberd, tenant: str
) -> None:
    group = f"visitors.{tenant}"
    await make_rosters(server, tenant)
    new, known, homeless = (f"visitor.{number}.{tenant}" for number in range(3))
    assert await register(ejabberd, known, password="first") == {known: "created"}
    verifier = await scram.make_verifier("second")
    groups = {new: group, known: group, homeless: f"nowhere.{tenant}"}
    wanted = {username: NewMember(name, "", verifier) for username, name in groups.items()}
    results = await ejabberd.bulk.register_members(wanted)
    assert results == {new: "created", known: "exists", homeless: "no_member"}
    assert await server.command("check_password", user=new, host=server.host, password="second") == 0
    assert await server.command("check_password", user=known, host=server.host, password="first") == 0
    assert await ejabberd.roster_members(group) == [new]


@given(password=PASSWORDS)
@example(password="\ud800")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_passwords_are_those_of_ejabberd(server: ChatServer, ejabberd: Ejabberd, password: str) -> None:
    """What is taken here lets the client in, by SCRAM and by PLAIN; what is refused here ejabberd refuses too."""
    user = f"user-{next(_numbers)}.acme"  # a name without a tenant cannot log in
    try:
        verifier = await scram.make_verifier(password)
    except InvalidInputError as refusal:
        if refusal.rule == "must not be empty":
            return  # ejabberd takes a password of which nothing is left
        with pytest.raises(PasswordRefusedError):
            await ejabberd.register(user, password)
        return
    assert await ejabberd.bulk.register({user: verifier}) == {user: "created"}
    assert await server.command("check_password", user=user, host=server.host, password=password) == 0
    client = server.operator(user, password=password)
    await client.connect(available=False)
    await client.leave()


@pytest.mark.parametrize(
    ("command", "arguments", "field"),
    [
        ("lhc_remove_users", {"users": ["Bob"]}, "users"),
        ("lhc_remove_users", {"users": ["bob@localhost"]}, "users"),
        ("lhc_remove_users", {"users": [""]}, "users"),
        ("lhc_remove_users", {"users": ["x"] * 1001}, "users"),
        ("lhc_remove_users", {"host": "elsewhere", "users": []}, "host"),
        ("lhc_accounts", {"suffix": "acme", "after": "", "limit": 1}, "suffix"),
        ("lhc_accounts", {"suffix": ".", "after": "", "limit": 1}, "suffix"),
        ("lhc_accounts", {"suffix": "", "after": "", "limit": 0}, "limit"),
        ("lhc_accounts", {"host": "elsewhere", "suffix": "", "after": "", "limit": 1}, "host"),
        ("lhc_usernames", {"suffix": "", "after": "", "limit": 1}, "suffix"),
        ("lhc_shared_rosters", {"after": "", "limit": 10_001}, "limit"),
        ("lhc_add_to_rosters", {"group": "visitors.nobody", "users": []}, "group"),
        ("lhc_add_to_rosters", {"group": "visitors.nobody", "users": ["@all@"]}, "users"),
        ("lhc_remove_from_rosters", {"group": "visitors.nobody", "users": ["@all@"]}, "users"),
        ("lhc_present", {"host": "elsewhere", "user": "x", "resource": "x", "nick": [], "status": []}, "host"),
        ("lhc_tell", {"user": "Not prepared", "text": "x"}, "users"),
        ("lhc_tenant_left", {"suffix": ".A", "groups": []}, "suffix"),
        ("lhc_forget_tenant", {"suffix": "acme"}, "suffix"),
    ],
)
async def test_a_wrong_argument_is_refused_by_its_name(
    ejabberd: Ejabberd, command: str, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(EjabberdError, match=f": {field}: "):
        await ejabberd._call(command, **{"host": ejabberd.host, **arguments})  # noqa: SLF001 - the methods build only right ones


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"user": "A"}, "users"),
        ({"hash": "sha256"}, "hash"),
        ({"iterations": 1}, "iterations"),
        ({"salt": ""}, "salt"),
        ({"salt": "#"}, "salt"),
        ({"stored_key": "AAAA"}, "stored_key"),
        ({"server_key": "AAAA"}, "server_key"),
    ],
)
async def test_a_wrong_verifier_is_refused_and_nobody_is_registered(
    ejabberd: Ejabberd, tenant: str, wrong: dict[str, Any], field: str
) -> None:
    right = (await scram.make_verifier("pw")).arguments()
    accounts = [{"user": f"bob.{tenant}", **right}, {"user": f"eve.{tenant}", **right, **wrong}]
    with pytest.raises(EjabberdError, match=f": {field}: "):
        await ejabberd._call("lhc_register_scram", host=ejabberd.host, password=accounts)  # noqa: SLF001 - the method builds only right ones
    assert await ejabberd.bulk.accounts(f".{tenant}") == []

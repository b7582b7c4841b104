"""The admin client against a real ejabberd: what it reads back, and which error says what."""

from collections.abc import AsyncIterator

import pytest

from bench.testbed.system import System
from tenants.ejabberd.client import Ejabberd, Roster
from tenants.ejabberd.errors import (
    EjabberdError,
    EjabberdUnavailableError,
    PasswordRefusedError,
    UserExistsError,
    UserUnknownError,
)

VISITORS = Roster("Visitors", "of the client's test", ())
OPERATORS = Roster("Operators", "", ("operators.client-test", "visitors.client-test"))


@pytest.fixture
async def ejabberd(system: System) -> AsyncIterator[Ejabberd]:
    endpoints = system.endpoints
    client = Ejabberd(endpoints["ejabberd_api"], endpoints["xmpp_host"], endpoints["ejabberd_api_secret"])
    yield client
    await client.close()


async def test_it_asks_for_the_version(ejabberd: Ejabberd) -> None:
    assert await ejabberd.version() >= (23, 1)


async def test_accounts(ejabberd: Ejabberd) -> None:
    await ejabberd.register("one.client-test", "pw")
    with pytest.raises(UserExistsError, match="already registered"):
        await ejabberd.register("one.client-test", "pw")
    await ejabberd.change_password("one.client-test", "other")
    with pytest.raises(UserUnknownError):
        await ejabberd.change_password("nobody.client-test", "pw")
    # both directions of writing in one word
    with pytest.raises(PasswordRefusedError):
        await ejabberd.register("two.client-test", "a\u0627")
    with pytest.raises(PasswordRefusedError):
        await ejabberd.change_password("one.client-test", "a\u0627")
    with pytest.raises(EjabberdError, match="Malformed username"):
        await ejabberd.register("a@b", "pw")
    assert await ejabberd.has_user("one.client-test")
    for _ in range(2):
        assert await ejabberd.bulk.remove_users(["one.client-test"]) == {}
    assert not await ejabberd.has_user("one.client-test")


async def test_rosters_are_read_back(ejabberd: Ejabberd) -> None:
    assert await ejabberd.roster("visitors.client-test") is None
    for _ in range(2):
        await ejabberd.create_roster("visitors.client-test", VISITORS)
        await ejabberd.create_roster("operators.client-test", OPERATORS)
    assert await ejabberd.roster("visitors.client-test") == VISITORS
    assert await ejabberd.roster("operators.client-test") == OPERATORS
    for _ in range(2):
        await ejabberd.add_to_roster("two.client-test", "visitors.client-test")
    assert await ejabberd.roster_members("visitors.client-test") == ["two.client-test"]
    for _ in range(2):
        await ejabberd.remove_from_roster("two.client-test", "visitors.client-test")
    assert await ejabberd.roster_members("visitors.client-test") == []
    for group in ("operators.client-test", "visitors.client-test"):
        for _ in range(2):
            await ejabberd.delete_roster(group)
        assert await ejabberd.roster(group) is None


async def test_nobody_joins_a_roster_that_does_not_exist(ejabberd: Ejabberd) -> None:
    """To `srg_user_add` ejabberd would say yes."""
    with pytest.raises(EjabberdError, match=r"there is no shared roster visitors\.nobody"):
        await ejabberd.add_to_roster("two.client-test", "visitors.nobody")
    await ejabberd.remove_from_roster("two.client-test", "visitors.nobody")


async def test_a_server_that_is_away_is_unavailable(free_port: int) -> None:
    client = Ejabberd(f"http://127.0.0.1:{free_port}/api", "localhost", "")
    with pytest.raises(EjabberdUnavailableError, match="ConnectError at check_account"):
        await client.has_user("bob")
    await client.close()

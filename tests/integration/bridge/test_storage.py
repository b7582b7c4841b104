"""ejabberd's data in PostgreSQL: what was confirmed is there, and a database that fails is not an empty one."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from bench.testbed.chat_server import ChatServer
from config.ejabberd_storage import EjabberdStorage
from tenants.core import scram
from tenants.core.errors import UnavailableError
from tenants.ejabberd import fitness
from tenants.ejabberd.bulk import NewMember
from tenants.ejabberd.client import Ejabberd
from tests.world.component import Component

PASSWORD = "operator-pw"
SUFFIX, GROUPS = ".kept", ("operators.kept", "visitors.kept")


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChatServer]:
    server = ChatServer(tmp_path_factory.mktemp("storage"), {"iq_timeout": 1}, storage=EjabberdStorage.SQL)
    await server.start()
    assert "does not exist" not in server.log, "no module looks for a table before it is there"
    yield server
    await server.kill()


@pytest.fixture(scope="module")
async def ejabberd(server: ChatServer) -> AsyncIterator[Ejabberd]:
    client = server.client()
    for group, displayed in (("visitors.kept", ()), ("operators.kept", GROUPS)):
        await server.make_roster(group, *displayed)
    yield client
    await client.close()


@contextmanager
def failing(server: ChatServer, table: str) -> Iterator[None]:
    """Queries of this table fail, as they do at a database that breaks down."""
    with psycopg.connect(server.database_of_ejabberd, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
        try:
            yield
        finally:
            connection.execute(f"ALTER TABLE {table}_away RENAME TO {table}")


async def test_what_was_confirmed_is_there_after_a_kill(server: ChatServer, ejabberd: Ejabberd) -> None:
    verifier = await scram.make_verifier(PASSWORD)
    new = {f"visitor.{number}.kept": NewMember("visitors.kept", f"Guest {number}", verifier) for number in range(50)}
    # first: with Mnesia this would force its log to disk
    assert await ejabberd.rooms.make({"all.kept": "All"}) == []
    assert set((await ejabberd.bulk.register_members(new)).values()) == {"created"}
    await server.kill()
    await server.start()
    assert await ejabberd.bulk.having_accounts(list(new)) == set(new)
    roster = await ejabberd.bulk.shared_roster("visitors.kept")
    assert roster is not None
    assert roster.members == tuple(sorted(new))
    assert await ejabberd.rooms.names(SUFFIX) == ["all.kept"]
    left = await ejabberd.bulk.tenant_left(SUFFIX, GROUPS)
    assert {kind.value: found.count for kind, found in left.items()} == {
        "accounts": 50, "members": 50, "vcards": 50, "last_activity": 50, "rosters": 2, "rooms": 1,
    }  # fmt: skip
    assert await fitness.check_storage(ejabberd, EjabberdStorage.SQL) == "everything is in sql"


async def test_a_database_that_fails_is_not_an_empty_one(server: ChatServer, ejabberd: Ejabberd) -> None:
    assert await ejabberd.bulk.register({"ann.kept": await scram.make_verifier(PASSWORD)}) == {"ann.kept": "created"}
    new = NewMember("operators.kept", "", await scram.make_verifier(PASSWORD))
    with failing(server, "users"):
        for asked in (
            ejabberd.bulk.accounts(SUFFIX),
            ejabberd.bulk.having_accounts(["ann.kept"]),
            ejabberd.bulk.remove_users(["ann.kept"]),
            ejabberd.bulk.tenant_left(SUFFIX, GROUPS),
            ejabberd.bulk.register_members({"ben.kept": new}),
        ):
            with pytest.raises(UnavailableError, match="database does not answer"):
                await asked
    with failing(server, "sr_group"), pytest.raises(UnavailableError, match="database does not answer"):
        await ejabberd.bulk.shared_roster("operators.kept")
    with failing(server, "muc_room"), pytest.raises(UnavailableError, match="database does not answer"):
        await ejabberd.rooms.names(SUFFIX)
    assert await ejabberd.bulk.having_accounts(["ann.kept", "ben.kept"]) == {"ann.kept"}


async def test_nobody_is_an_operator_of_another_tenant_while_the_database_fails(server: ChatServer) -> None:
    """For ejabberd's own function calls everybody a member of every shared roster then."""
    await server.new_operator("bob.other")
    async with Component(server) as component, server.operator("bob.other") as bob:
        with failing(server, "sr_user"):
            await bob.is_refused(bob.write("visitor.1.kept", "into another tenant"))
            await bob.is_refused(bob.write("visitor.1.other", "to a visitor of his own, which nobody can know now"))
        assert component.handed == []

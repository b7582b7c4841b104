"""All that ejabberd keeps, moved into PostgreSQL and back: nothing is lost, and nobody goes on with what is old."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from xmlrpc.client import ServerProxy

import psycopg
import pytest

from bench.testbed.chat_server import ChatServer
from config.ejabberd_storage import EjabberdStorage
from tenants.ejabberd import fitness
from tenants.ejabberd.errors import EjabberdError
from tests.world import upgrading

MNESIA, SQL = EjabberdStorage
SERVICE = "conference.localhost"
ADDRESS = f"{upgrading.ROOM}@{SERVICE}"
ACCOUNTS = [upgrading.ANN, upgrading.BOB, upgrading.VISITOR, upgrading.GONE]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ChatServer]:
    server = ChatServer(tmp_path, {"iq_timeout": 1}, xml_rpc=True, storage=MNESIA, moving_to=SQL)
    await server.start()
    yield server
    await server.kill()


@contextmanager
def taking_none(server: ChatServer, table: str) -> Iterator[None]:
    """The database takes no rows of that table."""
    with psycopg.connect(server.database_of_ejabberd, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT none CHECK (false) NOT VALID")
        try:
            yield
        finally:
            connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT none")


async def move(server: ChatServer, target: EjabberdStorage) -> dict[str, int]:
    ejabberd = server.client()
    try:
        return await ejabberd.move_storage(target)
    finally:
        await ejabberd.close()


async def of_room(server: ChatServer, command: str, **arguments: str) -> str:
    """A command of mod_muc_admin, whose answers have another shape in each version."""
    told = {"name": upgrading.ROOM, "service": SERVICE} | arguments
    with ServerProxy(server.rpc_url) as rpc:
        return str(await asyncio.to_thread(getattr(rpc, command), told))


async def starts_not(server: ChatServer) -> None:
    with pytest.raises(AssertionError, match="ejabberd has ended"):
        await server.start()
    assert "The accounts of localhost are in" in server.log


async def test_everything_goes_there_and_back(server: ChatServer) -> None:
    await upgrading.begin(server)
    await of_room(server, "set_room_affiliation", jid=f"{upgrading.ANN}@localhost", affiliation="owner")
    nodes = "urn:xmpp:mucsub:nodes:messages"
    with ServerProxy(server.rpc_url) as rpc:
        subscriber = {"user": f"{upgrading.BOB}@localhost/x", "nick": "Bob", "room": ADDRESS, "nodes": nodes}
        await asyncio.to_thread(rpc.subscribe_room, subscriber)
    kept = await upgrading.leave(server, 1)

    # half-way: all goes on as it was
    with taking_none(server, "vcard"), pytest.raises(EjabberdError, match="vcards of localhost: 0 of 2 were moved"):
        await move(server, SQL)
    await server.stop()
    await server.start()
    assert await upgrading.kept(server) == kept

    counts = await move(server, SQL)
    assert counts["accounts"] == len(ACCOUNTS)
    assert counts["offline_messages"] == counts["rooms"] == 1
    await server.stop()
    await starts_not(server)

    server.keep_in(SQL)
    await server.start()
    await is_there(server, SQL, kept)
    await upgrading.find(server, 1)
    kept = await upgrading.leave(server, 2)
    assert (await move(server, MNESIA))["accounts"] == len(ACCOUNTS)
    await server.stop()
    await starts_not(server)

    server.keep_in(MNESIA)
    await server.start()
    await is_there(server, MNESIA, kept)
    await upgrading.find(server, 2)


async def is_there(server: ChatServer, storage: EjabberdStorage, kept: dict[str, object]) -> None:
    assert await upgrading.kept(server) == kept
    client = server.client()
    assert await fitness.check_storage(client, storage) == f"everything is in {storage}"
    await client.close()
    assert "owner" in await of_room(server, "get_room_affiliation", jid=f"{upgrading.ANN}@localhost")
    assert f"{upgrading.BOB}@localhost" in await of_room(server, "get_subscribers")

"""Thousands of sessions on both databases: restored, ended and shown in pieces, and nobody is told what is not true."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
from sqlalchemy import func, insert, select, update

from bench.testbed.waiting import until
from tenants.shards.commands import CloseVisitor, ShowVisitor, shard_of
from tenants.store.models import VisitorSession
from tests.world.registry import World
from tests.world.stream import Stream
from xmpp_pool.announcer import Announcer
from xmpp_pool.fanout import Fanout
from xmpp_pool.operator_directory import Connection, OperatorDirectory
from xmpp_pool.session_ends import SessionEnds
from xmpp_pool.sessions import SessionTable
from xmpp_pool.stream import StreamLostError

BOB, ANN = "bob.acme@localhost/desk", "ann.other@localhost/desk"
ALL = set(range(64))


@dataclass
class Pool:
    """The announcer, with a stream that keeps what is written and operators that the test knows."""

    world: World
    stream: Stream
    operators: OperatorDirectory
    announcer: Announcer
    session_ends: SessionEnds
    lost: set[str]
    """Tenants that are another process's now."""

    async def restore(self) -> None:
        self.announcer.take_up(await self.announcer.load(ALL))

    def comes(self, jid: str) -> None:
        username = jid.partition("@")[0]
        instance_name = username.rpartition(".")[2]
        self.operators.put(instance_name, username, Connection(jid, 0))
        self.announcer.show_all(instance_name, jid)

    def show(self, username: str, status: str, version: int, seconds: float = 300) -> None:
        self.announcer.carry_out(
            ShowVisitor(
                instance_name=username.rpartition(".")[2],
                username=username,
                nick="n",
                status=status,
                online_until=self.world.clock() + seconds,
                version=version,
            )
        )

    async def rows(self) -> int:
        async with self.world.services.database.read() as session:
            return await session.scalar(select(func.count()).select_from(VisitorSession)) or 0


@pytest.fixture
async def pool(world: World) -> AsyncIterator[Pool]:
    stream, operators, lost = Stream(), OperatorDirectory(), set[str]()
    sessions, fanout = SessionTable(), Fanout(stream.gateway, lambda name: name not in lost)
    announcer = Announcer(
        world.services, stream.gateway, operators, sessions, fanout, host_of=lambda _: world.services.settings.xmpp_host
    )
    ends = SessionEnds(world.services, announcer, operators, sessions, fanout, serves=lambda name: name not in lost)
    work = asyncio.create_task(fanout.run())
    yield Pool(world, stream, operators, announcer, ends, lost)
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work


async def seed(world: World, instance_name: str, count: int, seconds: float = 300) -> list[str]:
    usernames = [f"visitor.{number}.{instance_name}" for number in range(count)]
    rows = [
        {
            "username": username,
            "instance_name": instance_name,
            "nick": "n",
            "status": "old",
            "online_until": world.clock() + seconds,
        }
        for username in usernames
    ]
    async with world.services.database.write() as session:
        await session.execute(insert(VisitorSession), rows)
    return usernames


async def test_a_restart_restores_all_in_pieces_and_of_our_shards_alone(pool: Pool) -> None:
    usernames = await seed(pool.world, "acme", 5000)
    await seed(pool.world, "other", 10)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    others = asyncio.create_task(count_turns())
    table = await pool.announcer.load({shard_of("acme", 64)})
    others.cancel()
    # others had their turn at least between each two of its pieces
    assert turns >= 5
    assert len(table) == 5000
    assert table.tenants() == ["acme"]
    pool.announcer.take_up(table)
    pool.comes(BOB)
    await until(lambda: len(pool.stream.seen_by(BOB)) == 5000, "all are shown")
    assert pool.stream.seen_by(BOB) == dict.fromkeys(usernames, "old")


async def test_many_who_leave_at_once_are_told_and_forgotten_in_pieces(pool: Pool) -> None:
    usernames = await seed(pool.world, "acme", 3000, seconds=10)
    await seed(pool.world, "other", 3000, seconds=20)
    await pool.restore()
    for jid in (BOB, ANN):
        pool.comes(jid)
    await pool.stream.handled(6000)
    del pool.stream.written[:], pool.stream.confirmed_at[:]
    pool.world.clock.now += 15
    await pool.session_ends.expire()
    assert pool.stream.seen_by(BOB) == dict.fromkeys(usernames, "left")
    assert pool.stream.seen_by(ANN) == {}
    assert len(pool.stream.confirmed_at) >= 3000 // 250
    assert await pool.rows() == 3000


async def test_who_is_prolonged_stays_and_is_never_missing_for_who_comes(pool: Pool) -> None:
    await seed(pool.world, "acme", 1000, seconds=10)
    await pool.restore()
    async with pool.world.services.database.write() as session:
        await session.execute(update(VisitorSession).values(online_until=pool.world.clock() + 100))
    pool.world.clock.now += 20
    expiring = asyncio.create_task(pool.session_ends.expire())
    # while it asks the database, all of them are there for whoever comes
    await asyncio.sleep(0)
    pool.comes(BOB)
    await expiring
    await until(lambda: len(pool.stream.seen_by(BOB)) == 1000, "all are shown")
    assert "left" not in pool.stream.seen_by(BOB).values()
    pool.world.clock.now += 100
    await pool.session_ends.expire()
    assert set(pool.stream.seen_by(BOB).values()) == {"left"}
    assert await pool.rows() == 0


async def test_what_changes_while_it_waits_to_be_shown_is_right_in_the_end(pool: Pool) -> None:
    usernames = await seed(pool.world, "acme", 2000)
    await pool.restore()
    pool.stream.goes_on.clear()
    pool.comes(BOB)
    await until(lambda: pool.stream.written, "the first are shown")
    assert len(pool.stream.written) < 500
    for username in usernames[::2]:
        pool.show(username, "new", version=2)
    for username in usernames[1::4]:
        pool.announcer.carry_out(CloseVisitor(instance_name="acme", username=username))
    pool.show("visitor.late.acme", "new", version=1)
    pool.stream.goes_on.set()
    expected = dict.fromkeys(usernames, "old") | dict.fromkeys(usernames[::2], "new")
    expected |= dict.fromkeys(usernames[1::4], "left") | {"visitor.late.acme": "new"}
    await until(lambda: len(pool.stream.seen_by(BOB)) == len(expected), "all are shown")
    assert pool.stream.seen_by(BOB) == expected


async def test_who_is_back_while_the_end_waits_to_be_told_stays(pool: Pool) -> None:
    usernames = await seed(pool.world, "acme", 1000, seconds=10)
    await pool.restore()
    pool.comes(BOB)
    await pool.stream.handled(1000)
    pool.stream.goes_on.clear()
    pool.world.clock.now += 20
    expiring = asyncio.create_task(pool.session_ends.expire())
    await until(lambda: len(pool.stream.written) > 1000, "the first have left")
    back = usernames[::2]
    async with pool.world.services.database.write() as session:
        await session.execute(
            update(VisitorSession)
            .where(VisitorSession.username.in_(back))
            .values(online_until=pool.world.clock() + 300, status="back", version=2)
        )
    for username in back:
        pool.show(username, "back", version=2)
    pool.stream.goes_on.set()
    await expiring
    assert pool.stream.seen_by(BOB) == dict.fromkeys(usernames, "left") | dict.fromkeys(back, "back")
    assert await pool.rows() == 500


async def test_who_left_while_the_stream_ended_leaves_on_the_next_one(pool: Pool) -> None:
    usernames = await seed(pool.world, "acme", 300, seconds=10)
    await pool.restore()
    pool.comes(BOB)
    await pool.stream.handled(300)
    pool.stream.goes_on.clear()
    pool.world.clock.now += 20
    expiring = asyncio.create_task(pool.session_ends.expire())
    await until(lambda: len(pool.stream.written) > 300, "the first have left")
    pool.stream.up.clear()
    pool.stream.goes_on.set()
    with pytest.raises(StreamLostError):
        await expiring
    assert await pool.rows() == 300
    pool.stream.up.set()
    del pool.stream.written[:]
    await pool.session_ends.expire()
    assert pool.stream.seen_by(BOB) == dict.fromkeys(usernames, "left")
    assert await pool.rows() == 0


async def test_a_tenant_of_thousands_is_closed_while_others_go_on(pool: Pool) -> None:
    usernames = await seed(pool.world, "acme", 3000)
    await seed(pool.world, "other", 10)
    await pool.restore()
    for jid in (BOB, ANN):
        pool.comes(jid)
    await pool.stream.handled(3010)
    pool.stream.goes_on.clear()
    closing = asyncio.create_task(pool.session_ends.close("acme"))
    await until(lambda: len(pool.stream.written) > 3010, "the first have left")
    pool.show("visitor.1.other", "new", version=2)
    assert pool.stream.seen_by(ANN)["visitor.1.other"] == "new"
    assert len(pool.stream.written) < 3500
    pool.stream.goes_on.set()
    assert await closing
    assert pool.stream.seen_by(BOB) == dict.fromkeys(usernames, "left")
    assert await pool.rows() == 10


async def test_a_tenant_that_is_anothers_by_now_is_not_closed_here(pool: Pool) -> None:
    await seed(pool.world, "acme", 1000)
    await pool.restore()
    pool.comes(BOB)
    await pool.stream.handled(1000)
    pool.stream.goes_on.clear()
    closing = asyncio.create_task(pool.session_ends.close("acme"))
    await until(lambda: len(pool.stream.written) > 1000, "the first have left")
    pool.lost.add("acme")
    pool.announcer.drop({shard_of("acme", 64)})
    pool.stream.goes_on.set()
    assert not await closing
    assert await pool.rows() == 1000

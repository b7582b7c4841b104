"""Presence in bulk goes in turns, in bounded pieces, and whoever waits for it is told the truth."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from bench.testbed.waiting import until
from tests.world.stream import Stream
from xmpp_pool.fanout import Fanout
from xmpp_pool.stream import StreamLostError


def stanzas(to: str, count: int) -> Iterator[str]:
    return (f"<presence from='visitor.{number}.acme@x/lhc' to='{to}'/>" for number in range(count))


@asynccontextmanager
async def running(stream: Stream, *, gone: set[str] | None = None) -> AsyncIterator[Fanout]:
    """A fan-out that works meanwhile, for all tenants but those that are another process's."""
    left = gone if gone is not None else set[str]()
    fanout = Fanout(stream.gateway, lambda name: name not in left)
    work = asyncio.create_task(fanout.run())
    yield fanout
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work


async def test_no_more_is_under_way_than_is_handled_in_a_moment() -> None:
    stream = Stream()
    async with running(stream) as fanout:
        fanout.show("acme", "bob", stanzas("bob", 5000))
        await until(lambda: len(stream.written) == 5000, "all are written")
        await until(lambda: stream.confirmed_at[-1] == 5000, "all are confirmed")
    steps = [0, *stream.confirmed_at]
    assert max(after - before for before, after in itertools.pairwise(steps)) <= 250


async def test_a_message_written_meanwhile_does_not_wait_for_the_bulk() -> None:
    stream = Stream()
    stream.goes_on.clear()
    async with running(stream) as fanout:
        fanout.show("acme", "bob", stanzas("bob", 5000))
        await until(lambda: stream.written, "some are written")
        stream.send("<message/>")
        before = stream.written.index("<message/>")
        stream.goes_on.set()
        await until(lambda: len(stream.written) == 5001, "all are written")
    assert before <= 250


async def test_tenants_take_turns() -> None:
    stream = Stream()
    async with running(stream) as fanout:
        fanout.show("big", "bob", stanzas("bob", 10_000))
        fanout.show("small", "ann", stanzas("ann", 100))
        assert await fanout.tell("other", stanzas("joe", 100))
        written = len(stream.written)
        await until(lambda: len(stream.written) == 10_200, "all are written")
    # three tenants in turn: the small ones are through when the big one has had as much as they
    assert written < 1000
    assert "ann" not in stream.receivers()[1000:]


async def test_a_new_show_takes_the_place_of_the_last_one() -> None:
    stream = Stream()
    stream.goes_on.clear()
    async with running(stream) as fanout:
        fanout.show("acme", "bob", stanzas("bob", 5000))
        await until(lambda: stream.written, "some are written")
        begun = len(stream.written)
        fanout.show("acme", "bob", stanzas("bob", 300))
        stream.goes_on.set()
        assert await fanout.tell("acme", ["<presence to='end'/>"])
    assert len(stream.written) == begun + 300 + 1


async def test_who_tells_is_answered_when_the_server_has_handled_it() -> None:
    stream = Stream()
    stream.goes_on.clear()
    async with running(stream) as fanout:
        telling = asyncio.create_task(fanout.tell("acme", stanzas("bob", 10)))
        await until(lambda: len(stream.written) == 10, "all are written")
        assert not telling.done()
        stream.goes_on.set()
        assert await telling
        # nothing to be told is handled, too
        assert await fanout.tell("acme", [])


async def test_who_tells_hears_that_the_stream_was_lost() -> None:
    stream = Stream()
    stream.goes_on.clear()
    async with running(stream) as fanout:
        written = asyncio.create_task(fanout.tell("acme", stanzas("bob", 10)))
        waiting = asyncio.create_task(fanout.tell("other", stanzas("ann", 5000)))
        await until(lambda: len(stream.written) > 10, "both have begun")
        stream.up.clear()
        stream.goes_on.set()
        for telling in (written, waiting):
            with pytest.raises(StreamLostError):
                await telling
        stream.up.set()
        assert await fanout.tell("acme", stanzas("bob", 1))


async def test_nothing_is_said_for_who_serves_no_longer() -> None:
    stream, gone = Stream(), set[str]()
    stream.goes_on.clear()
    async with running(stream, gone=gone) as fanout:
        dropped = asyncio.create_task(fanout.tell("acme", stanzas("bob", 5000)))
        lost = asyncio.create_task(fanout.tell("other", stanzas("ann", 5000)))
        await until(lambda: {"bob", "ann"} <= set(stream.receivers()), "both have begun")
        fanout.drop(["acme"])
        gone.add("other")
        stream.goes_on.set()
        assert not await dropped
        assert not await lost
    assert len(stream.written) < 500

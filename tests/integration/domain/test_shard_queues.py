"""The shard queues on both brokers: order, confirmation, and what a successor gets from a reader that is gone."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.testbed.system import System
from bench.testbed.waiting import DEADLINE
from tenants.shards.commands import SendMessage, shard_of
from tenants.shards.queues import (
    CommandPublisher,
    CommandReader,
    Delivery,
    QueueUnavailableError,
    open_publisher,
    open_reader,
)

SHARDS = 1000
"""More than the running systems have: only those beyond theirs are used, so that no pool process reads them."""
OF_THE_SYSTEM = 64


@pytest.fixture(params=["system", "production"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Redis, then RabbitMQ."""
    system: System = request.getfixturevalue(request.param)
    return str(system.endpoints["broker_url"])


def new_name() -> str:
    """A tenant whose shard nobody else uses."""
    names = (f"q{uuid.uuid4().hex[:12]}" for _ in itertools.count())
    return next(name for name in names if shard_of(name, SHARDS) >= OF_THE_SYSTEM)


@pytest.fixture
def tenant() -> str:
    return new_name()


@pytest.fixture
async def publisher(broker_url: str) -> AsyncIterator[CommandPublisher]:
    made = open_publisher(broker_url, SHARDS)
    yield made
    await made.close()


@asynccontextmanager
async def reading(broker_url: str, *tenants: str) -> AsyncIterator[CommandReader]:
    """A reader of the tenants' shards."""
    reader = open_reader(broker_url, 0)
    reader.start()
    for shard in {shard_of(tenant, SHARDS) for tenant in tenants}:
        reader.add(shard)
    yield reader
    await reader.close()


def message(tenant: str, number: int) -> SendMessage:
    return SendMessage(
        instance_name=tenant, username="visitor.1", operator="bob", body=str(number), message_id=str(number)
    )


async def read(reader: CommandReader, tenant: str, count: int) -> list[Delivery]:
    """The next `count` commands of the tenant; others' are left alone."""
    got: list[Delivery] = []
    async with asyncio.timeout(DEADLINE):
        while len(got) < count:
            got += [one for one in await reader.next_batch() if one.command.instance_name == tenant]
    return got


def bodies(deliveries: list[Delivery]) -> list[int]:
    return [int(one.command.body) for one in deliveries if isinstance(one.command, SendMessage)]


async def test_commands_come_in_the_order_in_which_they_were_published(
    broker_url: str, publisher: CommandPublisher, tenant: str
) -> None:
    for start in range(0, 100, 10):
        await publisher.publish(*(message(tenant, number) for number in range(start, start + 10)))
    async with reading(broker_url, tenant) as reader:
        early = await read(reader, tenant, 100)
        await publisher.publish(message(tenant, 100))
        late = await read(reader, tenant, 1)
        await reader.acknowledge([*early, *late])
    assert bodies(early + late) == list(range(101))


async def test_a_successor_gets_what_was_not_acknowledged_in_order(
    broker_url: str, publisher: CommandPublisher, tenant: str
) -> None:
    await publisher.publish(*(message(tenant, number) for number in range(20)))
    async with reading(broker_url, tenant) as reader:
        got = await read(reader, tenant, 20)
        # not in order: pieces are acknowledged as they are done
        await reader.acknowledge([*got[:3], got[5]])
        await reader.next_batch()
    await publisher.publish(message(tenant, 20))
    async with reading(broker_url, tenant) as successor:
        rest = await read(successor, tenant, 17)
        assert bodies(rest) == [3, 4, *range(6, 21)]
        await successor.acknowledge(rest)
        await publisher.publish(message(tenant, 21))
        assert bodies(await read(successor, tenant, 1)) == [21]


async def test_a_shard_can_be_handed_over_while_both_readers_live(
    broker_url: str, publisher: CommandPublisher, tenant: str
) -> None:
    shard = shard_of(tenant, SHARDS)
    async with reading(broker_url, tenant) as old, reading(broker_url) as new:
        await publisher.publish(*(message(tenant, number) for number in range(10)))
        first = await read(old, tenant, 10)
        await old.acknowledge(first[:4])
        await old.drop([shard])
        await publisher.publish(message(tenant, 10))
        new.add(shard)
        assert bodies(await read(new, tenant, 7)) == list(range(4, 11))
        assert await old.next_batch() == []
        # and back again
        await new.drop([shard])
        old.add(shard)
        again = await read(old, tenant, 7)
        assert bodies(again) == list(range(4, 11))
        await old.acknowledge(again)


async def test_many_publish_at_once(broker_url: str, publisher: CommandPublisher) -> None:
    tenants = [new_name() for _ in range(10)]

    async def publish(tenant: str) -> None:
        for number in range(20):
            await publisher.publish(message(tenant, number))

    await asyncio.gather(*(publish(tenant) for tenant in tenants))
    got: dict[str, list[int]] = {tenant: [] for tenant in tenants}
    async with reading(broker_url, *tenants) as reader, asyncio.timeout(DEADLINE):
        while any(len(numbers) < 20 for numbers in got.values()):
            batch = await reader.next_batch()
            for delivery in batch:
                if delivery.command.instance_name in got:
                    got[delivery.command.instance_name] += bodies([delivery])
            await reader.acknowledge(batch)
    assert all(numbers == list(range(20)) for numbers in got.values())


async def test_a_broker_that_is_away_refuses_in_time() -> None:
    for url in ("redis://127.0.0.1:1/0", "amqp://guest:guest@127.0.0.1:1//"):
        publisher = open_publisher(url, SHARDS)
        with pytest.raises(QueueUnavailableError):
            await publisher.publish(message("acme", 1))
        with pytest.raises(QueueUnavailableError):
            await publisher.check()
        await publisher.close()


async def test_a_reader_ends_whenever_it_is_cancelled(broker_url: str, tenant: str) -> None:
    async def read_on(reader: CommandReader) -> None:
        while True:
            await reader.next_batch()

    async with reading(broker_url, tenant) as reader:
        await reader.next_batch()
        for turns in range(40):
            task = asyncio.create_task(read_on(reader))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=DEADLINE)
            assert done, f"it reads on, cancelled after {turns} turns of the event loop"

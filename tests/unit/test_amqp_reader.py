"""What the event loop makes of the news that the thread tells it; there is no broker, and the thread is not started."""

import asyncio

from tenants.shards.amqp_reader import AmqpReader, _Acknowledge, _Connected, _GiveBack, _GivenBack, _Opened
from tenants.shards.commands import CloseTenant
from tenants.shards.interface import Delivery

SHARD = 3


def delivery(channel_number: int) -> Delivery:
    return Delivery(SHARD, CloseTenant(instance_name="acme"), ("message", channel_number))


async def told(*news: object) -> AmqpReader:
    """A reader of the shard, whose thread has told this."""
    reader = AmqpReader("amqp://nowhere", 64)
    reader.add(SHARD)
    await tell(reader, *news)
    return reader


async def tell(reader: AmqpReader, *news: object) -> None:
    for one in news:
        reader._tell(one)  # type: ignore[arg-type]  # noqa: SLF001 - in the place of the thread
    await asyncio.sleep(0)


def orders(reader: AmqpReader) -> list[object]:
    waiting = reader._orders  # noqa: SLF001 - in the place of the thread
    return [waiting.get_nowait() for _ in range(waiting.qsize())]


async def test_what_an_earlier_channel_delivered_is_void() -> None:
    reader = await told(_Opened(SHARD, 1), delivery(1))
    [first] = await reader.next_batch()
    await tell(reader, delivery(1), _Opened(SHARD, 2), delivery(2))
    assert await reader.next_batch() == [delivery(2)]
    orders(reader)
    await reader.acknowledge([first])
    assert orders(reader) == []
    await reader.acknowledge([delivery(2)])
    assert orders(reader) == [_Acknowledge([delivery(2)])]


async def test_who_drops_a_shard_waits_until_the_broker_has_it_back() -> None:
    reader = await told(_Connected(True), _Opened(SHARD, 1), delivery(1))
    dropping = asyncio.create_task(reader.drop([SHARD]))
    await asyncio.sleep(0)
    # late news of it change nothing
    await tell(reader, _Opened(SHARD, 2), delivery(2))
    assert await reader.next_batch() == []
    assert not dropping.done()
    [_, give_back] = orders(reader)
    assert isinstance(give_back, _GiveBack)
    await tell(reader, _GivenBack(give_back.done))
    await dropping


async def test_without_a_connection_the_broker_has_the_shards_back() -> None:
    reader = await told(_Connected(True), _Connected(False))
    async with asyncio.timeout(1):
        await reader.drop([SHARD])

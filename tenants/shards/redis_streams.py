"""The shard queues as Redis Streams: a log per shard, from which a command is deleted once it was carried out.

A stream has no consumers that hold messages: reading takes nothing away. So nothing is ever in flight inside the
broker, and the process that holds the shard's lease simply reads from the beginning what its predecessor has not
deleted. The lease sees to it that one process alone acts.

Redis must keep what it has confirmed: `appendonly yes`, `appendfsync always`, `maxmemory-policy noeviction`.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError, ResponseError

from tenants.core.backoff import delay
from tenants.core.batching import Batcher
from tenants.shards.commands import AnyCommand, encode, queue_name, shard_of
from tenants.shards.interface import (
    MAX_PUBLISHING,
    MAX_WAITING,
    PUBLISH_TIMEOUT,
    Delivery,
    QueueUnavailableError,
    decode_or_none,
)

log = structlog.get_logger(__name__)

_KEY_PREFIX = "shards:"
_BODY = b"c"
_CONNECTIONS = 16
_BATCH_PER_SHARD = 200
_BLOCK_SECONDS = 0.2
"""How long a read waits for commands, and so how late a shard that was just added is read."""
_READ_PAUSE = 0.004
"""Seconds between two reads at least: under load one read takes many commands. A single command does not wait."""
_READ_TIMEOUT = 5.0
_ALIVE_SECONDS = 5.0

_APPEND = """
if redis.call('XLEN', KEYS[1]) + #ARGV - 1 > tonumber(ARGV[1]) then
  return redis.error_reply('FULL the queue of this shard is full')
end
for i = 2, #ARGV do redis.call('XADD', KEYS[1], '*', 'c', ARGV[i]) end
return #ARGV - 1
"""


@cache
def _key(shard: int) -> str:
    return _KEY_PREFIX + queue_name(shard)


def _connect(url: str, timeout: float) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        socket_keepalive=True,
        # commands have ids, so one that is sent twice does no harm
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=2),
    )
    return Redis.from_pool(pool)


class RedisPublisher:
    """Publishes commands; see `CommandPublisher`. Calls that come at the same time share one round trip."""

    def __init__(self, broker_url: str, shard_count: int) -> None:
        self._redis = _connect(broker_url, PUBLISH_TIMEOUT)
        self._shard_count = shard_count
        self._calls: Batcher[Sequence[AnyCommand], None] = Batcher(
            self._append, at_most=MAX_PUBLISHING, waiting=MAX_PUBLISHING
        )

    async def publish(self, *commands: AnyCommand) -> None:
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT):
                await self._calls.do(commands)
        except ResponseError as error:
            raise QueueUnavailableError(f"the broker: {error}") from error
        except (RedisError, OSError, TimeoutError) as error:
            raise QueueUnavailableError(f"the broker: {type(error).__name__}") from error

    async def _append(self, calls: Sequence[Sequence[AnyCommand]]) -> list[Exception | None]:
        """Append to the streams, in order. A call fails when one of its streams did not take all it was to take."""
        by_shard: dict[int, list[bytes]] = defaultdict(list)
        shards_of = [{shard_of(command.instance_name, self._shard_count) for command in call} for call in calls]
        for command in chain.from_iterable(calls):
            by_shard[shard_of(command.instance_name, self._shard_count)].append(encode(command))
        pipeline = self._redis.pipeline(transaction=False)
        for shard, bodies in by_shard.items():
            pipeline.eval(_APPEND, 1, _key(shard), MAX_WAITING, *bodies)
        async with asyncio.timeout(PUBLISH_TIMEOUT):
            answers = await pipeline.execute(raise_on_error=False)
        refused = {
            shard: answer for shard, answer in zip(by_shard, answers, strict=True) if isinstance(answer, Exception)
        }
        return [next((refused[shard] for shard in shards if shard in refused), None) for shards in shards_of]

    async def check(self) -> None:
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT):
                await self._redis.exists(_key(0))
        except (RedisError, OSError, TimeoutError) as error:
            raise QueueUnavailableError(f"the broker: {type(error).__name__}") from error

    async def close(self) -> None:
        await self._calls.close()
        await self._redis.aclose()


class RedisReader:
    """Reads the streams of the shards it was given; see `CommandReader`."""

    def __init__(self, broker_url: str, _shard_count: int) -> None:
        self._redis = _connect(broker_url, _READ_TIMEOUT)
        self._positions: dict[int, bytes] = {}
        """Of each shard: the last command that was read."""
        self._done: dict[int, list[bytes]] = defaultdict(list)
        """Carried out, and still to be deleted: else a successor would carry them out again, much later."""
        self._failures = 0
        self._read_at = self._heard_at = -_ALIVE_SECONDS

    def start(self) -> None:
        """Nothing to do: it reads when it is asked."""

    def add(self, shard: int) -> None:
        self._positions[shard] = b"0-0"

    async def drop(self, shards: Iterable[int]) -> None:
        for shard in shards:
            self._positions.pop(shard, None)

    async def next_batch(self) -> list[Delivery]:
        try:
            batch = await self._read()
        except (RedisError, OSError) as error:
            self._failures += 1
            log.warning("shard queues not read", error=f"{type(error).__name__}: {error}"[:300])
            await asyncio.sleep(delay(self._failures, first=0.2, longest=5))
            return []
        finally:
            _raise_swallowed_cancellation()
        self._failures = 0
        self._heard_at = time.monotonic()
        if self._done:
            await self.acknowledge(())
        return batch

    async def _read(self) -> list[Delivery]:
        await asyncio.sleep(self._read_at + _READ_PAUSE - time.monotonic())
        positions = dict(self._positions)
        if not positions:
            await self._redis.exists(_key(0))  # to know whether the broker is there
            await asyncio.sleep(_BLOCK_SECONDS)
            return []
        streams: Any = {_key(shard): position for shard, position in positions.items()}
        answer: Any = await self._redis.xread(streams, count=_BATCH_PER_SHARD, block=int(_BLOCK_SECONDS * 1000))
        self._read_at = time.monotonic()
        batch: list[Delivery] = []
        for key, entries in answer or []:
            shard = int(key.rpartition(b".")[2])
            if self._positions.get(shard) != positions[shard]:
                continue  # dropped, or dropped and added again, while we were reading
            self._positions[shard] = entries[-1][0]
            for entry_id, fields in entries:
                command = decode_or_none(fields.get(_BODY, b""), shard)
                if command is None:
                    await self._redis.xdel(_key(shard), entry_id)
                else:
                    batch.append(Delivery(shard, command, entry_id))
        return batch

    async def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            self._done[delivery.shard].append(delivery.tag)
        done, self._done = self._done, defaultdict(list)
        if not done:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for shard, ids in done.items():
            pipeline.xdel(_key(shard), *ids)
        try:
            await pipeline.execute()
        except (RedisError, OSError) as error:
            log.warning("commands not acknowledged yet", error=type(error).__name__)
            for shard, ids in done.items():
                self._done[shard].extend(ids)

    def alive(self) -> bool:
        return time.monotonic() - self._heard_at < _ALIVE_SECONDS

    async def close(self) -> None:
        await self._redis.aclose()


def _raise_swallowed_cancellation() -> None:
    """redis-py writes within `asyncio.wait_for`, which before Python 3.12 may swallow one (CPython issue 86296)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError

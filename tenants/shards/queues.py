"""The shard queues: one durable queue of commands per shard, written by every API process, read by its lease holder.

Redis Streams (`redis://`) and RabbitMQ quorum queues (`amqp://`) keep the same promises:

* `publish` returns when the command is on disk;
* the reader gets a shard's commands in the order in which they were published;
* a command stays with the broker until it is acknowledged. When a reader dies or lets a shard go, the next one gets
  everything that was not acknowledged, from the oldest on, before anything newer.

kombu's own Redis transport is not used for them: it takes a message out of its list before it notes it as
unacknowledged, so that a process which is killed in between loses it, and what it restores comes back late and out of
order.
"""

from tenants.shards.interface import CommandPublisher, CommandReader, Delivery, QueueUnavailableError

__all__ = [
    "CommandPublisher",
    "CommandReader",
    "Delivery",
    "QueueUnavailableError",
    "open_publisher",
    "open_reader",
]

_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


# Imported where they are needed: the other broker's library would only take time when the command line starts.


def open_publisher(broker_url: str, shard_count: int) -> CommandPublisher:
    """The publisher for this broker."""
    if broker_url.startswith(_REDIS_SCHEMES):
        from tenants.shards.redis_streams import RedisPublisher  # noqa: PLC0415

        return RedisPublisher(broker_url, shard_count)
    from tenants.shards.amqp_publisher import AmqpPublisher  # noqa: PLC0415

    return AmqpPublisher(broker_url, shard_count)


def open_reader(broker_url: str, shard_count: int) -> CommandReader:
    """The reader for this broker; it reads nothing until shards are added."""
    if broker_url.startswith(_REDIS_SCHEMES):
        from tenants.shards.redis_streams import RedisReader  # noqa: PLC0415

        return RedisReader(broker_url, shard_count)
    from tenants.shards.amqp_reader import AmqpReader  # noqa: PLC0415

    return AmqpReader(broker_url, shard_count)

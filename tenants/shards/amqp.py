"""The shard queues on RabbitMQ: quorum queues with a single active consumer, publisher confirms, a channel per shard.

What the publisher (`amqp_publisher`) and the reader (`amqp_reader`) have in common. kombu blocks, so one thread owns
each connection.
"""

from amqp.exceptions import AMQPError
from kombu import Queue
from kombu.exceptions import KombuError

from tenants.shards.commands import queue_name
from tenants.shards.interface import MAX_WAITING

ERRORS = (OSError, KombuError, AMQPError)
"""What kombu raises when the broker is away, or goes away."""
_MANY = 1_000_000


def queue_of(shard: int) -> Queue:
    """The shard's queue. Commands reach it by its name, without an exchange of its own."""
    return Queue(
        queue_name(shard),
        durable=True,
        queue_arguments={
            "x-queue-type": "quorum",
            "x-single-active-consumer": True,
            "x-max-length": MAX_WAITING,
            "x-overflow": "reject-publish",
            # RabbitMQ 4 drops what came back twenty times by default, and each takeover counts
            "x-delivery-limit": _MANY,
        },
    )

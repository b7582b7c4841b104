"""How kombu talks to the broker, for Celery and for the shard queues on RabbitMQ."""

from typing import Any

from kombu import Connection
from kombu.exceptions import KombuError

CONNECT_TIMEOUT = 3
"""Seconds to reach the broker, handshake included."""
_SOCKET_TIMEOUT = 10

# Each transport takes the options that it knows.
TRANSPORT_OPTIONS: dict[str, Any] = {
    # Connecting fails after a second attempt instead of never; who can wait longer, tries again by itself.
    "max_retries": 1,
    "interval_start": 0.1,
    "interval_step": 0.1,
    "interval_max": 0.2,
    # Redis: a connection that looks alive but is not must be found out (celery 8030, 8091).
    "socket_timeout": _SOCKET_TIMEOUT,
    "socket_connect_timeout": CONNECT_TIMEOUT,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "retry_on_timeout": True,
    # RabbitMQ: the same, while an answer is waited for.
    "read_timeout": _SOCKET_TIMEOUT,
    "write_timeout": _SOCKET_TIMEOUT,
    # RabbitMQ: a publish returns when the broker has the message, not when we have sent it (celery 5410).
    "confirm_publish": True,
}


def failures_of(connection: Connection) -> tuple[type[Exception], ...]:
    """What a broker that is away, or goes away, makes kombu raise."""
    return (OSError, KombuError, *connection.connection_errors, *connection.channel_errors)

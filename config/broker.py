"""How kombu talks to the broker, for Celery and for the shard queues on RabbitMQ."""

from typing import Any

_SOCKET_TIMEOUT = 10

TRANSPORT_OPTIONS: dict[str, Any] = {
    # A connection that looks alive but is not must be found out (celery 8030, 8091).
    "socket_timeout": _SOCKET_TIMEOUT,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "retry_on_timeout": True,
    # RabbitMQ: a publish returns when the broker has the message, not when we have sent it (celery 5410).
    "confirm_publish": True,
}

"""The Celery configuration, and a client that sends tasks by name.

Task names are in `config.task_names`.
"""

from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from config.broker import CONNECT_TIMEOUT, TRANSPORT_OPTIONS
from config.settings import Settings
from config.task_names import (
    EXPIRE_ACCOUNTS,
    PURGE_CALLBACKS,
    RECONCILE,
    SWEEP_CALLBACKS,
    SWEEP_CHATS,
    SWEEP_OPERATIONS,
)

LIFECYCLE_QUEUE = "lifecycle"
"""Workflows: few, long."""
CALLBACK_QUEUE = "callbacks"
"""Deliveries to LHC: many, short, latency matters."""

_QUEUE_TYPE = "quorum"
_RESULT_SECONDS = 3600
_SWEEP_SECONDS = 2.0
"""How late at most a due piece of work starts whose wake-up was lost."""


def _queue(name: str) -> Queue:
    # RabbitMQ keeps a quorum queue's messages on disk before it confirms them; Redis knows no types and ignores this
    return Queue(name, Exchange(name), routing_key=name, durable=True, queue_arguments={"x-queue-type": _QUEUE_TYPE})


_QUEUES = {
    "task_default_queue": LIFECYCLE_QUEUE,
    "task_default_queue_type": _QUEUE_TYPE,
    "task_queues": [_queue(LIFECYCLE_QUEUE), _queue(CALLBACK_QUEUE)],
    "task_routes": {"callbacks.*": {"queue": CALLBACK_QUEUE}, "chats.*": {"queue": CALLBACK_QUEUE}},
    # Quorum queues know no global prefetch count (celery 6067); it is each consumer's own.
    "worker_detect_quorum_queues": True,
    # Celery makes 28 queues for ETAs, which we do not use: at least not as quorum queues.
    "broker_native_delayed_delivery_queue_type": "classic",
}

_TASKS = {
    # The database is the record of what was done; `tenants.*` alone answer who sent them.
    "task_ignore_result": True,
    "task_serializer": "json",
    "accept_content": ["json"],
    # Every task may run twice, and its row of work is claimed in the database: early acknowledgement would only
    # add the sweep's delay when a worker dies.
    "task_acks_late": True,
    "worker_prefetch_multiplier": 1,
    # Flower
    "task_send_sent_event": True,
    "worker_send_task_events": True,
    "worker_soft_shutdown_timeout": 10.0,
    "worker_cancel_long_running_tasks_on_connection_loss": True,
    "worker_hijack_root_logger": False,
    "timezone": "UTC",
}


def make_celery(settings: Settings, name: str = "orchestrator") -> Celery:
    """A Celery application with our configuration and no tasks: enough to send tasks by name."""
    broker_url = settings.broker_url.get_secret_value()
    app = Celery(name, broker=broker_url)
    app.conf.update(_connections(broker_url), **_QUEUES, **_TASKS, beat_schedule=_schedule(settings.reconcile_seconds))
    return app


def _connections(broker_url: str) -> dict[str, Any]:
    is_redis = broker_url.startswith("redis")
    return {
        # Results are for a panel that sends `tenants.*` by name: kept in Redis, or sent to its own reply queue.
        "result_backend": broker_url if is_redis else "rpc://",
        "result_expires": _RESULT_SECONDS,
        "broker_transport_options": {**TRANSPORT_OPTIONS, "visibility_timeout": 3600},
        # A Redis that goes away ends the worker, which its supervisor starts anew: one that connects again by itself
        # may stay up and take nothing any more (celery 8030, 10205). A broker that is away is waited for at the start.
        "broker_connection_retry": not is_redis,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": CONNECT_TIMEOUT,
        # RabbitMQ: a consumer's connection that looks alive but is not is found out within two of these.
        "broker_heartbeat": 10,
    }


def _schedule(reconcile_seconds: float) -> dict[str, Any]:
    """What beat sends, and when. A task that waited until the next one of its kind is due is dropped."""
    sweep = {"schedule": _SWEEP_SECONDS, "options": {"expires": 2 * _SWEEP_SECONDS}}
    return {
        SWEEP_OPERATIONS: {"task": SWEEP_OPERATIONS, **sweep},
        SWEEP_CALLBACKS: {"task": SWEEP_CALLBACKS, **sweep},
        SWEEP_CHATS: {"task": SWEEP_CHATS, **sweep},
        PURGE_CALLBACKS: {"task": PURGE_CALLBACKS, "schedule": 300.0, "options": {"expires": 300}},
        RECONCILE: {
            "task": RECONCILE,
            "schedule": reconcile_seconds,
            "kwargs": {"reason": "at its interval"},
            "options": {"expires": reconcile_seconds},
        },
        EXPIRE_ACCOUNTS: {"task": EXPIRE_ACCOUNTS, "schedule": 60.0, "options": {"expires": 60}},
    }

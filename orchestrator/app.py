"""The Celery application: `celery -A orchestrator.app worker|beat|flower`."""

from typing import Any

import structlog
from celery.signals import (
    beat_init,
    setup_logging,
    task_postrun,
    task_prerun,
    worker_init,
    worker_process_shutdown,
    worker_shutdown,
    worker_shutting_down,
)

from config.celery import make_celery
from config.settings import Settings
from orchestrator import telemetry
from tasks import runtime

settings = Settings.load()
app = make_celery(settings)
app.autodiscover_tasks(["tasks"], related_name="accounts")
app.autodiscover_tasks(["tasks"], related_name="callbacks")
app.autodiscover_tasks(["tasks"], related_name="chats")
app.autodiscover_tasks(["tasks"], related_name="operations")
app.autodiscover_tasks(["tasks"], related_name="tenants")


@setup_logging.connect
def _set_up_logging(**_: object) -> None:
    telemetry.set_up_logging(settings)


@worker_init.connect
@beat_init.connect
def _set_up_sentry(**_: object) -> None:
    telemetry.set_up_sentry(settings)


@task_prerun.connect
def _bind_to_logs(kwargs: dict[str, Any], **_: object) -> None:
    structlog.contextvars.bind_contextvars(**{name: kwargs[name] for name in telemetry.TAGS if name in kwargs})


@task_postrun.connect
def _unbind_from_logs(**_: object) -> None:
    structlog.contextvars.clear_contextvars()


@worker_shutting_down.connect
def _take_no_more(**_: object) -> None:
    runtime.take_no_more()


@worker_process_shutdown.connect
@worker_shutdown.connect
def _close_runtime(**_: object) -> None:
    runtime.close()

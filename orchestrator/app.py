"""The Celery application: `celery -A orchestrator.app worker|beat|flower`."""

from celery.signals import beat_init, setup_logging, worker_init, worker_process_shutdown, worker_shutdown

from config.celery import make_celery
from config.settings import Settings
from orchestrator import telemetry
from tasks import runtime

settings = Settings.load()
app = make_celery(settings)
app.autodiscover_tasks(["tasks"], related_name="accounts")
app.autodiscover_tasks(["tasks"], related_name="callbacks")
app.autodiscover_tasks(["tasks"], related_name="workflows")


@setup_logging.connect
def _set_up_logging(**_: object) -> None:
    telemetry.set_up_logging(settings)


@worker_init.connect
@beat_init.connect
def _set_up_sentry(**_: object) -> None:
    telemetry.set_up_sentry(settings)


@worker_process_shutdown.connect
@worker_shutdown.connect
def _close_runtime(**_: object) -> None:
    runtime.close()

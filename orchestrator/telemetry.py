"""Logs and Sentry: tenant, shard and operation everywhere, secrets nowhere."""

import logging
import re
from collections.abc import MutableMapping
from typing import Any

import sentry_sdk
import structlog
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.httpx import HttpxIntegration
from sentry_sdk.types import Event, Hint

from config.settings import Settings

_SECRET_NAME = re.compile(r"pass|secret|token|authorization|cookie|\bkey\b|_key$", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]+@")
_HIDDEN = "[hidden]"
TAGS = {"instance_name", "operation_id", "shard", "step"}
"""What a log line or a Sentry event says of where it belongs, wherever it is known."""


def hide_secrets(value: Any, name: str = "") -> Any:
    """A copy in which everything that is named like a secret, and every password in a URL, is hidden."""
    if _SECRET_NAME.search(name):
        return _HIDDEN
    if isinstance(value, dict):
        return {key: hide_secrets(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [hide_secrets(item) for item in value]
    if isinstance(value, str):
        return _URL_PASSWORD.sub(rf"\1:{_HIDDEN}@", value)
    return value


def _hide_in_log(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: hide_secrets(value, name) for name, value in event.items()}


def set_up_logging(settings: Settings) -> None:
    """Structured logs to standard error, for our own loggers and for those of the libraries alike."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _hide_in_log,
    ]
    renderer: Any = structlog.processors.JSONRenderer()
    if settings.log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    # One line per request or stanza is no news, and would show what people write.
    for noisy in ("httpx", "slixmpp", "aiosqlite", "uvicorn.access", "kombu", "celery.beat"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)


def set_up_sentry(settings: Settings) -> None:
    """Report errors to Sentry when a DSN is set: without local variables, bodies or personal data."""
    dsn = settings.sentry_dsn.get_secret_value()
    if not dsn:
        return
    # here, because it loads FastAPI, which takes a tenth of the time that a process needs to start
    from sentry_sdk.integrations.fastapi import FastApiIntegration  # noqa: PLC0415

    sentry_sdk.init(
        dsn=dsn,
        environment=settings.environment,
        integrations=[CeleryIntegration(monitor_beat_tasks=False), FastApiIntegration(), HttpxIntegration()],
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
        trace_propagation_targets=[],  # else each callback tells the tenant's server our release and Sentry's key
        before_send=_before_send,
    )


def _before_send(event: Event, _hint: Hint) -> Event:
    event.setdefault("tags", {}).update(
        {name: str(value) for name, value in structlog.contextvars.get_contextvars().items() if name in TAGS}
    )
    hidden: Event = hide_secrets(dict(event))
    return hidden

"""A control panel that sends tasks by their names."""

import re
from typing import Any

import pytest
from celery import Celery

_SECONDS = 20


class Client:
    """A Celery application of somebody else's, without any of our code."""

    def __init__(self, broker_url: str) -> None:
        backend = broker_url if broker_url.startswith("redis") else "rpc://"
        self.app = Celery(broker=broker_url, backend=backend, task_create_missing_queue_type="quorum")

    def call(self, name: str, **arguments: Any) -> Any:
        return self.app.send_task(name, kwargs=arguments, queue="lifecycle").get(timeout=_SECONDS)

    def fails(self, rule: str, name: str, **arguments: Any) -> None:
        """The task's failure says what rule was broken; its type is one that this client need not know."""
        with pytest.raises(Exception, match=re.escape(rule)):
            self.call(name, **arguments)

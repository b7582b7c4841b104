"""Flower, which shows Celery's tasks: for who logs in, to be looked at alone.

Flower itself has pages and calls that start, end and slow down tasks, and knows no bound for guesses. So none of its
handlers is reached but through `_Guard.refusal`: what is not on the list there is not there.
"""

import atexit
import base64
import binascii
import signal
import sys
from http import HTTPStatus
from types import FrameType
from typing import Any

from flower import urls
from flower.api import tasks, workers
from flower.app import Flower
from flower.options import options
from flower.views import broker, error, monitor
from flower.views import tasks as task_pages
from flower.views import workers as worker_pages
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.web import RequestHandler, StaticFileHandler

from config.settings import FLOWER_USER
from tenants.core.digests import same

_READING = {"GET", "HEAD"}
_SHOWN: dict[type[RequestHandler], set[str]] = {
    worker_pages.WorkersView: _READING,
    worker_pages.WorkerView: _READING,
    task_pages.TasksView: _READING,
    task_pages.TaskView: _READING,
    task_pages.TasksDataTable: {*_READING, "POST"},  # the search that the list sends
    broker.BrokerView: _READING,
    workers.ListWorkers: _READING,
    tasks.ListTasks: _READING,
    tasks.ListTaskTypes: _READING,
    tasks.TaskInfo: _READING,
    tasks.GetQueueLengths: _READING,
    monitor.Metrics: _READING,
    StaticFileHandler: _READING,
    error.NotFoundErrorHandler: _READING,
}
"""What changes nothing, by its methods."""
_GUESSES = RateLimitItemPerMinute(10, 5)
"""Wrong logins from one address; beyond that none from there is looked at."""


class _Guard:
    """Who may see it."""

    def __init__(self, password: str) -> None:
        self._password = password
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def refusal(self, request: HTTPServerRequest, target: type[RequestHandler]) -> HTTPStatus | None:
        """Why the request is not answered; None: it is."""
        if target is monitor.Healthcheck:
            return None
        address = str(request.remote_ip)
        if not self._limiter.test(_GUESSES, address):
            return HTTPStatus.TOO_MANY_REQUESTS
        presented = request.headers.get("Authorization", "")
        if not self._opens(presented):
            if presented:
                self._limiter.hit(_GUESSES, address)
            return HTTPStatus.UNAUTHORIZED
        return None if request.method in _SHOWN.get(target, ()) else HTTPStatus.FORBIDDEN

    def _opens(self, presented: str) -> bool:
        kind, _, encoded = presented.partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        return kind.lower() == "basic" and user == FLOWER_USER and same(password, self._password)


class _Refused(RequestHandler):
    """Says why, and nothing of what is there."""

    def initialize(self, status: HTTPStatus) -> None:
        self._status = status

    def check_xsrf_cookie(self) -> None:
        """There is nothing to protect, and 401 or 429 is to be told, not its 403."""

    def prepare(self) -> None:
        self.set_status(self._status)
        if self._status is HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", 'Basic realm="flower", charset="UTF-8"')
        if self._status is HTTPStatus.TOO_MANY_REQUESTS:
            self.set_header("Retry-After", str(_GUESSES.get_expiry()))
        self.finish(f"{self._status.phrase}\n")


class GuardedFlower(Flower):  # type: ignore[misc]  # Flower has no types
    """Flower behind the guard."""

    def __init__(self, guard: _Guard, **settings: Any) -> None:
        self._guard = guard
        super().__init__(**settings)

    def get_handler_delegate(
        self, request: HTTPServerRequest, target_class: type[RequestHandler], *args: Any, **kwargs: Any
    ) -> HTTPMessageDelegate:
        """The only way to any handler, as Tornado looks for it."""
        status = self._guard.refusal(request, target_class)
        if status is not None:
            target_class, args, kwargs = _Refused, ({"status": status},), {}
        delegate: HTTPMessageDelegate = super().get_handler_delegate(request, target_class, *args, **kwargs)
        return delegate


def run(celery: Any, password: str, host: str, port: int) -> None:
    """Serve until a signal ends it. An empty password opens nothing."""
    for name, value in {
        "address": host,
        "port": port,
        "basic_auth": [f"{FLOWER_USER}:{password}"],
        "read_only": True,  # hides the buttons of what the guard refuses
        "tasks_columns": "name,kwargs,state,received,runtime,uuid",
    }.items():
        setattr(options, name, value)
    app = GuardedFlower(_Guard(password), capp=celery, options=options, **urls.settings)
    atexit.register(app.stop)
    signal.signal(signal.SIGTERM, _stop)
    app.start_http_server()
    try:
        app.start()
    except (KeyboardInterrupt, SystemExit):
        return


def _stop(_signum: int, _frame: FrameType | None) -> None:
    sys.exit(0)

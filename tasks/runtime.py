"""One event loop and one set of connections per worker process, made when its first task runs.

Made lazily, hence after any fork: an event loop, a database pool and HTTP connections must not be inherited.
"""

import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal
from celery import Celery, current_app

from config.settings import Settings
from config.wakeup import celery_wake
from tenants.services import Services, open_services

Result = TypeVar("Result")


class Runtime(AbstractContextManager["Runtime"]):
    """Runs coroutines of the domain from the worker's threads, all in one long-lived event loop."""

    def __init__(self, settings: Settings, app: Celery) -> None:
        self._settings = settings
        self._app = app
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._opened: tuple[BlockingPortal, Services] | None = None

    def run(self, function: Callable[[Services], Awaitable[Result]]) -> Result:
        """Await `function(services)` in the event loop and return its result."""
        portal, services = self._open()
        return portal.call(function, services)

    def _open(self) -> tuple[BlockingPortal, Services]:
        with self._lock:
            if self._opened is None:
                portal = self._stack.enter_context(start_blocking_portal())
                opened = portal.wrap_async_context_manager(open_services(self._settings, celery_wake(self._app)))
                self._opened = portal, self._stack.enter_context(opened)
            return self._opened

    def __exit__(self, *_exception: object) -> None:
        with self._lock:
            self._opened = None
            self._stack.close()


_runtime: Runtime | None = None
_runtime_lock = threading.Lock()


def run(function: Callable[[Services], Awaitable[Result]]) -> Result:
    """Run a coroutine of the domain in this process's runtime."""
    global _runtime  # noqa: PLW0603 - one per process is the point
    with _runtime_lock:
        if _runtime is None:
            _runtime = Runtime(Settings.load(), current_app._get_current_object())  # noqa: SLF001 - Celery's way to the app itself
    return _runtime.run(function)


def close() -> None:
    """Close the runtime of this process, if there is one."""
    global _runtime  # noqa: PLW0603 - see `run`
    with _runtime_lock:
        if _runtime is not None:
            _runtime.__exit__(None, None, None)
            _runtime = None

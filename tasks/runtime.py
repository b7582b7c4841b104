"""One event loop and one set of connections per worker process, made when its first task runs.

Made lazily, hence after any fork: an event loop, a database pool and HTTP connections must not be inherited.
"""

import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal
from celery import Celery, current_app

from config.settings import Settings
from config.wakeup import celery_wake
from tenants.delivery.poller import Lookout
from tenants.delivery.runners import Runners
from tenants.process.services import Services, open_services

Result = TypeVar("Result")

_GRACE = 12.0
"""Seconds for callbacks under way when the worker ends: clearly less than supervisord's `stopwaitsecs`."""


@dataclass(frozen=True, slots=True)
class _Opened:
    portal: BlockingPortal
    services: Services
    runners: Runners
    lookout: Lookout


class Runtime(AbstractContextManager["Runtime"]):
    """Runs coroutines of the domain from the worker's threads, all in one long-lived event loop."""

    def __init__(self, settings: Settings, app: Celery) -> None:
        self._settings = settings
        self._app = app
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._opened: _Opened | None = None

    def run(self, function: Callable[[Services], Awaitable[Result]]) -> Result:
        """Await `function(services)` in the event loop and return its result."""
        opened = self._open()
        return opened.portal.call(function, opened.services)

    def start_delivery(self, instance_names: Sequence[str]) -> None:
        """Start a runner for each tenant in the event loop, stay awake for more, and do not wait for any."""
        opened = self._open()
        opened.portal.call(opened.lookout.wake, *instance_names)

    def take_no_more(self) -> None:
        """The worker is about to end: begin no new callback. Sets a flag only, so it may be called from anywhere."""
        if self._opened is not None:
            self._opened.runners.take_no_more()

    def _open(self) -> _Opened:
        with self._lock:
            if self._opened is None:
                portal = self._stack.enter_context(start_blocking_portal())
                opened = portal.wrap_async_context_manager(open_services(self._settings, celery_wake(self._app)))
                services = self._stack.enter_context(opened)
                delivery = portal.wrap_async_context_manager(_open_delivery(services))
                self._opened = _Opened(portal, services, *self._stack.enter_context(delivery))
                # what is there now stays: no pause to look for garbage in it
                gc.collect()
                gc.freeze()
            return self._opened

    def __exit__(self, *_exception: object) -> None:
        with self._lock:
            self._opened = None
            self._stack.close()


@asynccontextmanager
async def _open_delivery(services: Services) -> AsyncIterator[tuple[Runners, Lookout]]:
    runners = Runners(services)
    lookout = Lookout(services, runners.start)
    try:
        yield runners, lookout
    finally:
        await lookout.close()
        await runners.stop(_GRACE)


_runtime: Runtime | None = None
_runtime_lock = threading.Lock()


def _get() -> Runtime:
    global _runtime  # noqa: PLW0603 - one per process is the point
    with _runtime_lock:
        if _runtime is None:
            _runtime = Runtime(Settings.load(), current_app._get_current_object())  # noqa: SLF001 - Celery's way to the app itself
    return _runtime


def run(function: Callable[[Services], Awaitable[Result]]) -> Result:
    """Run a coroutine of the domain in this process's runtime."""
    return _get().run(function)


def start_delivery(instance_names: Sequence[str]) -> None:
    """Start a runner for each tenant's callbacks in this process's runtime."""
    _get().start_delivery(instance_names)


def take_no_more() -> None:
    """Begin no new callback. Called from a signal handler, so it takes no lock."""
    if _runtime is not None:
        _runtime.take_no_more()


def close() -> None:
    """Close the runtime of this process, if there is one."""
    global _runtime  # noqa: PLW0603 - see `_get`
    with _runtime_lock:
        if _runtime is not None:
            _runtime.__exit__(None, None, None)
            _runtime = None

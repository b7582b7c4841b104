"""A worker that ends itself with SIGKILL at a chosen point of a workflow, and a successor that does not."""

import asyncio
import dataclasses
import inspect
import multiprocessing
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.settings import Settings
from tenants.lifecycle import engine
from tenants.lifecycle.engine import Next, Run, Step, Workflows
from tenants.process.services import Services, open_services
from tenants.store import claims
from tenants.workflows.workflows import WORKFLOWS

_DEATH = 30.0
"""Seconds that a worker may need to come to its end."""

_processes = multiprocessing.get_context("forkserver")
# what else a worker loads when it opens its connections takes longer to load than most of them live
_processes.set_forkserver_preload(
    [__name__, "aiosqlite", "anyio.streams.tls", "h11", "httpcore", "opentelemetry.metrics", "redis.asyncio.client"]
)


@dataclass(frozen=True, slots=True)
class Death:
    """Where a worker ends.

    Attributes:
        step: in which step.
        calls: after how many calls of servers in that step: none is before it does anything. None: when the step is
            done, but not yet recorded; there too when it makes fewer calls.
    """

    step: str
    calls: int | None


async def no_wake(task: str, **arguments: str | int) -> None:
    """Nobody is woken: whoever wants an operation advanced does it."""


def settings_of(state: Path, database_url: str | None = None) -> Settings:
    """The settings of a running system; with another registry, which its own processes do not know."""
    registry: dict[str, Any] = {"database_url": database_url} if database_url else {}
    return Settings(_env_file=state / "settings.env", **registry)


async def die(state: Path, database_url: str, operation_id: str, lives: int, death: Death) -> None:
    """Advance the operation in a process of its own until that ends there. `lives`: how many died before it.

    Raises:
        AssertionError: it did not end there, or not at all.
    """
    process = _processes.Process(target=_live, args=(state, database_url, operation_id, lives, death))
    process.start()
    await asyncio.to_thread(process.join, _DEATH)
    code = process.exitcode
    process.kill()
    assert code == -signal.SIGKILL, f"it ended with {code} instead of {death}"


async def finish(services: Services, operation_id: str, workflows: Workflows = WORKFLOWS) -> None:
    """Advance the operation as far as it goes now."""
    while await engine.advance(services, workflows, operation_id) is Next.STEP:
        pass


def later(lives: int) -> Callable[[], float]:
    """A clock that is ahead by the claims of those who died, so that nobody has to wait for their end."""
    return lambda: time.time() + lives * (claims.CLAIM_TERM + 1)


def _live(state: Path, database_url: str, operation_id: str, lives: int, death: Death) -> None:
    async def live() -> None:
        countdown = _Countdown()
        async with open_services(settings_of(state, database_url), no_wake, later(lives)) as services:
            await finish(watched(services, countdown.called), operation_id, _deadly(death, countdown))

    asyncio.run(live())


@dataclass
class _Countdown:
    """Calls until the end of this process, once it has begun with the step in which it ends."""

    left: int | None = None

    async def called(self, _name: str) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                _end()


def _deadly(death: Death, countdown: _Countdown) -> Workflows:
    def deadly(step: Step) -> Step:
        async def run(run: Run) -> None:
            if death.calls == 0:
                _end()
            countdown.left = death.calls
            await step.run(run)
            _end()

        return dataclasses.replace(step, run=run) if step.name == death.step else step

    return {
        kind: dataclasses.replace(workflow, steps=tuple(map(deadly, workflow.steps)))
        for kind, workflow in WORKFLOWS.items()
    }


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


Called = Callable[[str], Awaitable[None]]
"""Is told the name of each call when it is done."""


def watched(services: Services, called: Called) -> Services:
    """The services, with something that follows each call of ejabberd and of the shard queues."""
    ejabberd: Any = _Watched(services.ejabberd, called)
    commands: Any = _Watched(services.commands, called)
    return dataclasses.replace(services, ejabberd=ejabberd, commands=commands)


class _Watched:
    """An object whose calls are watched, those of its parts too."""

    def __init__(self, watched: Any, called: Called) -> None:
        self._watched = watched
        self._called = called

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._watched, name)
        if inspect.iscoroutinefunction(found):
            return self._watch(found)
        return found if callable(found) or isinstance(found, str | int) else _Watched(found, self._called)

    def at(self, host: str) -> Any:
        """Ejabberd's client of another virtual host, which is watched as well."""
        return _Watched(self._watched.at(host), self._called)

    def _watch(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **named: Any) -> Any:
            result = await function(*arguments, **named)
            await self._called(function.__name__)
            return result

        return call

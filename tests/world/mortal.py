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
from tenants import claims, operations
from tenants.operations import Next, Run, Step, Workflows
from tenants.services import Services, open_services
from tenants.workflows import WORKFLOWS

_DEATH = 30.0
"""Seconds that a worker may need to come to its end."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


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


def settings_of(state: Path, database_url: str) -> Settings:
    """The settings of a running system, with a registry that its own processes do not know."""
    return Settings(_env_file=state / "settings.env", database_url=database_url)


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
    while await operations.advance(services, workflows, operation_id) is Next.STEP:
        pass


def later(lives: int) -> Callable[[], float]:
    """A clock that is ahead by the claims of those who died, so that nobody has to wait for their end."""
    return lambda: time.time() + lives * (claims.CLAIM_TERM + 1)


def _live(state: Path, database_url: str, operation_id: str, lives: int, death: Death) -> None:
    async def live() -> None:
        async with open_services(settings_of(state, database_url), no_wake, later(lives)) as services:
            await finish(_watched(services), operation_id, _deadly(death))

    asyncio.run(live())


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_calls_left: int | None = None
"""Of the step in which this process is to end."""


def _deadly(death: Death) -> Workflows:
    def deadly(step: Step) -> Step:
        async def run(run: Run) -> None:
            global _calls_left  # noqa: PLW0603 - this process has one life
            _calls_left = death.calls
            if death.calls == 0:
                _end()
            await step.run(run)
            _end()

        return dataclasses.replace(step, run=run) if step.name == death.step else step

    return {
        kind: dataclasses.replace(workflow, steps=tuple(map(deadly, workflow.steps)))
        for kind, workflow in WORKFLOWS.items()
    }


def _watched(services: Services) -> Services:
    """The services, with the servers' calls counted."""
    ejabberd: Any = _Watched(services.ejabberd)
    commands: Any = _Watched(services.commands)
    return dataclasses.replace(services, ejabberd=ejabberd, commands=commands)


class _Watched:
    """An object whose calls are counted, those of its parts too."""

    def __init__(self, watched: object) -> None:
        self._watched = watched

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._watched, name)
        if inspect.iscoroutinefunction(found):
            return _counted(found)
        return found if callable(found) or isinstance(found, str | int) else _Watched(found)


def _counted(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(*arguments: Any, **named: Any) -> Any:
        global _calls_left  # noqa: PLW0603 - see above
        result = await function(*arguments, **named)
        if _calls_left is not None:
            _calls_left -= 1
            if not _calls_left:
                _end()
        return result

    return call

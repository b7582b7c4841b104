"""Operations followed to their end: bars on a terminal; in a pipe, or on a dumb terminal, lines. On standard error."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from orchestrator.cli.running import messages, plain, run
from tenants.lifecycle import operations
from tenants.process.services import Services
from tenants.store.models import UNFINISHED, Operation, OperationState, OperationStep, StepState

_POLL_SECONDS = 0.3
_LINE_EVERY = 10
"""Percent of a step between two lines."""


class _Display(Protocol):
    """Shows how far operations are."""

    def show(self, operation: Operation) -> None:
        """The operation as it is now."""

    def end(self) -> None:
        """It has ended, or rests."""


def follow(operation_ids: Sequence[str]) -> list[Operation]:
    """The operations once they have ended, or rest; meanwhile shows how far they are."""

    async def ended(services: Services, display: _Display, operation_id: str) -> Operation:
        while True:
            operation = await operations.get(services.database, operation_id)
            display.show(operation)
            if operation.state not in UNFINISHED or operation.state is OperationState.PAUSED:
                display.end()
                return operation
            await asyncio.sleep(_POLL_SECONDS)

    async def all_ended(services: Services) -> list[Operation]:
        with _display(len(operation_ids)) as display:
            # they run side by side; looking at one after the other sees the end of each
            return [await ended(services, display, operation_id) for operation_id in operation_ids]

    return run(all_ended) if operation_ids else []


@contextmanager
def _display(count: int) -> Iterator[_Display]:
    if not messages.is_terminal or messages.is_dumb_terminal:
        yield _Lines()
        return
    told = TextColumn("{task.fields[told]}", markup=False)
    name = TextColumn("{task.description}", markup=False)
    with Progress(name, BarColumn(), TaskProgressColumn(), told, console=messages) as progress:
        yield _Bars(progress, count)


class _Bars:
    """A bar for each step of the operation that is looked at; of many operations one for all, too."""

    def __init__(self, progress: Progress, count: int) -> None:
        self._progress = progress
        self._all = progress.add_task("all", total=count, told="") if count > 1 else None
        self._steps: dict[int, TaskID] = {}

    def show(self, operation: Operation) -> None:
        if self._all is not None:
            self._progress.update(self._all, told=operation.instance_name)
        for step in operation.steps:
            if step.position not in self._steps:
                self._steps[step.position] = self._progress.add_task(step.name, told="")
            # a step that found nothing to do is done all the same
            total = max(step.total, 1)
            done = total if step.state is StepState.SUCCEEDED else step.done
            self._progress.update(self._steps[step.position], completed=done, total=total, told=_told(step))

    def end(self) -> None:
        """Of many, its bars make room for those of the next one."""
        if self._all is None:
            return
        for bar in self._steps.values():
            self._progress.remove_task(bar)
        self._steps.clear()
        self._progress.advance(self._all)


class _Lines:
    """A line when there is news of a step: each tenth of a long one, its end, an attempt that failed."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, int], str] = {}

    def show(self, operation: Operation) -> None:
        for step in operation.steps:
            key, line = (operation.id, step.position), _line(step)
            if line and self._told.get(key) != line:
                self._told[key] = line
                messages.print(plain(f"{operation.instance_name}: {step.name} {line}"), soft_wrap=True)

    def end(self) -> None:
        """What was told stays."""


def _told(step: OperationStep) -> str:
    """What stands beside a step's bar."""
    count = f"{step.done:,}/{step.total:,}" if step.total > 1 else ""
    failed = plain(f"{step.error} (attempt {step.attempts})").plain if step.error else ""
    return f"{count} {failed}".strip()


def _line(step: OperationStep) -> str:
    if step.state is StepState.SUCCEEDED:
        return f"100% {_told(step)}".strip()
    if step.error:
        return _told(step)
    percent = 100 * step.done // max(step.total, 1) // _LINE_EVERY * _LINE_EVERY
    return f"{percent}%" if percent else ""

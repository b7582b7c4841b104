"""Carries out the schedule on a running system, and notes what was done and when each victim was back."""

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Protocol
from xmlrpc.client import Fault

from bench.chaos.schedule import LHC, Action, Kind
from bench.testbed.system import System, domain_of
from orchestrator.launcher.up import control
from tenants.core.errors import DomainError

_BACK_WITHIN = 90.0
_POLL = 0.1
_RUNNING = "RUNNING"
_NEVER = frozenset({"flower", "epmd"})
"""Nothing of a conversation passes through these."""
_ILL = (OSError, HTTPException, Fault)
"""What a call of supervisord may raise."""


class Outages(Protocol):
    """The tenants' LHC, as far as it can fail."""

    async def fail(self, kind: Kind, seconds: float) -> None:
        """Fail for so long in that way."""


@dataclass(slots=True)
class Hit:
    """An action that was carried out. Times are on the monotonic clock.

    Attributes:
        back: when the victim ran again; None while it does not.
        note: why it was not hit, or what went wrong.
    """

    action: Action
    at: float
    back: float | None = None
    note: str = ""

    @property
    def down(self) -> float | None:
        """For how many seconds the victim was away."""
        return self.back - self.at if self.back is not None else None


class Mayhem:
    """Hits victims as the schedule says. One that is still down is left alone.

    So are all nodes of ejabberd until each of several serves again: that one lives is what is promised.
    """

    def __init__(self, system: System, outages: Outages) -> None:
        self._system = system
        self._outages = outages
        self._down: set[str] = set()
        self._paused: set[int] = set()
        self.hits: list[Hit] = []

    async def carry_out(self, actions: Sequence[Action]) -> None:
        """Carry out all actions, each at its time from now, and wait until every victim is back."""
        begun = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                for action in actions:
                    await asyncio.sleep(begun + action.at - time.monotonic())
                    hit = Hit(action, time.monotonic())
                    self.hits.append(hit)
                    if self._one_down(action.victim) in self._down:
                        hit.note = "still down from the last time"
                        continue
                    self._down.add(self._one_down(action.victim))
                    group.create_task(self._hit(hit))
        finally:
            for pid in self._paused:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    async def _hit(self, hit: Hit) -> None:
        try:
            await self._do(hit)
            hit.back = time.monotonic()
        except (TimeoutError, *_ILL) as error:
            hit.note = f"{type(error).__name__}: {error}"
        finally:
            self._down.discard(self._one_down(hit.action.victim))

    @staticmethod
    def _one_down(victim: str) -> str:
        """What is not hit again while the victim is down: itself, or its whole cluster."""
        return "ejabberd" if is_node(victim) else victim

    async def _do(self, hit: Hit) -> None:
        action = hit.action
        if action.victim == LHC:
            await self._outages.fail(action.kind, action.seconds)
            return
        before = await asyncio.to_thread(self._info, action.victim)
        match action.kind:
            case Kind.RESTART:
                await asyncio.to_thread(self._restart, f"{before['group']}:{before['name']}")
            case Kind.PAUSE:
                await self._pause(before["pid"], action.seconds)
                return
            case _:
                _signal(before["pid"], signal.SIGKILL)
        async with asyncio.timeout(_BACK_WITHIN):
            while True:
                info = await asyncio.to_thread(self._info, action.victim)
                if info["statename"] == _RUNNING and info["pid"] != before["pid"]:
                    break
                await asyncio.sleep(_POLL)
            if is_node(action.victim):
                await self._await_nodes()

    async def _await_nodes(self) -> None:
        """Wait until all nodes of a cluster run, and a pool process is connected to each."""
        if "ejabberd-2" not in self._system.pids():
            return
        async with domain_of(self._system) as services:
            while True:
                with suppress(DomainError):
                    if all(node.is_up and node.connections for node in await services.ejabberd.nodes()):
                        return
                await asyncio.sleep(_POLL)

    async def _pause(self, pid: int, seconds: float) -> None:
        self._paused.add(pid)
        _signal(pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        _signal(pid, signal.SIGCONT)
        self._paused.discard(pid)

    def _info(self, name: str) -> dict[str, Any]:
        with control(self._system.state) as supervisor:
            return next(info for info in supervisor.getAllProcessInfo() if info["name"] == name)

    def _restart(self, name: str) -> None:
        # not a mere SIGTERM: to each server the signal that means "in good order"
        with control(self._system.state) as supervisor:
            supervisor.stopProcess(name)
            supervisor.startProcess(name, False)  # False: do not wait


def is_node(victim: str) -> bool:
    """Whether the victim is a node of ejabberd."""
    return victim.partition("-")[0] == "ejabberd"


def victims(system: System, chosen: Sequence[str]) -> list[str]:
    """The processes and servers to hit; `pool` is every pool process. All that run when none is chosen."""
    names = sorted({*system.pids(), LHC} - _NEVER)
    return [name for name in names if not chosen or name in chosen or name.partition("-")[0] in chosen]


def _signal(pid: int, signum: signal.Signals) -> None:
    if not pid:
        raise ProcessLookupError("it was not running")
    os.kill(pid, signum)

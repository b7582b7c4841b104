"""A program at a terminal of its own: what is typed, and what stands on the screen."""

import asyncio
import os
import re
from collections.abc import Callable, Mapping
from typing import Self, TypeVar

import pyte
from ptyprocess import PtyProcess, PtyProcessError

from bench.testbed.waiting import DEADLINE, until
from tests.world.containers import unprivileged

Value = TypeVar("Value")
ROWS, COLUMNS = 50, 160
"""As much as a test wants to see at once, and so wide that no line of a test's is broken."""


class Terminal:
    """A program, its keyboard and its screen. It is run by a user without power.

    Args:
        command: the program and its arguments.
        environment: what it gets of it, beside the terminal's kind and its language.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._command = command
        # the kind of terminal whose sequences pyte knows
        self._environment = {"TERM": "linux", "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", **environment}
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._process: PtyProcess
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._process = PtyProcess.spawn(
            self._command, env=self._environment, dimensions=(ROWS, COLUMNS), preexec_fn=_give_up_power
        )
        asyncio.get_running_loop().add_reader(self._process.fd, self._read)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        asyncio.get_running_loop().remove_reader(self._process.fd)
        try:
            self._process.close()  # hangs up, and kills it if it stays
        except PtyProcessError:
            # on a busy machine who was killed may still be there
            await until(lambda: not self._process.isalive(), "the program is gone")

    @property
    def text(self) -> str:
        """What stands on the screen."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    def press(self, keys: str) -> None:
        """Press these keys; a carriage return is Enter."""
        self._process.write(keys.encode())

    async def shows(self, pattern: str, seconds: float = DEADLINE) -> "re.Match[str]":
        """Wait until something on the screen is like the pattern."""
        return await self._until(lambda: re.search(pattern, self.text, re.MULTILINE), f"shows {pattern!r}", seconds)

    async def shows_no(self, pattern: str, seconds: float = DEADLINE) -> None:
        """Wait until nothing on the screen is like the pattern."""
        await self._until(lambda: not re.search(pattern, self.text, re.MULTILINE), f"shows no {pattern!r}", seconds)

    async def ended(self) -> int:
        """Wait until the program has ended; gives its exit code."""
        await self._until(self._ended.is_set, "ends", DEADLINE)
        self._process.wait()
        return int(self._process.exitstatus)

    async def _until(self, condition: Callable[[], Value | None], what: str, seconds: float) -> Value:
        try:
            return await until(condition, f"{self._command[0]} {what}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; its screen:\n{self.text}") from None

    def _read(self) -> None:
        try:
            self._stream.feed(self._process.read(65536))
        except EOFError:
            asyncio.get_running_loop().remove_reader(self._process.fd)
            self._ended.set()


def _give_up_power() -> None:
    """Become a user without power, between fork and exec: no client that is looked after runs as root."""
    if os.getuid() == 0:
        user = unprivileged()
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)

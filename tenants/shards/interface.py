"""What publishers and readers of the shard queues have in common."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import structlog

from tenants.core.errors import UnavailableError
from tenants.shards.commands import AnyCommand, decode

log = structlog.get_logger(__name__)

PUBLISH_TIMEOUT = 3.0
"""Seconds. LHC waits 5 for its whole request: better a clear failure than its time-out."""
MAX_PUBLISHING = 1000
"""Calls of `publish` under way at once, per process. Beyond it we say no instead of piling up."""
MAX_WAITING = 100_000
"""Commands in one shard's queue at most: many times what its tenants' visitors can do while nobody reads it."""


class QueueUnavailableError(UnavailableError):
    """The broker did not confirm the command in time, or its queue is full; it was not accepted."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A command as the broker gave it to us. `tag` is the broker's own handle of it."""

    shard: int
    command: AnyCommand
    tag: Any


class CommandPublisher(Protocol):
    """Hands commands over to the broker."""

    async def publish(self, *commands: AnyCommand) -> None:
        """Hand commands over, in order. A return means that they are on the broker's disk.

        Raises:
            QueueUnavailableError: the broker did not take them in time. It may still have them: to send them again is
                harmless, as their ids stay the same.
        """

    async def check(self) -> None:
        """Raise QueueUnavailableError when the broker cannot be reached."""

    async def close(self) -> None:
        """Give up the connection; commands that were accepted are with the broker."""


class CommandReader(Protocol):
    """Reads the queues of the shards that this process holds; connects, and connects again, by itself."""

    def start(self) -> None:
        """Begin; in the event loop."""

    def add(self, shard: int) -> None:
        """Read this shard's commands from now on, from the oldest that was not acknowledged."""

    async def drop(self, shards: Iterable[int]) -> None:
        """Stop reading these shards; what was not acknowledged stays with the broker, in order."""

    async def next_batch(self) -> list[Delivery]:
        """The next commands, in order per shard; an empty list after a moment without any."""

    async def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """These were carried out: the broker may forget them. If it cannot be told now, it is told later."""

    def alive(self) -> bool:
        """Whether the broker was heard of within the last seconds."""

    async def close(self) -> None:
        """Stop reading; what was not acknowledged stays with the broker."""


def decode_or_none(body: bytes | str, shard: int) -> AnyCommand | None:
    """The command, or None (and a log line) when it is none: nobody could ever carry it out."""
    try:
        return decode(body)
    except msgspec.DecodeError as error:
        log.error("command is not readable, dropped", shard=shard, error=str(error))  # noqa: TRY400 - no traceback worth having
        return None

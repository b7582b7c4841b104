"""What an item that needs attention is, and how the questions for them are asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, func
from sqlalchemy.ext.asyncio import AsyncSession

SHOWN = 20
"""Items of a kind that are told; how many more there are is counted."""


class Kind(StrEnum):
    """What sort of thing needs attention."""

    SETUP = "setup"
    """A setting, or a server that does not answer."""
    EJABBERD = "ejabberd"
    """It does not answer, or is of a version that was not tested."""
    NODE = "node"
    """A node of ejabberd's cluster is down."""
    PROCESS = "process"
    """Workers or pool processes are missing."""
    CLOCK = "clock"
    DISK = "disk"
    CERTIFICATE = "certificate"
    """It has ended, or will soon."""
    BACKUP = "backup"
    """The latest is too old."""
    CIRCUIT = "circuit"
    """A tenant's server fails, so nothing but a probe goes to it."""
    LATE = "late"
    """Messages wait for a tenant's server, which does not always fail."""
    DEAD_LETTERS = "dead_letters"
    """Messages were given up."""
    RETURNED = "returned"
    """Visitors' messages came back from ejabberd."""
    UNTAKEN = "untaken"
    """Visitors wrote, and there is no operator who may take it."""
    QUOTA = "quota"
    """A tenant has as much of something as it may have, or nearly."""
    OPERATION = "operation"
    """It failed, rests, or a step of it fails again and again."""
    DRIFT = "drift"
    """ejabberd differs from the registry, and a person must decide."""
    LOGIN = "login"
    """Operators who have never logged in."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that needs attention.

    Attributes:
        instance_name: the tenant's; None: it concerns the system.
        cause: one sentence for people.
        since: Unix seconds; None when nobody knows.
        action: what mends it; a command stands between backticks.
        is_problem: something is broken or refused now; else it is only to be looked at.
        subject: what it is about: the id of an operation, the name of a quota.
    """

    kind: Kind
    instance_name: str | None
    cause: str
    since: float | None
    action: str
    is_problem: bool = True
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """Which items are asked for: of one tenant, or all; and the present time."""

    now: float
    instance_name: str | None

    def of(self, column: Any) -> list[ColumnElement[bool]]:
        """The conditions on the column of the instance name."""
        return [] if self.instance_name is None else [column == self.instance_name]


async def first(session: AsyncSession, query: Any, limit: int = SHOWN) -> tuple[Sequence[Any], int]:
    """The first rows of the query (a `Select`), and how many there are: in one statement."""
    rows = (await session.execute(query.add_columns(func.count().over().label("of_all")).limit(limit))).all()
    return rows, rows[0].of_all if rows else 0


def count_of(number: int, what: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"

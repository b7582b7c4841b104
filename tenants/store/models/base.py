"""What the tables have in common. All times are Unix seconds (float), so that clocks can be passed in and compared."""

import secrets
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import Enum, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

JID_PART = 191
"""Longest local part that ejabberd's SQL schemas hold; names are far shorter, this bounds foreign input."""


MAX_ID = 2**31 - 1
"""Largest id that the integer columns of every database hold."""


def new_incarnation() -> str:
    """What tells one tenant, or account, from another that bears its name before or after it.

    Rows that are older than incarnations have an empty one.
    """
    return secrets.token_hex(16)


INCARNATION = String(32)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def text_enum(enum: type[StrEnum]) -> Enum:
    """Enums are stored as their lower-case values, in plain text columns: readable, and extended without DDL."""
    return Enum(enum, native_enum=False, length=16, values_callable=lambda e: [member.value for member in e])


class Claimable:
    """A row of work that one process at a time may take; see `tenants.store.claims`."""

    LOCK_ORDER: ClassVar[tuple[str, ...]] = ()
    """Columns: whoever locks several rows locks them in this order, so that there is no deadlock.

    Without columns it is the order of the primary key.
    """

    due_at: Mapped[float | None] = mapped_column(index=True)
    """When the work is to be done; nothing to do when null."""
    claimed_until: Mapped[float | None]
    """The claim of a process that died ends by itself at this time."""
    claim_token: Mapped[str | None] = mapped_column(String(32))

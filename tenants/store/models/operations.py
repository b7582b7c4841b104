"""What was done with tenants: operations and their steps, the audit log, differences from ejabberd."""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tenants.store.models.base import Base, Claimable, text_enum
from tenants.store.models.tenants import TenantState


class OperationKind(StrEnum):
    PROVISION = "provision"
    SUSPEND = "suspend"
    RESUME = "resume"
    DESTROY = "destroy"
    CHANGE_ADDRESS = "change_address"
    MOVE = "move"
    ROTATE_KEYS = "rotate_keys"
    IMPORT = "import"
    RECONCILE = "reconcile"


class OperationState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (OperationState.PENDING, OperationState.RUNNING, OperationState.PAUSED)


class RequestedStop(StrEnum):
    """What a person wants of an operation that is under way; done between two steps, or two chunks of one."""

    PAUSE = "pause"
    CANCEL = "cancel"


class StepState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


EVERY_TENANT = "*"
"""In the place of an instance name: an operation that concerns all tenants."""


class Operation(Claimable, Base):
    """One run of a workflow on one tenant. Outlives its tenant: it is the record of what was done."""

    __tablename__ = "operations"
    __table_args__ = (
        Index(
            "uq_operations_unfinished",
            "instance_name",
            "kind",
            unique=True,
            sqlite_where=text("state IN ('pending', 'running', 'paused')"),
            postgresql_where=text("state IN ('pending', 'running', 'paused')"),
        ),
        Index("ix_operations_created_at_id", "created_at", "id"),
        Index(
            "ix_operations_failed",
            "finished_at",
            sqlite_where=text("state = 'failed'"),
            postgresql_where=text("state = 'failed'"),
        ),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    instance_name: Mapped[str] = mapped_column(String(63), index=True)
    kind: Mapped[OperationKind] = mapped_column(text_enum(OperationKind))
    state: Mapped[OperationState] = mapped_column(text_enum(OperationState))
    requested_by: Mapped[str] = mapped_column(String(100))
    reason: Mapped[str | None] = mapped_column(Text)
    """Why it was asked for, in the words of who did."""
    bulk_id: Mapped[str | None] = mapped_column(String(32), index=True)
    """Shared by the operations that one request made for many tenants."""
    input: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict, server_default="{}")
    """What the workflow was given. Never a password or key, only digests and verifiers; emptied when it is over."""
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What the workflow found out; small."""
    wanted: Mapped[RequestedStop | None] = mapped_column(text_enum(RequestedStop))
    error: Mapped[str | None] = mapped_column(Text)
    celery_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]

    steps: Mapped[list["OperationStep"]] = relationship(order_by="OperationStep.position", lazy="selectin")


class OperationStep(Base):
    __tablename__ = "operation_steps"

    operation_id: Mapped[str] = mapped_column(ForeignKey("operations.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))
    state: Mapped[StepState] = mapped_column(text_enum(StepState))
    attempts: Mapped[int] = mapped_column(default=0)
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=1)
    error: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class AuditEntry(Base):
    """Who did what to which tenant, when and why. Never changed, never removed with the tenant."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index("ix_audit_entries_instance_name_id", "instance_name", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
    actor: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(40))
    instance_name: Mapped[str | None] = mapped_column(String(63))
    operation_id: Mapped[str | None] = mapped_column(String(32))
    old_state: Mapped[TenantState | None] = mapped_column(text_enum(TenantState))
    new_state: Mapped[TenantState | None] = mapped_column(text_enum(TenantState))
    reason: Mapped[str | None] = mapped_column(Text)


class Drift(Base):
    """A difference between the registry and ejabberd, as the last comparison saw it."""

    __tablename__ = "drift"
    __table_args__ = (
        UniqueConstraint("instance_name", "kind", "subject"),
        Index(
            "ix_drift_unmended",
            "instance_name",
            "found_at",
            sqlite_where=text("mended_at IS NULL"),
            postgresql_where=text("mended_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    instance_name: Mapped[str] = mapped_column(String(63))
    kind: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(255))
    """The account or shared roster that differs."""
    found_at: Mapped[float]
    mended_at: Mapped[float | None]
    """None: reported only, because it was a dry run or because a person must decide."""
    detail: Mapped[str | None] = mapped_column(Text)

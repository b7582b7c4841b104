"""States and requests of a tenant's whole life, who asked for what, tokens, quotas, and drift from ejabberd."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_UNFINISHED = "state IN ('pending', 'running', 'paused')"


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(length=100), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("instance_name", sa.String(length=63), nullable=True),
        sa.Column("operation_id", sa.String(length=32), nullable=True),
        sa.Column("old_state", sa.String(length=16), nullable=True),
        sa.Column("new_state", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
    )
    op.create_index("ix_audit_entries_instance_name_id", "audit_entries", ["instance_name", "id"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("instance_name", sa.String(length=63), nullable=True),
        sa.Column("created_by", sa.String(length=100), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_index(op.f("ix_tokens_instance_name"), "tokens", ["instance_name"])
    op.create_table(
        "idempotent_requests",
        sa.Column("actor", sa.String(length=100), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", sa.JSON(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("actor", "key", name=op.f("pk_idempotent_requests")),
    )
    op.create_index(op.f("ix_idempotent_requests_created_at"), "idempotent_requests", ["created_at"])
    op.create_table(
        "drift",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance_name", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("found_at", sa.Double(), nullable=False),
        sa.Column("mended_at", sa.Double(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift")),
        sa.UniqueConstraint("instance_name", "kind", "subject", name=op.f("uq_drift_instance_name_kind_subject")),
    )
    op.add_column("tenants", sa.Column("previous_key_digest", sa.String(length=64), nullable=True))
    op.add_column("tenants", sa.Column("previous_key_until", sa.Double(), nullable=True))
    op.add_column("tenants", sa.Column("xmpp", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("tenants", sa.Column("visitor_tracking", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("tenants", sa.Column("max_accounts", sa.Integer(), nullable=True))
    op.add_column("tenants", sa.Column("max_online_visitors", sa.Integer(), nullable=True))
    op.add_column("tenants", sa.Column("calls_per_second", sa.Double(), nullable=True))
    op.add_column("operations", sa.Column("reason", sa.Text(), nullable=True))
    op.add_column("operations", sa.Column("bulk_id", sa.String(length=32), nullable=True))
    op.add_column("operations", sa.Column("input", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("operations", sa.Column("result", sa.JSON(), nullable=True))
    op.add_column("operations", sa.Column("wanted", sa.String(length=16), nullable=True))
    op.create_index(op.f("ix_operations_bulk_id"), "operations", ["bulk_id"])
    op.create_index("ix_operations_created_at_id", "operations", ["created_at", "id"])
    _set_unfinished(_UNFINISHED)


def downgrade() -> None:
    _set_unfinished("state IN ('pending', 'running')")
    op.drop_index("ix_operations_created_at_id", "operations")
    op.drop_index(op.f("ix_operations_bulk_id"), "operations")
    for column in ("wanted", "result", "input", "bulk_id", "reason"):
        op.drop_column("operations", column)
    for column in ("calls_per_second", "max_online_visitors", "max_accounts", "visitor_tracking", "xmpp"):
        op.drop_column("tenants", column)
    op.drop_column("tenants", "previous_key_until")
    op.drop_column("tenants", "previous_key_digest")
    for table in ("drift", "idempotent_requests", "tokens", "audit_entries"):
        op.drop_table(table)


def _set_unfinished(condition: str) -> None:
    """One unfinished operation of a kind per tenant."""
    op.drop_index("uq_operations_unfinished", "operations")
    op.create_index(
        "uq_operations_unfinished",
        "operations",
        ["instance_name", "kind"],
        unique=True,
        sqlite_where=sa.text(condition),
        postgresql_where=sa.text(condition),
    )

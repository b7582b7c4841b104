"""Indexes of the few rows, among many, that say what needs attention."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_INDEXES = (
    ("ix_callback_messages_dead", "callback_messages", ["instance_name", "created_at"], "state = 'dead'"),
    ("ix_accounts_operators", "accounts", ["instance_name", "username"], "kind = 'operator'"),
    ("ix_returned_messages_waiting", "returned_messages", ["instance_name", "created_at"], "replayed_at IS NULL"),
    ("ix_operations_failed", "operations", ["finished_at"], "state = 'failed'"),
    ("ix_drift_unmended", "drift", ["instance_name", "found_at"], "mended_at IS NULL"),
)


def upgrade() -> None:
    for name, table, columns, condition in _INDEXES:
        where = sa.text(condition)
        op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    for name, table, _, _ in reversed(_INDEXES):
        op.drop_index(name, table)

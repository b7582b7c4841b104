"""Incarnations: what is issued to a tenant or an account opens none that bears the same name later."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_TABLES = ("tenants", "accounts", "tokens", "one_time_links")


def upgrade() -> None:
    # those that are there have an empty one, as has what was issued to them
    for name in _TABLES:
        with op.batch_alter_table(name) as table:
            table.add_column(sa.Column("incarnation", sa.String(length=32), server_default="", nullable=False))


def downgrade() -> None:
    for name in _TABLES:
        with op.batch_alter_table(name) as table:
            table.drop_column("incarnation")

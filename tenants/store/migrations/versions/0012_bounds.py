"""What of a tenant may wait for its server, and how many rooms it may have."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tenants", sa.Column("max_rooms", sa.Integer(), nullable=True))
    op.add_column("tenants", sa.Column("max_waiting_messages", sa.Integer(), nullable=True))


def downgrade() -> None:
    for column in ("max_waiting_messages", "max_rooms"):
        op.drop_column("tenants", column)

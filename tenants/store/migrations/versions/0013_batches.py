"""How busy a worker's batches are, beside its sign of life."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("heartbeats", sa.Column("batches", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("heartbeats", "batches")

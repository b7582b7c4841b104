"""Since when a tenant's server refuses an operator's presence."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("operator_presences", sa.Column("refused_at", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("operator_presences", "refused_at")

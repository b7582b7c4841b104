"""What is strange about an answer that counts as received."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("delivery_attempts", sa.Column("warning", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("delivery_attempts", "warning")

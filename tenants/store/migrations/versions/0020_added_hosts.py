"""XMPP hosts that are added while the system runs."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "hosts",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("certificate", sa.String(1000), nullable=True),
        sa.Column("added_at", sa.Double(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("hosts")

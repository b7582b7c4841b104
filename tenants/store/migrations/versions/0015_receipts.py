"""What operators' clients call their messages, and the receipts that they ask for."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("callback_messages", sa.Column("client_id", sa.String(length=191), nullable=True))
    op.add_column("callback_messages", sa.Column("asks", sa.JSON(), nullable=True))


def downgrade() -> None:
    for column in ("asks", "client_id"):
        op.drop_column("callback_messages", column)

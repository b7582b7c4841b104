"""What else operators' clients call their messages; the language of a tenant's visitors."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("callback_messages", sa.Column("other_id", sa.String(191), nullable=True))
    op.add_column("tenants", sa.Column("language", sa.String(35), nullable=True))


def downgrade() -> None:
    op.drop_column("tenants", "language")
    op.drop_column("callback_messages", "other_id")

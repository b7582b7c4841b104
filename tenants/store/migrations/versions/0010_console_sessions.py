"""Sessions at the console: where each was begun, and that the settings' panel token began it."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # what began those that there are is not known: whoever is logged in logs in once more
    op.execute(sa.text("DELETE FROM console_sessions"))
    op.add_column("console_sessions", sa.Column("secret_digest", sa.String(64), nullable=True))
    op.add_column("console_sessions", sa.Column("address", sa.String(45), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("console_sessions") as sessions:
        sessions.drop_column("address")
        sessions.drop_column("secret_digest")

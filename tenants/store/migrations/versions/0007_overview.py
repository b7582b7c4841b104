"""Overview: what is undelivered is counted without looking at all that was delivered."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_UNDELIVERED = sa.text("state <> 'delivered'")
_WAITING = sa.text("state = 'waiting'")


def upgrade() -> None:
    op.create_index(
        "ix_callback_messages_undelivered",
        "callback_messages",
        ["state", "created_at"],
        sqlite_where=_UNDELIVERED,
        postgresql_where=_UNDELIVERED,
    )
    op.create_index(
        "ix_chat_lines_waiting", "chat_lines", ["created_at"], sqlite_where=_WAITING, postgresql_where=_WAITING
    )


def downgrade() -> None:
    op.drop_index("ix_chat_lines_waiting", "chat_lines")
    op.drop_index("ix_callback_messages_undelivered", "callback_messages")

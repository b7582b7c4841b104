"""The id of a message is its tenant's within its chat, so that whoever counts anew in each chat may."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_OLD, _NEW = "uq_chat_lines_instance_name_message_id", "uq_chat_lines_chat_id_message_id"


def upgrade() -> None:
    with op.batch_alter_table("chat_lines") as lines:
        lines.drop_constraint(_OLD, type_="unique")
        lines.create_unique_constraint(_NEW, ["chat_id", "message_id"])


def downgrade() -> None:
    # ids that two chats have in common: only the oldest message keeps it
    op.execute(
        sa.text(
            "UPDATE chat_lines SET message_id = 'line-' || id WHERE id NOT IN"
            " (SELECT MIN(id) FROM chat_lines GROUP BY instance_name, message_id)"
        )
    )
    with op.batch_alter_table("chat_lines") as lines:
        lines.drop_constraint(_NEW, type_="unique")
        lines.create_unique_constraint(_OLD, ["instance_name", "message_id"])

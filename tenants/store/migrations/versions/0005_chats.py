"""Operators, chats and what was said in them; events beside messages; the settings that say who routes and how."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_OPEN = "state <> 'closed'"


def upgrade() -> None:
    with op.batch_alter_table("tenants") as tenants:
        tenants.add_column(sa.Column("routing", sa.String(length=16), server_default="lhc", nullable=False))
        tenants.add_column(sa.Column("owner_offline", sa.String(length=16), server_default="store", nullable=False))
        tenants.add_column(sa.Column("history_hours", sa.Double(), server_default="0", nullable=False))
        tenants.add_column(sa.Column("event_format", sa.String(length=16), server_default="lhc", nullable=False))
        tenants.add_column(sa.Column("signing_version", sa.Integer(), server_default="1", nullable=False))
        tenants.add_column(sa.Column("previous_signing_until", sa.Double(), nullable=True))
    with op.batch_alter_table("callback_messages") as messages:
        messages.add_column(sa.Column("event", sa.String(length=40), server_default="message.created", nullable=False))
        messages.add_column(sa.Column("detail", sa.JSON(), nullable=True))
    op.create_table(
        "operators",
        sa.Column("username", sa.String(length=191), nullable=False),
        sa.Column("instance_name", sa.String(length=63), nullable=False),
        sa.Column("lhc_user_id", sa.Integer(), nullable=True),
        sa.Column("nick", sa.Text(), nullable=True),
        sa.Column("departments", sa.JSON(), nullable=True),
        sa.Column("receives_new_chats", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.ForeignKeyConstraint(
            ["username"], ["accounts.username"], name=op.f("fk_operators_username_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("username", name=op.f("pk_operators")),
    )
    op.create_index(op.f("ix_operators_instance_name"), "operators", ["instance_name"])
    op.create_table(
        "chats",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance_name", sa.String(length=63), nullable=False),
        sa.Column("chat_id", sa.String(length=19), nullable=False),
        sa.Column("username", sa.String(length=191), nullable=False),
        sa.Column("nick", sa.Text(), nullable=False),
        sa.Column("department", sa.String(length=100), nullable=True),
        sa.Column("owner", sa.String(length=191), nullable=True),
        sa.Column("accepted_by", sa.String(length=191), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("pending_since", sa.Double(), nullable=False),
        sa.Column("accepted_at", sa.Double(), nullable=True),
        sa.Column("closed_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chats")),
        sa.UniqueConstraint("instance_name", "chat_id", name=op.f("uq_chats_instance_name_chat_id")),
    )
    op.create_index(
        "uq_chats_open", "chats", ["username"], unique=True,
        sqlite_where=sa.text(_OPEN), postgresql_where=sa.text(_OPEN),
    )  # fmt: skip
    op.create_table(
        "chat_lines",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance_name", sa.String(length=63), nullable=False),
        sa.Column("chat_id", sa.Integer(), nullable=False),
        sa.Column("message_id", sa.String(length=191), nullable=False),
        sa.Column("sender", sa.String(length=191), nullable=False),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("sent_to", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("arrived_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["chat_id"], ["chats.id"], name=op.f("fk_chat_lines_chat_id_chats"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chat_lines")),
        sa.UniqueConstraint("instance_name", "message_id", name=op.f("uq_chat_lines_instance_name_message_id")),
    )
    op.create_index("ix_chat_lines_chat_id_id", "chat_lines", ["chat_id", "id"])
    op.create_index(op.f("ix_chat_lines_created_at"), "chat_lines", ["created_at"])
    op.create_index(op.f("ix_chat_lines_instance_name"), "chat_lines", ["instance_name"])


def downgrade() -> None:
    for table in ("chat_lines", "chats", "operators"):
        op.drop_table(table)
    with op.batch_alter_table("callback_messages") as messages:
        for column in ("detail", "event"):
            messages.drop_column(column)
    with op.batch_alter_table("tenants") as tenants:
        for column in (
            "previous_signing_until", "signing_version", "event_format", "history_hours", "owner_offline", "routing"
        ):  # fmt: skip
            tenants.drop_column(column)

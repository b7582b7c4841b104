"""Attempts of deliveries, circuits, and what finds the next piece of a tenant's work."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "circuits",
        sa.Column("instance_name", sa.String(length=63), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("openings", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.Double(), nullable=True),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("claimed_until", sa.Double(), nullable=True),
        sa.Column("claim_token", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("instance_name", name=op.f("pk_circuits")),
    )
    op.create_index(op.f("ix_circuits_due_at"), "circuits", ["due_at"])
    op.create_table(
        "delivery_attempts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("message_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["callback_messages.id"],
            name=op.f("fk_delivery_attempts_message_id_callback_messages"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery_attempts")),
    )
    op.create_index(op.f("ix_delivery_attempts_message_id"), "delivery_attempts", ["message_id"])
    op.add_column("operator_presences", sa.Column("retried", sa.Boolean(), nullable=False, server_default=sa.false()))
    # what is pending was stored by rules that retried everything
    op.execute(sa.text("UPDATE operator_presences SET retried = true WHERE pending IS NOT NULL"))
    op.create_index("ix_conversations_instance_name_due_at", "conversations", ["instance_name", "due_at"])
    op.create_index("ix_operator_presences_instance_name_due_at", "operator_presences", ["instance_name", "due_at"])
    op.create_index(
        "ix_callback_messages_instance_name_state_id", "callback_messages", ["instance_name", "state", "id"]
    )
    # each is the beginning of one of the new ones
    op.drop_index(op.f("ix_callback_messages_instance_name"), "callback_messages")
    op.drop_index(op.f("ix_operator_presences_instance_name"), "operator_presences")


def downgrade() -> None:
    op.create_index(op.f("ix_operator_presences_instance_name"), "operator_presences", ["instance_name"])
    op.create_index(op.f("ix_callback_messages_instance_name"), "callback_messages", ["instance_name"])
    op.drop_index("ix_callback_messages_instance_name_state_id", "callback_messages")
    op.drop_index("ix_operator_presences_instance_name_due_at", "operator_presences")
    op.drop_index("ix_conversations_instance_name_due_at", "conversations")
    op.drop_column("operator_presences", "retried")
    op.drop_table("delivery_attempts")
    op.drop_table("circuits")

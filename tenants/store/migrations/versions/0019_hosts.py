"""On which XMPP host a tenant lives: those that are there on the one that there was."""

import sqlalchemy as sa
from alembic import op

from config.settings import Settings

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # the default stays: processes of the version before say nothing of it
    host = sa.Column("xmpp_host", sa.String(255), nullable=False, server_default=Settings.load().xmpp_host)
    op.add_column("tenants", host)


def downgrade() -> None:
    op.drop_column("tenants", "xmpp_host")

"""XMPP hosts that were added while the system ran."""

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from tenants.store.models.base import Base


class Host(Base):
    """A host beside those of the settings: a customer's own domain, as a rule."""

    __tablename__ = "hosts"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    certificate: Mapped[str | None] = mapped_column(String(1000))
    """Where ejabberd finds its certificate and key (PEM); null: in a file of all hosts, or by ACME."""
    added_at: Mapped[float]

"""Tenants as the registry knows them, with their settings."""

from enum import StrEnum

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from tenants.store.models.base import INCARNATION, Base, new_incarnation, text_enum
from tenants.store.models.tenant_settings import TenantSettingColumns, settings_of


class TenantState(StrEnum):
    """A tenant's state. `tenants.lifecycle.states` says which state may follow which."""

    PENDING = "pending"
    PROVISIONING = "provisioning"
    ACTIVE = "active"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"
    FAILED = "failed"
    """It could not be provisioned, or that was cancelled."""


class Tenant(TenantSettingColumns, Base):
    __tablename__ = "tenants"

    instance_name: Mapped[str] = mapped_column(String(63), primary_key=True)
    incarnation: Mapped[str] = mapped_column(INCARNATION, default=new_incarnation, server_default="")
    """Another one each time that a tenant of this name is made; what is issued to the tenant is bound to it."""
    state: Mapped[TenantState] = mapped_column(text_enum(TenantState))
    key_digest: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of the tenant's own key, which is random and long; the key itself is shown once and never stored."""
    previous_key_digest: Mapped[str | None] = mapped_column(String(64))
    """The key before the last rotation, which opens until `previous_key_until`."""
    previous_key_until: Mapped[float | None]
    signing_version: Mapped[int] = mapped_column(default=1, server_default="1")
    """Which of its signing keys webhooks are signed with; see `tenants.outbound.webhooks`."""
    previous_signing_until: Mapped[float | None]
    """Until then they are signed with the key before it, too."""
    created_at: Mapped[float]
    updated_at: Mapped[float]


SETTINGS = settings_of(Tenant.__table__.columns)
"""All settings of a tenant."""

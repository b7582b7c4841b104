"""What a tenant may be told to be, checked: the one place that knows the settings' names, types and bounds."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, ValidationError

from config.settings import Settings
from tenants.core.errors import InvalidInputError
from tenants.core.naming import check_operator
from tenants.core.scram import Verifier
from tenants.outbound import callback_urls
from tenants.store.models import EventFormat, OwnerOffline, Routing, Tenant

_LONGEST_NICK = 200


class TenantSettings(BaseModel):
    """A tenant's settings. What is left out keeps its value; null takes it back to its default."""

    model_config = ConfigDict(extra="forbid")

    callback_url: HttpUrl | None = Field(
        None,
        max_length=2000,
        description="Base URL of the tenant's LHC. By default made from its name: every dash becomes a dot.",
    )
    online_seconds: float | None = Field(
        None, strict=True, gt=0, le=86400, description="How long a page view keeps a visitor online."
    )
    idle_hours: float | None = Field(
        None, strict=True, gt=0, le=8760, description="Idle visitor accounts are removed after this time."
    )
    xmpp: bool | None = Field(None, strict=True, description="Whether the tenant may use XMPP at all; true by default.")
    visitor_tracking: bool | None = Field(
        None, strict=True, description="Whether operators see visitors who have not begun a chat; true by default."
    )
    max_accounts: int | None = Field(
        None, strict=True, ge=1, le=10_000_000, description="Most accounts; no limit by default."
    )
    max_online_visitors: int | None = Field(
        None, strict=True, ge=0, le=10_000_000, description="Most visitors online at once; no limit by default."
    )
    calls_per_second: float | None = Field(
        None,
        strict=True,
        gt=0,
        le=100_000,
        description="Most page views of the tenant's LHC, and most other calls; "
        "`ORCHESTRATOR_CALLS_PER_SECOND` by default.",
    )
    max_rooms: int | None = Field(None, strict=True, ge=0, le=200, description="Most group chats; 200 by default.")
    max_waiting_messages: int | None = Field(
        None,
        strict=True,
        ge=1,
        le=1_000_000,
        description="Most messages of operators that may wait for the tenant's server, of 8 KB each on average; "
        "10,000 by default. Beyond it operators get their messages back.",
    )

    routing: Routing | None = Field(
        None, description="Who decides which operator a visitor's message goes to; `lhc` by default."
    )
    owner_offline: OwnerOffline | None = Field(
        None,
        description="What becomes of a visitor's message while the chat's owner is offline; `store` by default.",
    )
    history_hours: float | None = Field(
        None, strict=True, ge=0, le=8760, description="How long what was said in a chat is kept; 0 by default."
    )
    event_format: EventFormat | None = Field(
        None, description="How the tenant is told of events; `lhc` by default. Webhooks go to its `callback_url`."
    )
    live_view: bool | None = Field(
        None,
        strict=True,
        description="Whether support may see at the console what is said while it passes by; false by default.",
    )

    def changes(self) -> dict[str, Any]:
        """The columns of the tenant's row that are to change."""
        return self.model_dump(mode="json", exclude_unset=True, include=set(TenantSettings.model_fields))


def check_first_operator(value: Mapping[str, Any]) -> dict[str, Any]:
    """The first operator of a tenant that is being made, checked.

    It has a `username` (without the instance), a `nick` or none, and `scram`, the verifier of the password.

    Raises:
        InvalidInputError: naming the first field that breaks a rule.
    """
    if unknown := set(value) - {"username", "nick", "scram"}:
        raise InvalidInputError(f"operator.{min(unknown)}", "is no field of an operator")
    username, nick = value.get("username"), value.get("nick")
    if not isinstance(username, str):
        raise InvalidInputError("operator.username", "must be a string")
    if nick is not None and not (isinstance(nick, str) and 0 < len(nick) <= _LONGEST_NICK and nick.isprintable()):
        raise InvalidInputError("operator.nick", f"must be a string of 1 to {_LONGEST_NICK} printable characters")
    return {
        "username": check_operator(username, "operator.username"),
        "nick": nick,
        "scram": Verifier.read(value.get("scram"), "operator.scram").arguments(),
    }


def check_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that came as plain values, as the columns of a tenant's row.

    Raises:
        InvalidInputError: naming the first field that breaks a rule.
    """
    try:
        return TenantSettings.model_validate(values).changes()
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "settings"
        raise InvalidInputError(field, first["msg"]) from None


def defaults(settings: Settings) -> dict[str, Any]:
    """The settings of a tenant of which nothing was said, as columns of its row."""
    return {
        "callback_url": None,
        "online_seconds": settings.visitor_online_seconds,
        "idle_hours": settings.account_idle_hours,
        "xmpp": True,
        "visitor_tracking": True,
        "max_accounts": None,
        "max_online_visitors": None,
        "calls_per_second": None,
        "max_rooms": None,
        "max_waiting_messages": None,
        "routing": Routing.LHC,
        "owner_offline": OwnerOffline.STORE,
        "history_hours": 0.0,
        "event_format": EventFormat.LHC,
        "live_view": False,
    }


def apply(tenant: Tenant, changes: Mapping[str, Any], settings: Settings) -> list[str]:
    """Change the tenant's row, and give the names of the columns that are different now.

    None takes a setting back to its default. The address may be one in which `***` stands for the known password.
    """
    default = defaults(settings)
    values = {name: default[name] if value is None else value for name, value in changes.items()}
    if "callback_url" in values:
        values["callback_url"] = callback_urls.as_meant(values["callback_url"], tenant.callback_url)
    changed = [name for name, value in values.items() if getattr(tenant, name) != value]
    for name in changed:
        setattr(tenant, name, values[name])
    return changed

"""A tenant's settings, declared once: the columns, and with each what the API, the commands and the console say of it.

To add a setting: a column here, and a migration. Everything else reads `SETTINGS` of `tenants.store.models`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Enum, String, false, true
from sqlalchemy.orm import Mapped, MappedColumn, mapped_column

from config.settings import Settings
from tenants.core.languages import LANGUAGE
from tenants.store.models.base import text_enum

_INFO = "setting"


class Routing(StrEnum):
    """Who decides which operator a visitor's message goes to."""

    LHC = "lhc"
    """LHC names the operator, and is told of every operator's message."""
    ORCHESTRATOR = "orchestrator"
    """The rules of `tenants.conversations.chats`."""


class EventFormat(StrEnum):
    """How a tenant is told of events."""

    LHC = "lhc"
    """As LHC's extension expects it: operators' messages and presence."""
    WEBHOOK = "webhook"
    """All events as JSON, signed as Standard Webhooks."""


class OwnerOffline(StrEnum):
    """What becomes of a visitor's message when the chat's owner is offline."""

    STORE = "store"
    """It waits for the owner in ejabberd's offline storage."""
    RELEASE = "release"
    """The chat goes back to its department."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One of a tenant's settings.

    Attributes:
        name: of the column, in the API and for `--set`.
        type: of its values.
        is_optional: None is a value; it means no limit, or what the tenant's name gives.
        label: what the console's form calls it.
        description: the sentence in the API's documentation and in the console's form.
        default: the value of a tenant of which nothing was said, if it is the same in every installation.
        installed: the field of `config.settings.Settings` that has that value otherwise.
        bounds: as pydantic's `Field` takes them.
        is_url: whether the text is a URL.
        is_fixed: whether it is chosen when the tenant is made, and stays.
    """

    name: str
    type: type
    is_optional: bool
    label: str
    description: str
    default: Any = None
    installed: str | None = None
    bounds: Mapping[str, float | str] | None = None
    is_url: bool = False
    is_fixed: bool = False

    def beginning(self, settings: Settings) -> Any:
        """The value of a tenant of which nothing was said."""
        if self.installed is not None:
            return getattr(settings, self.installed)
        return None if self.default is None else self.type(self.default)


def settings_of(columns: Iterable[Any]) -> tuple[Setting, ...]:
    """The settings among a table's columns, in the order in which they are declared."""
    return tuple(
        Setting(column.name, column.type.python_type, bool(column.nullable), **column.info[_INFO])
        for column in columns
        if _INFO in column.info
    )


def _setting(kind: Any = None, *, default: Any = None, **said: Any) -> MappedColumn[Any]:
    """A column of that kind that is a setting; `said` as in `Setting`."""
    info = {_INFO: {"default": default, **said}}
    if default is None:
        return mapped_column(kind, info=info)
    if isinstance(kind, Enum):
        return mapped_column(kind, server_default=default.value, info=info)
    literal = (true() if default else false()) if isinstance(default, bool) else f"{default:g}"
    return mapped_column(kind, default=default, server_default=literal, info=info)


class TenantSettingColumns:
    """The columns of a tenant's row that are its settings."""

    xmpp_host: Mapped[str] = _setting(
        String(255),
        installed="xmpp_host",
        is_fixed=True,
        bounds={"max_length": 255},
        label="XMPP host",
        description="The XMPP domain that its accounts and rooms live on, of those that are served. It is chosen when"
        " the tenant is made; `POST /v1/tenants/NAME/host` moves it.",
    )
    callback_url: Mapped[str | None] = _setting(
        String(2000),
        is_url=True,
        bounds={"max_length": 2000},
        label="Address of its LHC",
        description="Base URL of the tenant's LHC. By default made from its name: every dash becomes a dot.",
    )
    online_seconds: Mapped[float] = _setting(
        installed="visitor_online_seconds",
        bounds={"gt": 0, "le": 86400},
        label="Seconds online",
        description="How long a page view keeps a visitor online.",
    )
    idle_hours: Mapped[float] = _setting(
        installed="account_idle_hours",
        bounds={"gt": 0, "le": 8760},
        label="Idle hours",
        description="Idle visitor accounts are removed after this time.",
    )
    # `full_xmpp_chat_supported` of the old system
    xmpp: Mapped[bool] = _setting(
        default=True,
        label="XMPP",
        description="Whether the tenant may use XMPP at all; true by default.",
    )
    # `full_xmpp_visitors_tracking` of the old system
    visitor_tracking: Mapped[bool] = _setting(
        default=True,
        label="Visitor tracking",
        description="Whether operators see visitors who have not begun a chat; true by default.",
    )
    max_accounts: Mapped[int | None] = _setting(
        bounds={"ge": 1, "le": 10_000_000},
        label="Account limit",
        description="Accounts at most; no limit by default.",
    )
    max_online_visitors: Mapped[int | None] = _setting(
        bounds={"ge": 0, "le": 10_000_000},
        label="Limit of visitors online",
        description="Limit of visitors online at once; no limit by default.",
    )
    calls_per_second: Mapped[float | None] = _setting(
        bounds={"gt": 0, "le": 100_000},
        label="Calls a second",
        description="Most page views of the tenant's LHC, and most other calls; "
        "`ORCHESTRATOR_CALLS_PER_SECOND` by default.",
    )
    max_rooms: Mapped[int | None] = _setting(
        bounds={"ge": 0, "le": 200},
        label="Limit of group chats",
        description="Limit of group chats; 200 by default.",
    )
    max_waiting_messages: Mapped[int | None] = _setting(
        bounds={"ge": 1, "le": 1_000_000},
        label="Limit of waiting messages",
        description="Most messages of operators that may wait for the tenant's server, of 8 KB each on average; "
        "10,000 by default. Beyond it operators get their messages back.",
    )
    routing: Mapped[Routing] = _setting(
        text_enum(Routing),
        default=Routing.LHC,
        label="Routing",
        description="Who decides which operator a visitor's message goes to; `lhc` by default.",
    )
    owner_offline: Mapped[OwnerOffline] = _setting(
        text_enum(OwnerOffline),
        default=OwnerOffline.STORE,
        label="While the owner is offline",
        description="What becomes of a visitor's message while the chat's owner is offline; `store` by default.",
    )
    history_hours: Mapped[float] = _setting(
        default=0,
        bounds={"ge": 0, "le": 8760},
        label="Hours of history",
        description="How long what was said in a chat is kept; 0 by default.",
    )
    event_format: Mapped[EventFormat] = _setting(
        text_enum(EventFormat),
        default=EventFormat.LHC,
        label="Events",
        description="How the tenant is told of events; `lhc` by default. Webhooks go to its `callback_url`.",
    )
    language: Mapped[str | None] = _setting(
        String(35),
        bounds={"max_length": 35, "pattern": LANGUAGE},
        label="Language of its visitors",
        description="Language of what visitors read that no operator wrote, as `Correction:`, and of an operator's "
        "message that comes in several: `de`, `pt-BR`; English by default.",
    )
    live_view: Mapped[bool] = _setting(
        default=False,
        label="Live conversation view",
        description="Whether support may see at the console what is said while it passes by; false by default.",
    )

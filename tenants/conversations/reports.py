"""What the bridge module reports, as the pool hands it to the domain.

`host`: which XMPP host it comes from. A tenant lives on one, and what another reports of its name is nobody's: there
may be an account of that name, which is not the tenant's.
"""

from dataclasses import dataclass, field

from tenants.conversations.contents import Content
from tenants.core.naming import AccountName, RoomName
from tenants.delivery.outbox import NO_ORIGIN, Event, Origin


@dataclass(frozen=True, slots=True)
class OperatorMessage:
    """A message of an operator to a visitor, as the bridge module handed it over.

    `body`: what the visitor is to read.
    `for_browser`: a browser of the visitor is logged in itself, and wants to know what to show.
    """

    host: str = field(kw_only=True)
    stanza_id: str
    sender: AccountName
    receiver: AccountName
    body: str
    origin: Origin = NO_ORIGIN
    content: Content = field(default_factory=Content)
    for_browser: bool = False


@dataclass(frozen=True, slots=True)
class Typing:
    """An operator began to write to a visitor, or ceased to (XEP-0085)."""

    host: str = field(kw_only=True)
    sender: AccountName
    receiver: AccountName
    composing: bool


@dataclass(frozen=True, slots=True)
class Receipt:
    """An operator's client has a visitor's message (XEP-0184). `message_id`: the one that the stanza bore."""

    host: str = field(kw_only=True)
    sender: AccountName
    receiver: AccountName
    message_id: str


@dataclass(frozen=True, slots=True)
class Returned:
    """A message that came back, as the bridge module reports it. `stanza_id` is the report's own id."""

    host: str = field(kw_only=True)
    stanza_id: str
    message_id: str
    visitor: AccountName
    operator: AccountName
    body: str
    condition: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class RoomReport:
    """What happened in a room, as the bridge module handed it over. `body`: None when somebody came or went.

    `arrived`: whether somebody came; None when it is a message.
    `unshowable`: why nobody outside the room can read the message, for who wrote it.
    """

    host: str = field(kw_only=True)
    stanza_id: str
    sender: AccountName
    room: RoomName
    body: str | None = None
    arrived: bool | None = None
    content: Content = field(default_factory=Content)
    unshowable: str | None = None

    @property
    def event(self) -> Event:
        """What has happened."""
        match self.arrived:
            case None:
                return Event.ROOM_MESSAGE
            case True:
                return Event.ROOM_JOINED
            case False:
                return Event.ROOM_LEFT

"""What an operator's message means: the words in it, and which earlier line it is about.

`xmpp_pool.contents` reads it from a stanza. The table is in `docs/contents.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tenants.core import languages


class Kind(StrEnum):
    """What an operator does with a message."""

    SAYS = "says"
    """Text, links, files."""
    SHOWS_PLACE = "shows a place"
    EDITS = "edits"
    RETRACTS = "retracts"
    REACTS = "reacts"

    @property
    def is_said(self) -> bool:
        """Whether the visitor is told something, by which an operator takes a chat that nobody has."""
        return self not in {Kind.RETRACTS, Kind.REACTS}


@dataclass(frozen=True, slots=True)
class Content:
    """What a message of an operator holds.

    Attributes:
        text: what the visitor is to read: of reactions one on each line, of a retraction nothing.
        translations: the same text by languages, when no one of them is for everybody.
        about: the client's id of the line that is edited, retracted or reacted to; empty if it named none.
        replies_to: the client's id of the line that is answered; None if it is no reply.
        other_id: what the client calls the message for good (XEP-0359), and may refer to it by as well; or empty.
    """

    kind: Kind = Kind.SAYS
    text: str = ""
    translations: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    replies_to: str | None = None
    other_id: str = ""

    def text_in(self, language: str | None) -> str:
        """The text for who reads that language."""
        return languages.find(self.translations, language) or self.text

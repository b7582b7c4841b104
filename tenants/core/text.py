"""Texts of people: what XML can carry of them, and the nick of a visitor who has none."""

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator

from tenants.core.errors import InvalidInputError

DEFAULT_NICK = "Online visitor"
REPLACED = "\ufffd"
"""What stands for a character that XML cannot carry."""
_NAMED = 20
"""Names that a text lists at most."""

_LINE_END = re.compile("\r\n?")
_FORBIDDEN_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """The text as XML can carry it: line ends are line feeds (XML 1.0, 2.11), what it forbids (2.2) becomes U+FFFD.

    A visitor's message must not be lost for a vertical tab that came with a paste, and must not break the stream.
    """
    return _FORBIDDEN_IN_XML.sub(REPLACED, _LINE_END.sub("\n", text))


def own_nick(nick: str | None) -> str:
    """The nick as XML can carry it, if it is the visitor's own; else empty: all contacts would be called the same."""
    return "" if nick is None or nick == DEFAULT_NICK else clean(nick)


def check_text(text: str, field: str) -> str:
    """The text with line feeds for line ends, which is how it arrives.

    Raises:
        InvalidInputError: it holds what XML forbids, and could not arrive as it is.
    """
    if _FORBIDDEN_IN_XML.search(text):
        raise InvalidInputError(field, "must not hold control characters or surrogates (XML 1.0, 2.2)")
    return _LINE_END.sub("\n", text)


def _check_value(value: str) -> str:
    try:
        return check_text(value, "text")
    except InvalidInputError as error:
        raise ValueError(error.rule) from None


XmlText = Annotated[str, AfterValidator(_check_value)]
"""In a schema: text that goes to operators. It arrives exactly as it is, except for line ends, or is refused."""


def first_of(names: Sequence[str]) -> str:
    """The first names of a list that may be long."""
    return f"{', '.join(names[:_NAMED])}{' …' if len(names) > _NAMED else ''}"

"""Addresses of tenants' servers. A password in one (HTTP Basic) can be written and is never shown, as a key is."""

import re

from tenants.core.errors import InvalidInputError

HIDDEN = "***"
_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]+@")


def shown(text: str) -> str:
    """The address as it is shown, or a text with addresses in it: `***` stands for a password."""
    return _PASSWORD.sub(rf"\1:{HIDDEN}@", text)


def as_meant(written: str | None, known: str | None) -> str | None:
    """The address that somebody means who writes this one: as it is shown, it is the one that is known.

    Raises:
        InvalidInputError: it holds `***` for a password, but is not the address that is known.
    """
    if written is None or f":{HIDDEN}@" not in written:
        return written
    if known is None or written != shown(known):
        raise InvalidInputError("callback_url", f"must hold the password itself, not the {HIDDEN} that is shown for it")
    return known


def check_no_password(address: str | None) -> None:
    """Raise InvalidInputError when it holds a password: it came on a way that others can read."""
    if address is not None and _PASSWORD.search(address):
        raise InvalidInputError(
            "callback_url", "must not hold a password here: the broker and Flower show arguments. Use the API"
        )

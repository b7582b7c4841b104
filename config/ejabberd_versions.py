"""What we tell ejabberd that depends on its version."""

import re

Version = tuple[int, int]
"""Year and release: 23.01 is (23, 1)."""
_NEVER = ("X-OAUTH2",)
"""With it a client may name another account than the one whose token it has, and no version compares the two."""
_PLAIN = ("PLAIN",)
"""The same, with a password."""
_PLAIN_COMPARES_SINCE: Version = (26, 7)
_CHANNEL_BINDING = ("SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512-PLUS")
"""Before 24.02 ejabberd knows `tls-unique` alone, which TLS 1.3 does not have: there a client that follows RFC 9266
(`tls-exporter`) is refused. From 24.02 on it knows both; and to hide them would have it refuse clients that ask whether
somebody hid them (flag `y`)."""
_CHANNEL_BINDING_SINCE: Version = (24, 2)
_VERSION = re.compile(r"ejabberd[ -](\d+)\.(\d+)")


def read_version(text: str) -> Version | None:
    """The version that a folder, or ejabberd's own `status`, names."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2])) if found else None


def disabled_mechanisms(version: Version) -> tuple[str, ...]:
    """What `disable_sasl_mechanisms` has to name."""
    plain = _PLAIN if version < _PLAIN_COMPARES_SINCE else ()
    channel_binding = _CHANNEL_BINDING if version < _CHANNEL_BINDING_SINCE else ()
    return plain + _NEVER + channel_binding

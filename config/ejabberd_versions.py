"""Which versions of ejabberd we know, and what we tell it that depends on its version."""

import re

Version = tuple[int, int]
"""Year and release: 23.01 is (23, 1)."""
TESTED: dict[Version, str] = {
    (23, 1): "Debian 12",
    (24, 12): "Debian 13",
    (26, 7): "backports of Debian 13",
}
"""The versions that the tests were run with, and whose packages those were. Their patches are the same."""
_NEVER = ("X-OAUTH2",)
"""With it a client may name another account than the one whose token it has, and no version compares the two. So it is
with passwords (PLAIN) before 26.07; but there `ejabberd_auth_decoy` compares."""
_CHANNEL_BINDING = ("SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512-PLUS")
"""Before 24.02 ejabberd knows `tls-unique` alone, which TLS 1.3 does not have: there a client that follows RFC 9266
(`tls-exporter`) is refused. From 24.02 on it knows both; and to hide them would have it refuse clients that ask whether
somebody hid them (flag `y`)."""
_CHANNEL_BINDING_SINCE: Version = (24, 2)
_MULTIHOST_SINCE: Version = (25, 10)
_VERSION = re.compile(r"ejabberd[ -](\d+)\.(\d+)")


def read_version(text: str) -> Version | None:
    """The version that a folder, or ejabberd's own `status`, names."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2])) if found else None


def shown(version: Version) -> str:
    """As ejabberd writes it."""
    return f"{version[0]}.{version[1]:02}"


def caution(version: Version) -> str:
    """What has to be said beside a version that was not tested and is used all the same; empty of one that was."""
    return "" if version in TESTED else ", which was NOT TESTED: at your own risk (ORCHESTRATOR_EJABBERD_UNTESTED)"


def objection(version: Version, accepted: str) -> tuple[str, str] | None:
    """Why we do not work with that version, and what to do about it; None when we do.

    Args:
        version: that of the ejabberd that is there.
        accepted: the setting `ejabberd_untested`: a version that is used all the same.
    """
    if version in TESTED or shown(version) == accepted:
        return None
    tested = ", ".join(map(shown, TESTED))
    advice = (
        f"install one that was ({tested}); or try it out on a system of your own, and set"
        f" ORCHESTRATOR_EJABBERD_UNTESTED={shown(version)} to go on at your own risk"
    )
    return f"version {shown(version)}, which was not tested", advice


def multihost_option(version: Version) -> str:
    """What the option of SQL tables that name the host is called."""
    return "sql_schema_multihost" if version >= _MULTIHOST_SINCE else "new_sql_schema"


def disabled_mechanisms(version: Version) -> tuple[str, ...]:
    """What `disable_sasl_mechanisms` has to name."""
    channel_binding = _CHANNEL_BINDING if version < _CHANNEL_BINDING_SINCE else ()
    return _NEVER + channel_binding

"""Digests of keys and passwords that are random by construction, and their comparison in constant time.

A fast digest is right here and only here: the input has at least 80 random bits. People's passwords are never kept;
ejabberd holds those of operators, salted (SCRAM).
"""

import hashlib
import hmac
import re
import secrets

from tenants.core.errors import InvalidInputError

_DIGEST = re.compile("[0-9a-f]{64}")


def new_key() -> str:
    """A key of 256 random bits, safe in URLs, JSON and XML."""
    return secrets.token_urlsafe(32)


def digest(owner: str, secret: str) -> str:
    """The digest of a secret, bound to its owner, so that equal secrets of two owners do not look equal."""
    return hashlib.sha256(f"{owner}\0{secret}".encode(errors="surrogatepass")).hexdigest()


def check_digest(field: str, value: object) -> str:
    """A digest that came from outside, made as `digest` makes it: SHA-256 of owner, a zero byte and secret, in hex.

    Raises:
        InvalidInputError: it cannot be one.
    """
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise InvalidInputError(field, "must be a SHA-256 digest: 64 lower-case hexadecimal digits")
    return value


def matches(owner: str, secret: str, expected_digest: str | None) -> bool:
    """Whether the secret has that digest; without one, nothing matches."""
    return expected_digest is not None and hmac.compare_digest(digest(owner, secret), expected_digest)


def same(given: str, expected: str) -> bool:
    """Compare with a configured secret, in constant time; an empty one opens nothing."""
    return bool(expected) and hmac.compare_digest(
        given.encode(errors="surrogatepass"), expected.encode(errors="surrogatepass")
    )

"""Digests of keys and passwords that are random by construction, and their comparison in constant time.

A fast digest is right here and only here: the input has at least 80 random bits. People's passwords are never kept;
ejabberd holds those of operators, salted (SCRAM).
"""

import hashlib
import hmac
import secrets


def new_key() -> str:
    """A key of 256 random bits, safe in URLs, JSON and XML."""
    return secrets.token_urlsafe(32)


def digest(owner: str, secret: str) -> str:
    """The digest of a secret, bound to its owner, so that equal secrets of two owners do not look equal."""
    return hashlib.sha256(f"{owner}\0{secret}".encode(errors="surrogatepass")).hexdigest()


def matches(owner: str, secret: str, expected_digest: str | None) -> bool:
    """Whether the secret has that digest; without one, nothing matches."""
    return expected_digest is not None and hmac.compare_digest(digest(owner, secret), expected_digest)


def same(given: str, expected: str) -> bool:
    """Compare with a configured secret, in constant time; an empty one opens nothing."""
    return bool(expected) and hmac.compare_digest(
        given.encode(errors="surrogatepass"), expected.encode(errors="surrogatepass")
    )

"""SCRAM verifiers (RFC 5802): what a server keeps of a password, made here so that the password goes no further."""

import asyncio
import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass

from tenants.core.errors import InvalidInputError
from tenants.core.prepared_text import is_allowed, is_of_one_direction, normalize

HASH = "sha"
"""SCRAM-SHA-1, as ejabberd calls it: its `auth_scram_hash` when nothing else is configured."""
ITERATIONS = 4096
"""As many as ejabberd itself takes; some milliseconds of a processor."""
_DIGEST = "sha1"
_SALT_BYTES = 16
_KEY_BYTES = 20


@dataclass(frozen=True, slots=True)
class Verifier:
    """A password's verifier. It lets nobody log in, but guesses can be tried on it: treat it as a secret."""

    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def read(cls, value: object, field: str) -> "Verifier":
        """The verifier as `arguments` gave it.

        Raises:
            InvalidInputError: it is not one that ejabberd could use.
        """
        expected = {"hash", "iterations", "salt", "stored_key", "server_key"}
        if not isinstance(value, dict) or set(value) != expected:
            raise InvalidInputError(field, f"must hold {', '.join(sorted(expected))}")
        if (value["hash"], value["iterations"]) != (HASH, ITERATIONS):
            raise InvalidInputError(field, f"must be of hash '{HASH}' and {ITERATIONS} iterations")
        try:
            salt, stored, server = (
                b64decode(value[name], validate=True) for name in ("salt", "stored_key", "server_key")
            )
        except (ValueError, TypeError):
            raise InvalidInputError(field, "salt and keys must be base64") from None
        if not salt or {len(stored), len(server)} != {_KEY_BYTES}:
            raise InvalidInputError(field, f"keys must be of {_KEY_BYTES} bytes")
        return cls(salt, stored, server)

    def arguments(self) -> dict[str, str | int]:
        """As the admin command `lhc_register_scram` takes it."""
        encoded = {name: b64encode(getattr(self, name)).decode() for name in ("salt", "stored_key", "server_key")}
        return {"hash": HASH, "iterations": ITERATIONS, **encoded}


async def make_verifier(password: str) -> Verifier:
    """The verifier with a new salt; the hashing is done in a thread.

    Raises:
        InvalidInputError: the password cannot be one.
    """
    prepared = prepare(password)
    return await asyncio.to_thread(derive, prepared, secrets.token_bytes(_SALT_BYTES))


def derive(prepared: str, salt: bytes) -> Verifier:
    """The verifier of a prepared password (RFC 5802, 3)."""
    salted = hashlib.pbkdf2_hmac(_DIGEST, prepared.encode(), salt, ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", _DIGEST)
    return Verifier(
        salt=salt,
        stored_key=hashlib.new(_DIGEST, client_key).digest(),
        server_key=hmac.digest(salted, b"Server Key", _DIGEST),
    )


def prepare(password: str) -> str:
    """The password as every client prepares it (SASLprep, RFC 4013). ejabberd refuses what is refused here.

    Raises:
        InvalidInputError: it holds what no password may hold, or nothing is left of it.
    """
    # this turns other kinds of spaces into plain ones, too, except for one kind, which ejabberd refuses
    prepared = normalize(password)
    if not prepared:
        raise InvalidInputError("password", "must not be empty")
    if not all(map(is_allowed, prepared)):
        raise InvalidInputError(
            "password", "must not hold control characters, private ones or surrogates (RFC 4013, 2.3)"
        )
    if not is_of_one_direction(prepared):
        raise InvalidInputError("password", "must not mix directions of writing (RFC 3454, 6)")
    return prepared

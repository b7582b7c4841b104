"""What a password must be that a person chooses: the rule of NIST SP 800-63B (5.1.1.2), for everybody who chooses one.

Not for the passwords in LHC's calls: those of visitors and chats are random, and an operator's is what LHC's own rules
let its user choose. LHC shows nobody why a call was refused, so such an operator would be without an account.
"""

from collections.abc import Iterable

from pydantic import JsonValue
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from tenants.core.errors import InvalidInputError

SHORTEST, LONGEST = 8, 256
SCHEMA: dict[str, JsonValue] = {"minLength": SHORTEST, "maxLength": LONGEST}
"""What of the rule a JSON schema can say; it is documentation, for `check_chosen` says the rule in plainer words."""
_COMMON = frozenset(word for word in FREQUENCY_LISTS["passwords"] if len(word) >= SHORTEST)
"""Those that are guessed first, in small letters."""


def names(username: str, instance: str) -> tuple[str, ...]:
    """What everybody knows of an operator."""
    return username, instance, f"{username}.{instance}"


def check_chosen(
    password: str, field: str = "password", *, shortest: int = SHORTEST, unlike: Iterable[str] = ()
) -> str:
    """Return the password when a person may choose it.

    Args:
        password: the password.
        field: what it is called where it was given.
        shortest: how many characters it has at least.
        unlike: names that everybody knows: of the account, of the tenant.

    Raises:
        InvalidInputError: naming `field` and the rule, never the password.
    """
    if not shortest <= len(password) <= LONGEST:
        raise InvalidInputError(field, f"must have {shortest} to {LONGEST} characters")
    folded = password.casefold()
    if folded in _COMMON or len(set(folded)) == 1:
        raise InvalidInputError(field, "must not be one of the commonest passwords, which are guessed first")
    if folded in {name.casefold() for name in unlike}:
        raise InvalidInputError(field, "must not be the name of the account or of the tenant")
    return password

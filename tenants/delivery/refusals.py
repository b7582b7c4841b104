"""Which failures pass, and which are refusals: the server is there, and does not take this callback.

| answer | tries |
|---|---|
| 410: the address is given up | 1 |
| a redirect, or another 4xx | 5, within a minute and a half |
| 500, while messages of the tenant's other conversations are received (LHC does so for a chat it does not know) | 5 |
| none, 408, 425, 429, any other 5xx; 500, while nothing else is received | 12, within ten hours |
"""

from http import HTTPStatus

MAX_ATTEMPTS = 12
"""Tries of one callback; then a message rests as a dead letter. By the delays of `outcomes` that is about ten hours."""
MAX_REFUSALS = 5
"""Tries of one that is refused: more would say the same, while the rest of its conversation waits."""
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


def is_refusal(status: int | None) -> bool:
    """Whether a status (not a 2xx) may be about this one callback, or the address: not about a server in trouble."""
    return status is not None and status <= HTTPStatus.INTERNAL_SERVER_ERROR and status not in _PASSING


def most_tries(status: int | None, *, others_received: bool) -> int:
    """How often a callback is tried that ended so. `others_received`: the server took something else meanwhile."""
    if status == HTTPStatus.GONE:
        return 1
    # a whole LHC in trouble says 500 as well
    may_pass = status == HTTPStatus.INTERNAL_SERVER_ERROR and not others_received
    return MAX_ATTEMPTS if may_pass or not is_refusal(status) else MAX_REFUSALS

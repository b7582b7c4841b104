"""Which failures pass, and which are refusals: the server is there, and does not take this callback.

| answer | tries |
|---|---|
| 410: the address is given up | 1 |
| a redirect, or another 4xx | 5, within a minute and a half |
| 500, when messages of the tenant's other conversations were received after the first try | 5 |
| 500, when none were, but LHC takes a message of nobody (`tenants.outbound.lhc`) | 8, within forty minutes |
| none, 408, 425, 429, any other 5xx; 500, when the server takes nothing | 12, within ten hours |

LHC says 500 of a chat that it does not know. The tries of a message to one end soon, and the tenant's circuit stays
closed, where LHC takes a message of nobody; but one in which something broke just now has some time to be mended.
"""

from http import HTTPStatus

MAX_ATTEMPTS = 12
"""Tries of one callback; then a message rests as a dead letter. By the delays of `outcomes` that is about ten hours."""
MAX_REFUSALS = 5
"""Tries of one that is refused: more would say the same, while the rest of its conversation waits."""
MAX_DOUBTS = 8
"""Tries of one that LHC seems to refuse by itself: an LHC that refuses all that is said would look the same."""
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


def is_refusal(status: int | None) -> bool:
    """Whether a status (not a 2xx) may be about this one callback, or the address: not about a server in trouble."""
    return status is not None and status <= HTTPStatus.INTERNAL_SERVER_ERROR and status not in _PASSING


def most_tries(status: int | None, *, others_received: bool, takes_others: bool) -> int:
    """How often a callback is tried that ended so.

    `others_received`: the server received something else meanwhile; `takes_others`: it takes what is of nobody.
    """
    if status == HTTPStatus.GONE:
        return 1
    # a whole LHC in trouble says 500 as well
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and not others_received:
        return MAX_DOUBTS if takes_others else MAX_ATTEMPTS
    return MAX_REFUSALS if is_refusal(status) else MAX_ATTEMPTS

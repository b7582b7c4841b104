"""Which nodes of ejabberd have died, as the others tell over their links. Pure: nothing here writes or waits."""

from typing import NamedTuple


class Judgement(NamedTuple):
    """What has changed since the last look.

    Attributes:
        died: the nodes that have died.
        again: what was sent may be lost, and is to be sent again.
    """

    died: set[str]
    again: bool


class DeadNodes:
    """What each node has told of others.

    A node tells when it has itself forgotten the sessions of the one that died. What is sent again before the lead has
    done so goes to connections that are no more; so it is sent again when the lead tells, however early others did.
    """

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()
        """Who tells, and which node has died."""
        self._judged: set[tuple[str, str]] = set()
        self._down: set[str] = set()

    def __contains__(self, node: str) -> bool:
        return node in self._down

    def tell(self, teller: str, node: str) -> None:
        """A node says that another one has died."""
        self._told.add((teller, node))

    def is_back(self, node: str) -> None:
        """There is a new link to that node."""
        self._told = {pair for pair in self._told if pair[1] != node}

    def judge(self, linked: set[str], lead: str) -> Judgement:
        """A node is down if another says so and there is no link to it. Else only those two do not see each other."""
        told = {(teller, node) for teller, node in self._told if node not in linked}
        down = {node for _, node in told}
        died, new = down - self._down, told - self._judged
        self._down, self._judged = down, told
        return Judgement(died, bool(died) or any(teller == lead for teller, _ in new))

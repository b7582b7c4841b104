"""What became of every message: which were accepted, which arrived, and where, how often and in which order.

Pure bookkeeping: whoever sends and whoever receives tells it what happened, with times on one clock.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum


class Way(StrEnum):
    """The two directions of a conversation."""

    TO_OPERATOR = "visitor to operator"
    TO_VISITOR = "operator to visitor"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A visitor's and an operator's talk, in one direction; the names are usernames."""

    tenant: str
    visitor: str
    operator: str
    way: Way

    def body(self, number: int) -> str:
        """The text of its message of that number: it says where it belongs."""
        return f"{self.tenant}/{self.visitor}/{self.operator}/{self.way}/{number}"


@dataclass(slots=True)
class Message:
    """The life of one message.

    Attributes:
        unclear: attempts that may have succeeded though the sender was not told so; each may arrive as well.
        accepted_from: beginning of the attempt that was accepted; None while none was.
        returned: the sender was told that the message was not delivered, after it had been accepted.
        stranded: it came only when its receiver logged in anew, long after.
        arrivals: the stanza id of each arrival ("" where the format has none), in their order.
    """

    number: int
    attempts: int = 0
    unclear: int = 0
    accepted_from: float | None = None
    returned: bool = False
    stranded: bool = False
    arrived_at: float | None = None
    arrivals: list[str] = field(default_factory=list)

    @property
    def lost(self) -> bool:
        """Whether it was accepted and has not arrived."""
        return self.accepted_from is not None and not self.arrivals

    @property
    def again(self) -> int:
        """Arrivals of a stanza that had arrived before, which a receiver can tell by its id."""
        ids = [arrival for arrival in self.arrivals if arrival]
        return len(ids) - len(set(ids))

    @property
    def copies(self) -> int:
        """Arrivals beyond the first that no receiver can tell from a new message."""
        return max(0, len(self.arrivals) - 1 - self.again)

    @property
    def latency(self) -> float | None:
        """Seconds from the accepted attempt to the first arrival."""
        if self.accepted_from is None or self.arrived_at is None:
            return None
        return max(0.0, self.arrived_at - self.accepted_from)


@dataclass(frozen=True, slots=True)
class Count:
    """The account of one direction. Numbers of messages, except for `attempts` and those of arrivals.

    Attributes:
        lost: accepted, and never arrived.
        returned: those of the lost whose sender was told.
        stranded: those of the delivered that came only when the operator logged in anew at the end.
        unaccepted_arrived: arrived though no attempt was answered.
        again: arrivals with the stanza id of an earlier one.
        copies_explained: further arrivals, each with an attempt whose outcome the sender could not know.
        copies_unexplained: further arrivals beyond those.
        out_of_order: first arrivals after that of a later message of the conversation.
        swapped: arrivals in another conversation than their own, or that nobody had sent.
        p50, p99, longest: seconds from the accepted attempt to the first arrival; 0 when none arrived.
    """

    way: str
    sent: int
    attempts: int
    accepted: int
    delivered: int
    lost: int
    returned: int
    stranded: int
    unaccepted_arrived: int
    again: int
    copies_explained: int
    copies_unexplained: int
    out_of_order: int
    swapped: int
    p50: float
    p99: float
    longest: float

    @property
    def good(self) -> bool:
        """Whether everything was accepted sooner or later, and nothing lost, stranded, swapped or out of order."""
        return self.accepted == self.sent and not (self.lost or self.stranded or self.swapped or self.out_of_order)

    def as_dict(self) -> dict[str, str | int | float]:
        return asdict(self)


class Ledger:
    """The accounts of all conversations."""

    def __init__(self, conversations: Iterable[Conversation]) -> None:
        self._messages: dict[Conversation, dict[int, Message]] = {conversation: {} for conversation in conversations}
        self._sent: dict[str, tuple[Conversation, Message]] = {}
        self._highest: dict[Conversation, int] = {}
        self.out_of_order: list[tuple[Conversation, int, int, float]] = []
        """Conversation, number, the later number that came before it, and the time of its arrival."""
        self._anew = False
        self._swapped = dict.fromkeys(Way, 0)
        self._last_arrival = -math.inf

    @property
    def conversations(self) -> list[Conversation]:
        return list(self._messages)

    @property
    def last_arrival(self) -> float:
        """When something arrived last."""
        return self._last_arrival

    def sent(self, conversation: Conversation, number: int) -> None:
        """An attempt begins."""
        messages = self._messages[conversation]
        message = messages.setdefault(number, Message(number))
        message.attempts += 1
        self._sent[conversation.body(number)] = (conversation, message)

    def accepted(self, conversation: Conversation, number: int, begun: float) -> None:
        """An attempt, begun at that time, was answered: the system has taken the message."""
        self._messages[conversation][number].accepted_from = begun

    def unclear(self, conversation: Conversation, number: int) -> None:
        """An attempt ended without an answer that says what became of it."""
        self._messages[conversation][number].unclear += 1

    def returned(self, conversation: Conversation, number: int) -> None:
        """The sender was told that a message was not delivered, after it had been accepted."""
        self._messages[conversation][number].returned = True

    def operators_log_in_anew(self) -> None:
        """What arrives for the first time from now on had been left lying, though the operator was online."""
        self._anew = True

    def arrived(self, place: Conversation, body: str, at: float, stanza_id: str = "") -> None:
        """A text arrived in a conversation, which should be its own."""
        self._last_arrival = at
        conversation, message = self._sent.get(body, (None, None))
        if conversation is None or message is None or conversation != place:
            self._swapped[place.way] += 1
            return
        if not message.arrivals:
            message.arrived_at = at
            message.stranded = self._anew
            highest = self._highest.get(conversation, 0)
            if message.number < highest and not message.stranded:
                self.out_of_order.append((conversation, message.number, highest, at))
            self._highest[conversation] = max(message.number, highest)
        message.arrivals.append(stanza_id)

    def lost(self) -> Iterator[tuple[Conversation, Message]]:
        """The messages that were accepted and have not arrived."""
        for conversation, messages in self._messages.items():
            for message in messages.values():
                if message.lost:
                    yield conversation, message

    def count(self, way: Way) -> Count:
        """The account of a direction."""
        messages = list(self._of(way))
        latencies = sorted(message.latency for message in messages if message.latency is not None)
        explained = sum(min(message.copies, message.unclear) for message in messages)
        return Count(
            way=way.value,
            sent=len(messages),
            attempts=sum(message.attempts for message in messages),
            accepted=sum(message.accepted_from is not None for message in messages),
            delivered=sum(message.accepted_from is not None and bool(message.arrivals) for message in messages),
            lost=sum(message.lost for message in messages),
            returned=sum(message.lost and message.returned for message in messages),
            stranded=sum(message.stranded for message in messages),
            unaccepted_arrived=sum(message.accepted_from is None and bool(message.arrivals) for message in messages),
            again=sum(message.again for message in messages),
            copies_explained=explained,
            copies_unexplained=sum(message.copies for message in messages) - explained,
            out_of_order=sum(conversation.way is way for conversation, *_ in self.out_of_order),
            swapped=self._swapped[way],
            p50=_nearest_rank(latencies, 0.50),
            p99=_nearest_rank(latencies, 0.99),
            longest=_nearest_rank(latencies, 1.0),
        )

    def works_again(self, way: Way, since: float) -> float | None:
        """Seconds from then until each tenant had a message that was sent after it; None when one never had."""
        first: dict[str, float] = {conversation.tenant: math.inf for conversation in self._messages}
        for conversation, messages in self._messages.items():
            if conversation.way is not way:
                continue
            for message in messages.values():
                if message.arrived_at is not None and (message.accepted_from or -math.inf) >= since:
                    first[conversation.tenant] = min(first[conversation.tenant], message.arrived_at - since)
        longest = max(first.values(), default=math.inf)
        return longest if math.isfinite(longest) else None

    def longest_latency(self, begin: float, end: float) -> float:
        """The longest latency of the messages that were accepted within that time, in seconds; 0 without any."""
        return max(
            (
                message.latency
                for way in Way
                for message in self._of(way)
                if message.latency is not None and begin <= (message.accepted_from or 0) < end
            ),
            default=0.0,
        )

    def _of(self, way: Way) -> Iterator[Message]:
        for conversation, messages in self._messages.items():
            if conversation.way is way:
                yield from messages.values()


def _nearest_rank(ordered: list[float], share: float) -> float:
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else 0.0

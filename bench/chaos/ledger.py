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
        arrival_times: of the same.
        node: of ejabberd, where the operator was logged in when it was accepted.
    """

    number: int
    attempts: int = 0
    unclear: int = 0
    accepted_from: float | None = None
    returned: bool = False
    stranded: bool = False
    arrived_at: float | None = None
    arrivals: list[str] = field(default_factory=list)
    arrival_times: list[float] = field(default_factory=list)
    node: str = ""

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
    def unexplained(self) -> int:
        """Copies beyond those that the sender may have caused by asking again."""
        return max(0, self.copies - self.unclear)

    @property
    def latency(self) -> float | None:
        """Seconds from the accepted attempt to the first arrival."""
        if self.accepted_from is None or self.arrived_at is None:
            return None
        return max(0.0, self.arrived_at - self.accepted_from)


@dataclass(frozen=True, slots=True)
class Overtaken:
    """A first arrival after that of a later message of the conversation.

    Attributes:
        by: the later messages that had arrived.
    """

    conversation: Conversation
    message: Message
    by: tuple[Message, ...]
    at: float

    def waited_at_dead(self, ends: Iterable[tuple[str, float]]) -> bool:
        """Whether it waited on the disk of a node that was down, while its operator wrote at another one.

        It was accepted by a node that ended before it arrived, and nothing that overtook it went by that node: what one
        node takes stays in order, whatever becomes of it.

        Args:
            ends: which node was ended, and when.
        """
        node, begun = self.message.node, self.message.accepted_from
        if not node or begun is None or self.conversation.way is not Way.TO_VISITOR:
            return False
        return any(ended == node and begun <= at <= self.at for ended, at in ends) and all(
            later.node not in {"", node} for later in self.by
        )


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
        late: those of them that waited on the disk of a node that was down, which is promised to nobody in order.
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
    late: int
    swapped: int
    p50: float
    p99: float
    longest: float

    @property
    def good(self) -> bool:
        """Whether everything was accepted sooner or later, and nothing lost, stranded, swapped or out of order."""
        misplaced = self.out_of_order - self.late
        return self.accepted == self.sent and not (self.lost or self.stranded or self.swapped or misplaced)

    def as_dict(self) -> dict[str, str | int | float]:
        return asdict(self)


class Ledger:
    """The accounts of all conversations."""

    def __init__(self, conversations: Iterable[Conversation]) -> None:
        self._messages: dict[Conversation, dict[int, Message]] = {conversation: {} for conversation in conversations}
        self._sent: dict[str, tuple[Conversation, Message]] = {}
        self._highest: dict[Conversation, int] = {}
        self.out_of_order: list[Overtaken] = []
        self.ends: list[tuple[str, float]] = []
        """Which node of ejabberd was ended, and when."""
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

    def accepted(self, conversation: Conversation, number: int, begun: float, node: str = "") -> None:
        """An attempt, begun at that time, was answered: the system has taken the message. `node`: the operator's."""
        message = self._messages[conversation][number]
        message.accepted_from, message.node = begun, node

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
                self.out_of_order.append(Overtaken(conversation, message, self._overtook(conversation, message), at))
            self._highest[conversation] = max(message.number, highest)
        message.arrivals.append(stanza_id)
        message.arrival_times.append(at)

    def _overtook(self, conversation: Conversation, message: Message) -> tuple[Message, ...]:
        messages = self._messages[conversation].values()
        return tuple(later for later in messages if later.number > message.number and later.arrivals)

    def doubled(self) -> Iterator[tuple[Conversation, Message]]:
        """The messages that came once more, and nobody who reads can tell, nor had the sender asked again."""
        for conversation, messages in self._messages.items():
            for message in messages.values():
                if message.unexplained:
                    yield conversation, message

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
        overtaken = [one for one in self.out_of_order if one.conversation.way is way]
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
            out_of_order=len(overtaken),
            late=sum(one.waited_at_dead(self.ends) for one in overtaken),
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

    def longest_latency(self, begin: float, end: float, *, but_of: str = "") -> float:
        """The longest latency of the messages that were accepted within that time, in seconds; 0 without any.

        `but_of`: a node; messages of operators who were logged in there are left out.
        """
        return max(
            (
                message.latency
                for way in Way
                for message in self._of(way)
                if message.latency is not None
                and begin <= (message.accepted_from or 0) < end
                and (not but_of or message.node not in {"", but_of})
            ),
            default=0.0,
        )

    def _of(self, way: Way) -> Iterator[Message]:
        for conversation, messages in self._messages.items():
            if conversation.way is way:
                yield from messages.values()


def _nearest_rank(ordered: list[float], share: float) -> float:
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else 0.0

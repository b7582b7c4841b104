"""The life of a command in one pool process, as data: nothing here writes, waits or looks at a clock.

    taken ----------> written ----------> confirmed ----------> acknowledged
      ^    (stream)      |      (ping)         |      (sync)
      |                  |                     |
      +------------------+---------------------+    a new stream begins

* *Taken*: read from its shard's queue, and not written yet.
* *Written*: on the stream to ejabberd. One ping confirms all that was written before it.
* *Confirmed*: ejabberd has handled it. A message may now be in ejabberd's memory alone, so it waits here until ejabberd
  has forced its log to disk. Any other command is acknowledged at once: on a new stream all visitors are shown anew.
* *Acknowledged*: the broker may forget it. It is not in hand any more; the caller tells the broker.

A new stream may mean that ejabberd was killed. So whatever was written or confirmed on the one before is taken again,
in its order and before all others. Commands of a shard that another process serves now leave without a word.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count, islice
from typing import NamedTuple

from tenants.shards.commands import SendMessage, SendToRoom
from tenants.shards.queues import Delivery


@dataclass(frozen=True, slots=True)
class _Written:
    """`number` grows with each command that is written."""

    delivery: Delivery
    number: int


@dataclass(frozen=True, slots=True)
class _Confirmed:
    delivery: Delivery
    confirmed_at: float


class Confirmed(NamedTuple):
    """What one ping has confirmed: messages, which stay in hand, and other commands, which are to be acknowledged."""

    messages: list[Delivery]
    others: list[Delivery]


class CommandsInHand:
    """All commands that were taken from the queues and are not acknowledged, in their order.

    Attributes:
        stream: the number of the stream on which everything was written that is not acknowledged.
    """

    def __init__(self, serves_shard: Callable[[int], bool]) -> None:
        self.stream = 0
        self._serves_shard = serves_shard
        self._numbers = count(1)
        self._taken: deque[Delivery] = deque()
        self._written: deque[_Written] = deque()
        self._confirmed: deque[_Confirmed] = deque()
        self._closing = 0
        """Commands that close a tenant: they have left the order, and take their time."""

    def __len__(self) -> int:
        return len(self._taken) + len(self._written) + len(self._confirmed) + self._closing

    @property
    def taken(self) -> int:
        """How many are to be written."""
        return len(self._taken)

    @property
    def unconfirmed(self) -> int:
        """How many are to be written, or were written and are not confirmed."""
        return len(self._taken) + len(self._written)

    @property
    def last_written(self) -> int | None:
        """The number of the last command that was written: what a ping from now on confirms. None: nothing waits."""
        return self._written[-1].number if self._written else None

    def begin_stream(self, number: int) -> None:
        """All that ejabberd may not have is to be written on this stream, before everything else."""
        again = [one.delivery for one in self._confirmed] + [one.delivery for one in self._written]
        self._confirmed.clear()
        self._written.clear()
        self._taken.extendleft(reversed(again))
        self.stream = number

    def take(self, deliveries: Iterable[Delivery]) -> None:
        """These came from the queues."""
        self._taken.extend(deliveries)

    def next_taken(self, at_most: int) -> list[Delivery]:
        """The first that are to be written; `write`, `leave` or `close` then says of each what became of it."""
        return list(islice(self._taken, at_most))

    def write(self) -> None:
        """The first that was taken is on the stream now."""
        self._written.append(_Written(self._taken.popleft(), next(self._numbers)))

    def leave(self) -> None:
        """The first that was taken is not to be written at all."""
        self._taken.popleft()

    def close(self) -> None:
        """The first that was taken closes a tenant, beside what others do, until `closed`."""
        self._taken.popleft()
        self._closing += 1

    def closed(self) -> None:
        """The closing of a tenant has ended, however it did."""
        self._closing -= 1

    def confirm(self, last: int, now: float) -> Confirmed:
        """Ejabberd has handled all that was written up to the number `last`."""
        confirmed = Confirmed([], [])
        while self._written and self._written[0].number <= last:
            delivery = self._written.popleft().delivery
            if not self._serves_shard(delivery.shard):
                continue
            if isinstance(delivery.command, SendMessage | SendToRoom):
                self._confirmed.append(_Confirmed(delivery, now))
                confirmed.messages.append(delivery)
            else:
                confirmed.others.append(delivery)
        return confirmed

    def has_confirmed(self, until: float) -> bool:
        """Whether a message waits that was confirmed at that time or earlier."""
        return bool(self._confirmed) and self._confirmed[0].confirmed_at <= until

    def take_safe(self, until: float) -> list[Delivery]:
        """The messages confirmed until that time are on ejabberd's disk. Returns what is to be acknowledged."""
        safe: list[Delivery] = []
        while self.has_confirmed(until):
            delivery = self._confirmed.popleft().delivery
            if self._serves_shard(delivery.shard):
                safe.append(delivery)
        return safe

    def drop(self, shards: set[int]) -> None:
        """These shards are others' now. What is only taken leaves when it is its turn to be written."""
        self._written = deque(one for one in self._written if one.delivery.shard not in shards)
        self._confirmed = deque(one for one in self._confirmed if one.delivery.shard not in shards)

"""The life of a command in a pool process: when it is acknowledged, and what is written again on a new stream."""

import pytest

from tenants.shards.commands import AnyCommand, CloseTenant, SendMessage, SendToRoom, ShowVisitor
from tenants.shards.queues import Delivery
from xmpp_pool.commands_in_hand import CommandsInHand


def _command(name: str) -> AnyCommand:
    """A command by its first letter: [m]essage, to a [r]oom, [v]isitor shown, tenant [c]losed."""
    match name[0]:
        case "m":
            return SendMessage(instance_name="acme", username="visitor.1", operator="bob", body=name, message_id=name)
        case "r":
            return SendToRoom(instance_name="acme", room="room", sender="bob", nick="Bob", body=name, message_id=name)
        case "v":
            return ShowVisitor(instance_name="acme", username=name, nick="n", status="s", online_until=1.0, version=1)
    return CloseTenant(instance_name="acme")


class _Life:
    """Carries out the steps of a case. A command's name ends with the digit of its shard: `m1`, `va2`."""

    def __init__(self) -> None:
        self.lost: set[int] = set()
        self.told: list[str] = []
        self.acknowledged: list[str] = []
        self.pinged = 0
        self.hand = CommandsInHand(lambda shard: shard not in self.lost)

    def run(self, steps: str) -> "_Life":
        for step in steps.split("; "):
            what, *arguments = step.split()
            getattr(self, what)(*arguments)
        return self

    def take(self, *names: str) -> None:
        self.hand.take(Delivery(int(name[-1]), _command(name), name) for name in names)

    def write(self, count: str) -> None:
        for _ in range(int(count)):
            self.hand.write()

    def leave(self) -> None:
        self.hand.leave()

    def close(self) -> None:
        self.hand.close()

    def closed(self) -> None:
        self.hand.closed()

    def ping(self) -> None:
        """It begins. What is written before `pong` is not confirmed by it."""
        assert self.hand.last_written is not None
        self.pinged = self.hand.last_written

    def pong(self, now: str) -> None:
        confirmed = self.hand.confirm(self.pinged, float(now))
        self.told += [one.tag for one in confirmed.messages]
        self.acknowledged += [one.tag for one in confirmed.others]

    def sync(self, until: str) -> None:
        self.acknowledged += [one.tag for one in self.hand.take_safe(float(until))]

    def stream(self, number: str) -> None:
        self.hand.begin_stream(int(number))

    def lose(self, *shards: str) -> None:
        self.lost.update(map(int, shards))

    def drop(self, *shards: str) -> None:
        self.hand.drop(set(map(int, shards)))


CASES = {
    # what happens, then: what is to be written, what was acknowledged, how many commands are in hand
    "what is taken waits to be written": ("take v1 m1", "v1 m1", "", 2),
    "what is written waits for a ping": ("take v1 m1; write 1", "m1", "", 2),
    "a visitor that ejabberd has shown is acknowledged": ("take v1; write 1; ping; pong 5", "", "v1", 0),
    "a ping confirms only what was before it": ("take v1 va1; write 1; ping; write 1; pong 5", "", "v1", 1),
    "a confirmed message waits for ejabberd's disk": ("take m1 r1; write 2; ping; pong 5", "", "", 2),
    "a message on ejabberd's disk is acknowledged": ("take m1 r1; write 2; ping; pong 5; sync 5", "", "m1 r1", 0),
    "what was confirmed later waits for the next sync": (
        "take m1 ma1 r1; write 1; ping; pong 5; write 2; ping; pong 6; sync 5",
        "",
        "m1",
        2,
    ),
    "on a new stream all goes again, in order, before the rest": (
        "take m1 v1 ma1 mb1; write 2; ping; pong 5; write 1; stream 2",
        "m1 ma1 mb1",
        "v1",
        3,
    ),
    "a message that goes again waits again for ping and sync": (
        "take m1; write 1; ping; pong 5; stream 2; sync 9; write 1; ping; pong 9; sync 8",
        "",
        "",
        1,
    ),
    "what leaves is not acknowledged here": ("take m1 v1; leave; write 1; ping; pong 5", "", "v1", 0),
    "a closing is in hand, and nobody waits for it": ("take c1 v1; close", "v1", "", 2),
    "a closing goes on whatever becomes of stream and shard": ("take c1; close; stream 2; drop 1", "", "", 1),
    "a closing ends": ("take c1; close; closed", "", "", 0),
    "what another process serves is not acknowledged": (
        "take m1 m2 v1 v2; write 4; ping; lose 1; pong 5; sync 5",
        "",
        "v2 m2",
        0,
    ),
    "what another process serves does not go again": (
        "take m1 m2 v1 v2; write 2; ping; pong 5; write 2; drop 1; stream 2",
        "m2 v2",
        "",
        2,
    ),
}


@pytest.mark.parametrize(("steps", "taken", "acknowledged", "in_hand"), CASES.values(), ids=CASES)
def test_each_command_is_acknowledged_once_it_is_safe(steps: str, taken: str, acknowledged: str, in_hand: int) -> None:
    life = _Life().run(steps)
    assert [one.tag for one in life.hand.next_taken(100)] == taken.split()
    assert life.acknowledged == acknowledged.split()
    assert len(life.hand) == in_hand


def test_messages_are_told_of_when_they_are_confirmed() -> None:
    """So they are counted and shown in the live view, if they are still this process's."""
    assert _Life().run("take v1 m1 m2 r1; write 4; ping; lose 2; pong 5").told == ["m1", "r1"]


def test_what_waits_is_known_without_asking_ejabberd() -> None:
    hand = _Life().run("take m1 v1; write 1").hand
    assert (hand.taken, hand.unconfirmed, hand.last_written) == (1, 2, 1)
    hand = _Life().run("take m1 v1; write 1; ping; pong 5").hand
    assert (hand.taken, hand.unconfirmed, hand.last_written) == (1, 1, None)
    assert not hand.has_confirmed(4.9)
    assert hand.has_confirmed(5)

"""Which process or server is hit when and how: a pure function of the seed, so that a run can be repeated."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

LHC = "lhc"
"""The victim that is not ours: the tenants' LHC."""

_POOL = "pool"
_SERVERS = ("redis", "rabbitmq", "postgresql", "ejabberd")
_FIRST_AT = 3.0
_CALM_END = 5.0
"""Seconds before the end without a hit: what it did must be seen."""
_PAUSE_SECONDS = 12.0
"""For how long a pool process is stopped: longer than its lease."""
_OUTAGE_SECONDS = (3.0, 8.0)


class Kind(StrEnum):
    """What is done to a victim."""

    KILL = "kill"  # SIGKILL
    RESTART = "restart"  # in good order
    PAUSE = "pause"  # SIGSTOP, later SIGCONT
    STOPPED = "stopped"  # nobody listens
    FAILING = "failing"  # every callback is answered with 500
    HANGING = "hanging"  # no callback is answered


@dataclass(frozen=True, slots=True)
class Action:
    """One hit. `at` is in seconds from the beginning; `seconds` is how long it lasts, 0 where the victim decides."""

    at: float
    kind: Kind
    victim: str
    seconds: float = 0.0


def plan(seed: int, victims: Sequence[str], seconds: float, pause: float) -> list[Action]:
    """The hits of a run, by time. Every victim has its turn before any has the next; the pool begins.

    Args:
        seed: another seed gives another plan.
        victims: names of processes and servers, and `lhc`.
        seconds: length of the run.
        pause: mean time between two hits, in seconds.
    """
    dice = random.Random(seed)
    actions = []
    turns = _turns(dice, victims)
    at = _FIRST_AT
    while victims and at < seconds - _CALM_END:
        actions.append(_action(dice, round(at, 1), next(turns)))
        at += pause * dice.uniform(0.5, 1.5)
    return actions


def _turns(dice: random.Random, victims: Sequence[str]) -> Iterator[str]:
    # processes first: they are what the product is made of
    order = sorted(dice.sample(victims, len(victims)), key=_rank)
    while True:
        yield from order
        order = dice.sample(victims, len(victims))


def _rank(victim: str) -> int:
    if victim.startswith(_POOL):
        return 0
    return 2 if victim.startswith(_SERVERS) else 1


def _action(dice: random.Random, at: float, victim: str) -> Action:
    if victim == LHC:
        kind = dice.choice([Kind.STOPPED, Kind.FAILING, Kind.HANGING])
        return Action(at, kind, victim, round(dice.uniform(*_OUTAGE_SECONDS), 1))
    kinds, weights = [Kind.KILL, Kind.RESTART], [65, 35]
    if victim.startswith(_POOL):
        kinds, weights = [*kinds, Kind.PAUSE], [50, 25, 25]
    kind = dice.choices(kinds, weights)[0]
    return Action(at, kind, victim, _PAUSE_SECONDS if kind is Kind.PAUSE else 0.0)

"""The account of a run: tables for people, JSON for programs."""

import math
import platform
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.chaos.ledger import Count, Ledger, Overtaken, Way
from bench.chaos.load import Load
from bench.chaos.mayhem import Hit, is_node
from bench.chaos.schedule import Kind

_SHOWN = 20
"""So many of each kind of failure are printed one by one; the JSON has them all."""


@dataclass(frozen=True)
class Effect:
    """What one hit did to conversations. Seconds; None when it was not seen to work again."""

    hit: Hit
    to_operator: float | None
    to_visitor: float | None
    longest_latency: float
    longest_of_others: float
    """Of operators at other nodes than the victim, which is a node."""

    @classmethod
    def of(cls, hit: Hit, ledger: Ledger, end: float) -> "Effect":
        """`end` is when the next hit came."""
        victim = hit.action.victim
        others = ledger.longest_latency(hit.at, end, but_of=victim) if is_node(victim) else 0.0
        return cls(
            hit,
            ledger.works_again(Way.TO_OPERATOR, hit.at),
            ledger.works_again(Way.TO_VISITOR, hit.at),
            ledger.longest_latency(hit.at, end),
            others,
        )


@dataclass(frozen=True)
class Result:
    """Everything that is told at the end. Times are in seconds from the beginning."""

    options: dict[str, Any]
    counts: list[Count]
    outcomes: dict[str, int]
    effects: list[Effect]
    lost: list[str]
    doubled: list[str]
    out_of_order: list[str]
    wrong: list[str]
    flickers: list[str]
    memory_kib: dict[str, int]
    begun: float
    settled_after: float

    @classmethod
    def of(
        cls,
        options: dict[str, Any],
        load: Load,
        hits: list[Hit],
        memory_kib: dict[str, int],
        *,
        wrong: list[str],
        begun: float,
        settled_after: float,
    ) -> "Result":
        """Count."""
        ledger = load.ledger
        ledger.ends = [(hit.action.victim, hit.at) for hit in hits if is_node(hit.action.victim) and not hit.note]
        ends = [hit.at for hit in hits[1:]] + [math.inf]
        return cls(
            options=options,
            counts=[ledger.count(way) for way in Way],
            outcomes=dict(sorted(load.outcomes.items())),
            effects=[Effect.of(hit, ledger, end) for hit, end in zip(hits, ends, strict=False)],
            lost=[
                f"{conversation.body(message.number)}, accepted at {(message.accepted_from or 0) - begun:.1f} s"
                f" after {message.attempts} attempts{', returned' if message.returned else ''}"
                f"; {_before(hits, message.accepted_from or 0, begun)}"
                for conversation, message in ledger.lost()
            ],
            doubled=[
                f"{conversation.body(message.number)}, accepted at {(message.accepted_from or 0) - begun:.1f} s"
                f" by {message.node or 'nobody'} after {message.attempts} attempts, {message.unclear} of them unclear,"
                f" came at {_times(message.arrival_times, begun)}, ids {message.arrivals}"
                f"; {_before(hits, message.arrival_times[0], begun)}"
                for conversation, message in ledger.doubled()
            ],
            out_of_order=[_overtaken(one, ledger.ends, begun) for one in ledger.out_of_order],
            wrong=wrong,
            flickers=[f"{operator} saw {visitor} go at {at - begun:.1f} s" for operator, visitor, at in load.flickers],
            memory_kib=memory_kib,
            begun=begun,
            settled_after=settled_after,
        )

    @property
    def good(self) -> bool:
        """Whether every direction's account is good, and everybody saw the truth in the end."""
        return all(count.good for count in self.counts) and not self.wrong

    def as_dict(self) -> dict[str, Any]:
        return {
            "benchmark": "chaos",
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": {"python": platform.python_version(), "processor": platform.machine()},
            "options": self.options,
            "good": self.good,
            "counts": [count.as_dict() for count in self.counts],
            "outcomes": self.outcomes,
            "hits": [
                {
                    "at": round(effect.hit.at - self.begun, 2),
                    "kind": effect.hit.action.kind.value,
                    "victim": effect.hit.action.victim,
                    "down": effect.hit.down,
                    "note": effect.hit.note,
                    "to_operator_works_again": effect.to_operator,
                    "to_visitor_works_again": effect.to_visitor,
                    "longest_latency": effect.longest_latency,
                    "longest_of_others": effect.longest_of_others,
                }
                for effect in self.effects
            ],
            "lost": self.lost,
            "doubled": self.doubled,
            "out_of_order": self.out_of_order,
            "wrong": self.wrong,
            "flickers": self.flickers,
            "memory_kib": self.memory_kib,
            "settled_after": self.settled_after,
        }

    def print_to(self, console: Console) -> None:
        """Print the tables."""
        for table in (self._hits_table(), self._counts_table(), self._memory_table()):
            console.print(table)
        attempts = ", ".join(f"{name} {count}" for name, count in self.outcomes.items())
        console.print(f"Attempts: {attempts}")
        console.print(f"Quiet {self.settled_after:.0f} s after the end of the load.")
        told = {
            "lost": self.lost,
            "doubled, and nobody can tell": self.doubled,
            "out of order": self.out_of_order,
            "wrong in the end": self.wrong,
            "flickers": self.flickers,
        }
        for title, lines in told.items():
            console.print(f"[bold]{title}: {len(lines)}[/]")
            for line in lines[:_SHOWN]:
                console.print(f"  {line}", markup=False, soft_wrap=True)
        console.print("[bold green]Nothing lost.[/]" if self.good else "[bold red]Not good.[/]")

    def _hits_table(self) -> Table:
        table = Table("victim", "hits", "down s", title="Hits (longest of each)")
        for column in (
            "to operator again after s",
            "to visitor again after s",
            "longest latency s",
            "at other nodes s",
        ):
            table.add_column(column)
        kinds = sorted({(effect.hit.action.victim, effect.hit.action.kind) for effect in self.effects})
        for victim, kind in kinds:
            effects = [
                effect
                for effect in self.effects
                if (effect.hit.action.victim, effect.hit.action.kind) == (victim, kind) and not effect.hit.note
            ]
            table.add_row(
                f"{victim} {kind}",
                str(len(effects)),
                _longest([effect.hit.down for effect in effects]),
                _longest([effect.to_operator for effect in effects]),
                _longest([effect.to_visitor for effect in effects]),
                _longest([effect.longest_latency for effect in effects]),
                _longest([effect.longest_of_others for effect in effects]) if is_node(victim) else "",
            )
        return table

    def _counts_table(self) -> Table:
        table = Table("", *(count.way for count in self.counts), title="Messages")
        rows = [count.as_dict() for count in self.counts]
        for name in list(rows[0])[1:]:
            cells = (row[name] for row in rows)
            table.add_row(
                name.replace("_", " "), *(f"{cell:.2f} s" if isinstance(cell, float) else str(cell) for cell in cells)
            )
        return table

    def _memory_table(self) -> Table:
        table = Table("process", "most MiB, with children", title="Memory")
        for name, kib in sorted(self.memory_kib.items()):
            table.add_row(name, f"{kib / 1024:.0f}")
        return table


def describe(kind: Kind, victim: str, seconds: float) -> str:
    """An action in words."""
    return f"{kind} {victim}" + (f" for {seconds:.0f} s" if seconds else "")


def _before(hits: list[Hit], at: float, begun: float) -> str:
    """The last two hits before a moment, and the first after it: one of them did it."""
    earlier = [hit for hit in hits if hit.at <= at][-2:]
    later = [hit for hit in hits if hit.at > at][:1]
    near = ", ".join(f"{hit.action.kind} {hit.action.victim} at {hit.at - begun:.1f} s" for hit in [*earlier, *later])
    return f"hits near: {near or 'none'}"


def _overtaken(one: Overtaken, ends: list[tuple[str, float]], begun: float) -> str:
    why = f", having waited at {one.message.node}, which was down" if one.waited_at_dead(ends) else ""
    last = max(later.number for later in one.by)
    text = f"{one.conversation.body(one.message.number)}, accepted at {(one.message.accepted_from or 0) - begun:.1f} s"
    return f"{text} by {one.message.node or 'nobody'}, came after number {last}, at {one.at - begun:.1f} s{why}"


def _times(moments: list[float], begun: float) -> str:
    return ", ".join(f"{at - begun:.1f} s" for at in moments)


def _longest(values: list[float | None]) -> str:
    if None in values:
        return "never"
    return f"{max((value for value in values if value is not None), default=0):.1f}"

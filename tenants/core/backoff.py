"""Delays between durable retries, whose due time stands in the database."""

import random


def delay(
    attempt: int, *, first: float, longest: float, growth: float = 2.0, rng: random.Random | None = None
) -> float:
    """Seconds to wait after the given failed attempt (from 1): growing, bounded, with jitter of up to a half.

    The jitter keeps the retries of many tenants from meeting at the same moment.
    """
    full = min(longest, first * growth ** min(attempt - 1, 32))
    return full * (rng or random).uniform(0.5, 1.0)

"""Waiting for a condition, with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

DEADLINE = 30.0
"""Long enough for a machine with much else to do: who waits in vain waits that long, and nobody else does."""
_SOONEST, _LATEST = 0.01, 0.2
_SHARE = 4
"""Of the time that a condition takes: it may be another process that answers, which has the awaited work to do, too."""
Value = TypeVar("Value")


async def until(condition: Callable[[], Value | None], what: str, seconds: float = DEADLINE) -> Value:
    """Poll until the condition gives something true, and return that.

    Raises:
        AssertionError: it did not within the deadline; says what was waited for.
    """

    async def evaluate() -> Value | None:
        return condition()

    return await until_async(evaluate, what, seconds)


async def until_async(condition: Callable[[], Awaitable[Value | None]], what: str, seconds: float = DEADLINE) -> Value:
    """`until`, for a condition that must be awaited."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        value = await condition()
        if value:
            return value
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(min(max(_SOONEST, _SHARE * (now - began)), _LATEST))

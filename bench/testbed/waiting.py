"""Waiting for a condition, with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

DEADLINE = 15.0
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
        value = await condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.01)

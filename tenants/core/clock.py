"""The clock that is passed in wherever time matters, so that a test can hold it."""

from collections.abc import Callable

Clock = Callable[[], float]
"""Now, in Unix seconds."""

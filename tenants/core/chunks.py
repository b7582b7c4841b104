"""A long list in pieces, for statements and calls that take only so much at once."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in their order, in pieces of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))

"""Group commit: what many callers want at the same time is done at once, in the order in which they asked.

While one batch is under way the next one gathers. So who comes alone does not wait for others, and the busier it is,
the larger the batches are, and the less each caller costs.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tenants.core.errors import UnavailableError

Item = TypeVar("Item")
Result = TypeVar("Result")


async def next_batch(queue: asyncio.Queue[Item], at_most: int) -> list[Item]:
    """The first items of the queue, in its order, `at_most` so many. Waits until there is one."""
    batch = [await queue.get()]
    while len(batch) < at_most and not queue.empty():
        batch.append(queue.get_nowait())
    return batch


_REMEMBERED = 20
"""How many of the latest batches are remembered with their sizes."""


@dataclass(frozen=True, slots=True)
class BatchFigures:
    """How busy a batcher is, in items.

    Attributes:
        mean: of the latest 20 batches.
        largest: of them.
    """

    waiting: int = 0
    under_way: int = 0
    mean: float = 0.0
    largest: int = 0


class Batcher(Generic[Item, Result]):
    """Does the work of many callers at once.

    Args:
        work: does a batch, and gives a result for each item, in their order. A result that is an exception is raised
            for the caller of that item alone; an exception that `work` raises is raised for all callers of the batch.
        at_most: items in a batch.
        waiting: items that may wait; further ones are refused.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]], *, at_most: int, waiting: int
    ) -> None:
        self._work = work
        self._at_most = at_most
        self._limit = waiting
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._under_way = 0
        self._sizes: deque[int] = deque(maxlen=_REMEMBERED)

    @property
    def figures(self) -> BatchFigures:
        """How busy it is now."""
        sizes = self._sizes or [0]
        return BatchFigures(len(self._waiting), self._under_way, sum(sizes) / len(sizes), max(sizes))

    async def do(self, item: Item) -> Result:
        """Have the item done in the next batch. If its caller is cancelled before that, nothing is done for the item.

        Raises:
            UnavailableError: too many wait.
            Exception: whatever the work raised.
        """
        if len(self._waiting) >= self._limit:
            raise UnavailableError(f"more than {self._limit} calls wait")
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._worker is None:
            self._worker = asyncio.create_task(self._run(), name="batches")
        return await done

    async def close(self) -> None:
        """Wait until all is done that was asked for."""
        if self._worker is not None:
            await asyncio.wait([self._worker])

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._at_most))]
                wanted = [(item, done) for item, done in batch if not done.done()]
                if wanted:
                    self._under_way = len(wanted)
                    self._sizes.append(len(wanted))
                    await self._do(wanted)
        finally:
            self._worker, self._under_way = None, 0

    async def _do(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._work([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever it was, it is the callers' answer
            results = [error] * len(batch)
        except BaseException:
            for _, done in batch:
                done.cancel()
            raise
        for (_, done), result in zip(batch, results, strict=True):
            if done.done():
                continue  # its caller was cancelled
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)

"""Group commit: what many ask for at the same time is done at once."""

import asyncio
from collections.abc import Sequence

import pytest

from tenants.core.batching import Batcher, BatchFigures
from tenants.core.errors import UnavailableError


class Work:
    """Doubles numbers, a batch when it is let go; refuses those below zero, and breaks over a hundred."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()

    async def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(numbers))
        await self.go.wait()
        if any(number > 100 for number in numbers):
            raise OSError
        return [ValueError(number) if number < 0 else 2 * number for number in numbers]


async def test_who_comes_while_a_batch_is_under_way_is_in_the_next_and_in_order() -> None:
    work = Work()
    batcher = Batcher(work, at_most=3, waiting=10)
    calls = [asyncio.create_task(batcher.do(0))]
    await asyncio.sleep(0)
    calls += [asyncio.create_task(batcher.do(number)) for number in range(1, 6)]
    await asyncio.sleep(0)
    work.go.set()
    assert await asyncio.gather(*calls) == [0, 2, 4, 6, 8, 10]
    assert [number for batch in work.batches for number in batch] == [0, 1, 2, 3, 4, 5]
    assert max(map(len, work.batches)) == 3
    await batcher.close()


async def test_it_tells_how_busy_it_is() -> None:
    work = Work()
    batcher = Batcher(work, at_most=3, waiting=10)
    assert batcher.figures == BatchFigures(waiting=0, under_way=0, mean=0, largest=0)
    calls = [asyncio.create_task(batcher.do(number)) for number in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert batcher.figures == BatchFigures(waiting=2, under_way=3, mean=3, largest=3)
    work.go.set()
    await asyncio.gather(*calls)
    await batcher.close()
    assert batcher.figures == BatchFigures(waiting=0, under_way=0, mean=2.5, largest=3)


async def test_an_exception_is_for_the_one_whose_result_it_is() -> None:
    work = Work()
    work.go.set()
    batcher = Batcher(work, at_most=10, waiting=10)
    one, two = await asyncio.gather(batcher.do(-1), batcher.do(1), return_exceptions=True)
    assert isinstance(one, ValueError)
    assert two == 2


async def test_a_batch_that_breaks_is_told_to_all_and_the_next_one_goes_on() -> None:
    work = Work()
    work.go.set()
    batcher = Batcher(work, at_most=10, waiting=10)
    results = await asyncio.gather(batcher.do(101), batcher.do(1), return_exceptions=True)
    assert [type(result) for result in results] == [OSError, OSError]
    assert await batcher.do(1) == 2


async def test_too_many_are_refused() -> None:
    work = Work()
    batcher = Batcher(work, at_most=1, waiting=2)
    calls = [asyncio.create_task(batcher.do(number)) for number in range(4)]
    await asyncio.sleep(0)
    work.go.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(result, UnavailableError) for result in results] == [False, False, True, True]


async def test_who_gave_up_before_its_turn_gets_nothing_done() -> None:
    work = Work()
    batcher = Batcher(work, at_most=1, waiting=10)
    first = asyncio.create_task(batcher.do(1))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(batcher.do(2), 0.01)
    work.go.set()
    assert await first == 2
    assert await batcher.do(3) == 6
    assert work.batches == [[1], [3]]

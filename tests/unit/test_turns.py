"""Writers of an SQLite database take turns, whichever process they are in."""

import asyncio
from pathlib import Path

import pytest

from tenants.store.turns import Turns

LONG, SHORT = 60.0, 0.01


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "orchestrator.db-turn"


async def test_one_at_a_time_and_nobody_is_overtaken_for_long(file: Path) -> None:
    """Each of three has more to write than it can at once; another process is another open file."""
    order: list[int] = []
    inside = 0

    async def write(turns: Turns, number: int) -> None:
        nonlocal inside
        async with turns:
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            order.append(number)
            inside -= 1

    processes = [Turns(file, LONG) for _ in range(3)]
    await asyncio.gather(*(write(turns, number) for number, turns in enumerate(processes) for _ in range(20)))
    for turns in processes:
        turns.close()
    assert len(order) == 60
    # nobody has all its turns before the others have any
    assert set(order[:40]) == {0, 1, 2}


async def test_who_waits_too_long_goes_on(file: Path) -> None:
    holder, other = Turns(file, LONG), Turns(file, SHORT)
    async with holder, other:
        pass
    async with other:
        pass


async def test_a_turn_that_is_given_up_is_another_ones(file: Path) -> None:
    holder, other = Turns(file, LONG), Turns(file, LONG)
    async with holder:
        waiting = asyncio.create_task(other.__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(LONG), other:
        pass


async def test_a_folder_that_is_not_there_is_left_to_sqlite(tmp_path: Path) -> None:
    async with Turns(tmp_path / "gone" / "orchestrator.db-turn", LONG):
        pass

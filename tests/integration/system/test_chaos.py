"""A short chaos run on each choice of servers: no accepted message is lost while everything is killed in turn.

`script/chaos` runs for as long as one likes; this is the same with a fixed schedule. Each is on a system of its own.
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.testbed.system import PROJECT
from bench.testbed.waiting import until

SHORT = ("--seconds", "45", "--pause", "5", "--rate", "20", "--tenants", "3", "--visitors", "4")
"""Eight hits and more, one on each victim."""
ENOUGH_HITS = 6


@asynccontextmanager
async def chaos(results: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.chaos", "--results", str(results), *options),
        cwd=PROJECT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            await process.communicate()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--victims", "pool,worker,api,redis,ejabberd,lhc"), id="redis-sqlite"),
        pytest.param(
            (
                *("--broker", "rabbitmq", "--database", "postgresql"),
                *("--victims", "pool,worker,api,rabbitmq,postgresql,ejabberd"),
            ),
            id="rabbitmq-postgresql",
        ),
    ],
)
async def test_nothing_is_lost_while_everything_is_killed_in_turn(options: tuple[str, ...], tmp_path: Path) -> None:
    async with chaos(tmp_path / "chaos.json", "--seed", "7", *SHORT, *options) as run:
        output, _ = await asyncio.wait_for(run.communicate(), 400)
    assert run.returncode == 0, output.decode()
    result = json.loads((tmp_path / "chaos.json").read_text())
    hits = [hit for hit in result["hits"] if not hit["note"]]
    assert len(hits) >= ENOUGH_HITS
    assert all(hit["down"] is not None for hit in hits)
    for count in result["counts"]:
        assert count["sent"] == count["accepted"] == count["delivered"] > 0
        assert not any(count[wrong] for wrong in ("lost", "stranded", "swapped", "out_of_order"))
    assert result["wrong"] == []


async def test_an_interrupted_run_counts_and_leaves_nothing_behind(tmp_path: Path) -> None:
    results = tmp_path / "chaos.json"
    async with chaos(results, "--seed", "7", "--seconds", "120", "--victims", "beat", "--tenants", "2") as run:
        assert run.stdout is not None
        said = b""
        while b"Everybody talks" not in said:
            line = await asyncio.wait_for(run.stdout.readline(), 120)
            assert line, said.decode()
            said += line
        run.send_signal(signal.SIGINT)
        output, _ = await asyncio.wait_for(run.communicate(), 90)
    assert run.returncode == 130, output.decode()
    result: dict[str, Any] = json.loads(results.read_text())
    assert {count["way"] for count in result["counts"]} == {"visitor to operator", "operator to visitor"}
    state = Path(result["options"]["state"])
    await until(lambda: not state.exists(), f"{state} is removed")

"""Another process of a running system, for who would do harm to the one that all tests share."""

import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from bench.testbed.system import ORCHESTRATOR, System
from bench.testbed.waiting import until_async


@asynccontextmanager
async def beside(
    system: System, command: str, port: int, health: str, env: Mapping[str, str] | None = None
) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """`orchestrator COMMAND` on that port of the loopback address, with these settings, as soon as it is healthy."""
    environment = {**system.env, "ORCHESTRATOR_STATE_DIR": str(system.state), **(env or {})}
    log = system.state / "logs" / f"{command}-beside-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - it takes milliseconds
            [ORCHESTRATOR, command, "--port", str(port)], env=environment, stdout=output, stderr=output
        )
    try:
        async with httpx.AsyncClient(timeout=20) as http:

            async def is_up() -> bool:
                assert process.poll() is None, log.read_text()
                try:
                    return (await http.get(f"http://127.0.0.1:{port}{health}")).is_success
                except httpx.TransportError:
                    return False

            await until_async(is_up, f"{command} answers", 60)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()

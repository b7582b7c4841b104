"""`orchestrator health`: does a process that answers no requests still work? For health checks of containers."""

from enum import StrEnum

from orchestrator.cli.running import console, fail, run
from tenants.process import heartbeats, leases
from tenants.process.services import Services


class Process(StrEnum):
    """Processes that have no address that could be asked."""

    BEAT = "beat"
    POOL = "pool"


def health(process: Process) -> None:
    """Whether it gave a sign of life lately: a pool process of this machine, or what beat wakes, on any."""

    async def lives(services: Services) -> bool:
        match process:
            case Process.BEAT:
                return bool(await heartbeats.fresh(services))
            case Process.POOL:
                return await leases.is_alive_here(services)

    if not run(lives):
        raise fail("no sign of life")
    console.print("ok")

"""Health: `/healthz` says that this process answers, `/readyz` what of the system is missing."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel

from orchestrator.api.http.auth import ServicesDep
from tenants.process import heartbeats, leases
from tenants.process.services import Services

_NOT_KNOWN = "not known"
_PATIENCE = 4.0
"""Seconds for each part to answer, all of them asked at once."""

router = APIRouter(tags=["health"])


class Readiness(BaseModel):
    """Each part of the system, and `ok` or what is wrong with it."""

    ready: bool
    parts: dict[str, str]


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"model": Readiness}})
async def readyz(services: ServicesDep, response: Response) -> Readiness:
    """Whether the whole system works. The workers and the pool count by what they have lately done."""
    parts = await look(services)
    ready = set(parts.values()) == {"ok"}
    if not ready:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Readiness(ready=ready, parts=parts)


async def look(services: Services) -> dict[str, str]:
    """Each part of the system, and `ok` or what is wrong with it."""
    life = dict.fromkeys((heartbeats.WORKER, heartbeats.LIFECYCLE, "pool"), _NOT_KNOWN)

    async def look_for_life() -> None:
        fresh = await heartbeats.fresh(services)
        for name in (heartbeats.WORKER, heartbeats.LIFECYCLE):
            life[name] = "ok" if name in fresh else "no sign of life"
        served, count = await leases.count_served(services), services.settings.shard_count
        life["pool"] = "ok" if served == count else f"{served} of {count} shards are served"

    checks = {
        "database": look_for_life(),
        "broker": services.commands.check(),
        "ejabberd": services.ejabberd.version(),
    }
    outcomes = await asyncio.gather(*map(_outcome, checks.values()))
    return dict(zip(checks, outcomes, strict=True)) | life


async def _outcome(check: Coroutine[Any, Any, object]) -> str:
    """`ok`, or what is wrong. A check that hangs is left behind: a server that does not answer ends no query either."""
    task = asyncio.create_task(check)
    done, _ = await asyncio.wait({task}, timeout=_PATIENCE)
    if not done:
        task.cancel()
        return TimeoutError.__name__
    error = task.exception()
    return type(error).__name__ if error else "ok"

"""Health: `/healthz` says that this process answers, `/readyz` what of the system is missing."""

from collections.abc import Awaitable
from http import HTTPStatus

from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy import text

from orchestrator.api.panel import ServicesDep
from tenants import heartbeats, leases
from tenants.services import Services

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
    """Whether the whole system works. The worker and the pool count by what they have lately done."""
    parts = {
        "database": await _outcome(_query(services)),
        "broker": await _outcome(services.commands.check()),
        "ejabberd": await _outcome(services.ejabberd.version()),
    }
    for name, check in (("worker", _worker), ("pool", _pool)):
        parts[name] = await check(services) if parts["database"] == "ok" else "not known"
    ready = set(parts.values()) == {"ok"}
    if not ready:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Readiness(ready=ready, parts=parts)


async def _worker(services: Services) -> str:
    return "ok" if heartbeats.WORKER in await heartbeats.fresh(services) else "no sign of life"


async def _pool(services: Services) -> str:
    held, count = await leases.count_held(services), services.settings.shard_count
    return "ok" if held == count else f"{held} of {count} shards are served"


async def _query(services: Services) -> None:
    async with services.database.read() as session:
        await session.execute(text("SELECT 1"))


async def _outcome(check: Awaitable[object]) -> str:
    try:
        await check
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is wrong with the part
        return f"{type(error).__name__}"
    return "ok"

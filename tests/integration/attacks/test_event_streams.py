"""Streams of events by one token: they leave room for those of others."""

import asyncio
import time
from contextlib import AsyncExitStack

import httpx

from bench.testbed.system import domain_of
from tenants.store.models import Operation, OperationKind, OperationState
from tests.world.tenant import Tenant


async def test_one_token_does_not_take_all_streams(tenant: Tenant) -> None:
    async with domain_of(tenant.system) as services, services.database.write() as session:
        resting = Operation(id="rests", kind=OperationKind.RECONCILE, state=OperationState.PAUSED, requested_by="test")
        resting.instance_name, resting.created_at = tenant.name, time.time()
        session.add(resting)
    made = [{"name": f"dashboard {number}", "scope": "panel:read"} for number in range(2)]
    tokens = [(await tenant.panel.http.post("/v1/tokens", json=one)).json()["token"] for one in made]
    async with AsyncExitStack() as stack:
        everybody = httpx.Limits(max_connections=None)
        client = httpx.AsyncClient(base_url=tenant.panel.http.base_url, limits=everybody, timeout=60)
        http = await stack.enter_async_context(client)

        async def stream(token: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {token}"}
            opened = http.stream("GET", "/v1/operations/rests/events", headers=headers)
            return await stack.enter_async_context(opened)

        answers = await asyncio.gather(*(stream(tokens[0]) for _ in range(200)))
        assert sorted(answer.status_code for answer in answers) == [200] * 50 + [429] * 150
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.headers["retry-after"] == "10"
        assert b"of one token 50" in await refused.aread()
        assert (await stream(tokens[1])).status_code == 200
    async with domain_of(tenant.system) as services, services.database.write() as session:
        await session.delete(await session.get_one(Operation, "rests"))

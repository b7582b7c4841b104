"""The API of a tenant, with a token of the tenant's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from bench.testbed.operator import Operator
from bench.testbed.waiting import until_async
from tests.world.tenant import Tenant

OPERATOR_PASSWORD = "operator-pw"


class TenantApi:
    """The tenant's API with the tenant's own token."""

    def __init__(self, tenant: Tenant, token: str) -> None:
        self.tenant = tenant
        self.token = token
        base = f"{tenant.system.endpoints['api']}/v1/tenants/{tenant.name}"
        self.http = httpx.AsyncClient(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    async def operator(self, username: str, **wanted: Any) -> Operator:
        """A new operator, logged in, whom the orchestrator knows to be online."""
        made = await self.http.put(f"/operators/{username}", json={"password": OPERATOR_PASSWORD, **wanted})
        assert made.status_code == 201, made.text
        return await self.login(username)

    async def login(self, username: str) -> Operator:
        operator = await self.tenant.online(username)
        await until_async(lambda: self._is_told(username), f"{username} is known to be online")
        return operator

    async def _is_told(self, username: str) -> bool:
        return any(
            f'"connect","user":"{self.tenant.lhc.name(username)}"' in callback.raw.decode()
            for callback in self.tenant.callbacks()
        )

    async def chat(self, chat_id: str, **wanted: Any) -> dict[str, Any]:
        answer = await self.http.post("/chats", json={"chat_id": chat_id, "nick": f"John #{chat_id}", **wanted})
        assert answer.status_code in {200, 201}, answer.text
        return dict(answer.json())

    async def write(self, chat_id: str, message: str, **wanted: Any) -> dict[str, Any]:
        answer = await self.http.post(f"/chats/{chat_id}/messages", json={"message": message, **wanted})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    async def owner(self, chat_id: str) -> str | None:
        return (await self.http.get(f"/chats/{chat_id}")).json()["owner"]  # type: ignore[no-any-return]


@asynccontextmanager
async def api_of(tenant: Tenant) -> AsyncIterator[TenantApi]:
    """The tenant's API, opened by a token made for it."""
    token = await tenant.panel.http.post(
        "/v1/tokens", json={"name": "lhc", "scope": "tenant", "instance_name": tenant.name}
    )
    made = TenantApi(tenant, token.json()["token"])
    yield made
    await made.http.aclose()

"""The hosting control panel."""

from typing import Any, Self

import httpx

from bench.testbed.waiting import until_async


class Panel:
    """Calls the panel's API with its token."""

    def __init__(self, api: str, token: str) -> None:
        self.http = httpx.AsyncClient(base_url=api, headers={"Authorization": f"Bearer {token}"}, timeout=10)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.http.aclose()

    async def create(self, instance_name: str, **wanted: Any) -> dict[str, Any]:
        """Create the tenant and wait until it is active. Returns the first answer, which holds its key."""
        answer = await self.http.put(f"/v1/tenants/{instance_name}", json=wanted)
        answer.raise_for_status()
        created: dict[str, Any] = answer.json()
        if created["state"] != "active":
            await self.finished(created["operation"]["id"])
        return created

    async def destroy(self, instance_name: str, seconds: float = 60) -> dict[str, Any]:
        """Destroy the tenant and wait for the end. Returns the finished operation."""
        answer = await self.http.delete(f"/v1/tenants/{instance_name}")
        answer.raise_for_status()
        return await self.finished(answer.json()["id"], seconds)

    async def finished(self, operation_id: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until the operation has ended, well."""

        async def ended() -> dict[str, Any] | None:
            seen: dict[str, Any] = (await self.http.get(f"/v1/operations/{operation_id}")).json()
            return seen if seen["state"] in {"succeeded", "failed"} else None

        operation = await until_async(ended, f"operation {operation_id} ends", seconds)
        assert operation["state"] == "succeeded", operation
        return operation

    async def comes_alive(self, instance_name: str) -> None:
        """Wait until the tenant is active."""

        async def is_active() -> bool:
            return (await self.http.get(f"/v1/tenants/{instance_name}")).json()["state"] == "active"  # type: ignore[no-any-return]

        await until_async(is_active, f"tenant {instance_name} is active", 30)

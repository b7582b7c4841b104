"""What a tenant was told by webhooks."""

import json
from typing import Any

from bench.testbed.operator import Operator
from bench.testbed.receiver import Callback
from bench.testbed.waiting import until
from tests.world.tenant_api import TenantApi


class Told:
    """What the tenant of the API was told."""

    def __init__(self, api: TenantApi) -> None:
        self._api = api
        self.seen: list[dict[str, Any]] = []

    def all(self) -> list[Callback]:
        return self._api.tenant.callbacks("/events")

    def of(self, event: str) -> list[dict[str, Any]]:
        events = [json.loads(one.raw) for one in self.all()]
        return [one["data"] for one in events if one["type"] == event]

    async def next(self, event: str, **wanted: Any) -> dict[str, Any]:
        """Wait for such an event."""
        return await until(
            lambda: next((one for one in self.of(event) if wanted.items() <= one.items()), None), f"{event} {wanted}"
        )


async def login(api: TenantApi, hooked: Told, username: str) -> Operator:
    made = await api.http.put(f"/operators/{username}", json={"password": "operator-pw"})
    assert made.status_code == 201
    operator = await api.tenant.online(username)
    await hooked.next("operator.connected", operator=username)
    return operator

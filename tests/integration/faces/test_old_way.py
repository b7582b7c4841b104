"""The old way to begin and end a tenant, by LHC itself at the root, when things are not as usual.

LHC gives up after 5 s, and so do these calls: each must be answered by then.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from bench.testbed.lhc import Lhc
from bench.testbed.panel import Panel
from bench.testbed.system import System
from bench.testbed.waiting import until_async
from tests.world.frozen import frozen
from tests.world.tenant import Tenant

DONE = {"error": False, "msg": ""}
PASSWORD = "0123456789abcdef0123"


class OldLhc:
    """An LHC with the hosting-wide key."""

    def __init__(self, system: System, name: str) -> None:
        endpoints = system.endpoints
        self.system = system
        self.name = name
        self.lhc = Lhc(name, base=endpoints["api"], secret_key=endpoints["hosting_key"], host=endpoints["xmpp_host"])

    async def set_up(self, kind: str) -> httpx.Response:
        display = f'"operators.{self.name}\\nvisitors.{self.name}"' if kind == "operators" else '""'
        return await self.lhc.call(
            "/xmpp-setup-instance-roasters",
            group=f"{kind}.{self.name}",
            host=self.lhc.host,
            name=kind,
            desc=f"{kind} of LHC",
            display=display,
        )

    async def delete(self, kind: str) -> httpx.Response:
        return await self.lhc.call("/xmpp-delete-instance-roasters", group=f"{kind}.{self.name}", host=self.lhc.host)

    async def rosters(self) -> list[str]:
        return sorted(group for group in await self.system.rosters() if group.endswith(f".{self.name}"))


@asynccontextmanager
async def ejabberd_stopped(system: System) -> AsyncIterator[None]:
    """A chat server that takes connections and answers nothing."""
    async with frozen(system.pid("ejabberd")):
        yield
    await system.ready()


async def state_of(panel: Panel, name: str) -> str | None:
    answer = await panel.http.get(f"/v1/tenants/{name}")
    return answer.json()["state"] if answer.is_success else None


async def becomes(panel: Panel, name: str, state: str | None) -> None:
    async def became() -> bool:
        return await state_of(panel, name) == state

    await until_async(became, f"{name} becomes {state}", 90)


async def audit(panel: Panel, name: str) -> list[tuple[Any, ...]]:
    entries = (await panel.http.get("/v1/audit", params={"instance_name": name})).json()["entries"]
    return [(entry["actor"], entry["action"], entry["new_state"]) for entry in reversed(entries)]


async def test_a_suspended_tenant_is_not_opened(tenant: Tenant) -> None:
    old = OldLhc(tenant.system, tenant.name)
    suspended = await tenant.panel.http.post(f"/v1/tenants/{tenant.name}/suspend")
    await tenant.panel.finished(suspended.json()["id"])
    before = await audit(tenant.panel, tenant.name)
    for kind in ("visitors", "operators"):
        answer = await old.set_up(kind)
        assert answer.json() == {"error": True, "msg": f"tenant '{tenant.name}' is suspended, not active"}
    assert await state_of(tenant.panel, tenant.name) == "suspended"
    assert await audit(tenant.panel, tenant.name) == before
    # its end it may have
    assert (await old.delete("visitors")).json() == DONE
    await becomes(tenant.panel, tenant.name, None)


async def test_begun_and_ended_while_the_chat_server_hangs(system: System, panel: Panel) -> None:
    old = OldLhc(system, "old-way-hangs")
    async with ejabberd_stopped(system):
        for kind in ("visitors", "operators"):
            assert (await old.set_up(kind)).json() == DONE
        assert await state_of(panel, old.name) == "provisioning"
    await becomes(panel, old.name, "active")
    assert await old.rosters() == [f"operators.{old.name}", f"visitors.{old.name}"]

    # of a tenant that is active there is nothing under way: LHC is told to come again
    await old.lhc.new_operator("bob", "operator-pw")
    async with ejabberd_stopped(system):
        later = await old.set_up("visitors")
        assert (later.status_code, later.headers["retry-after"]) == (503, "5")
        for kind in ("visitors", "operators"):
            assert (await old.delete(kind)).json() == DONE
        for endpoint in ("/xmpp-delete-user-from-roaster", "/xmpp-unregister"):
            group = {"group": f"operators.{old.name}", "grouphost": old.lhc.host}
            gone = await old.lhc.call(endpoint, user=old.lhc.name("bob"), host=old.lhc.host, **group)
            assert gone.json() == DONE
        answer = await old.set_up("visitors")
        assert answer.json() == {"error": True, "msg": f"tenant '{old.name}' is destroying, not active"}
    await becomes(panel, old.name, None)
    assert await old.rosters() == []
    assert await system.users_of(old.name) == []
    assert await audit(panel, old.name) == [
        ("lhc", "state", "pending"),
        ("lhc", "provision requested", None),
        ("lhc", "state", "provisioning"),
        ("lhc", "state", "active"),
        ("lhc", "provision succeeded", None),
        ("lhc", "destroy requested", None),
        ("lhc", "state", "destroying"),
        ("lhc", "state", "destroyed"),
        ("lhc", "destroy succeeded", None),
    ]
    # and anew
    assert (await old.set_up("visitors")).json() == DONE
    await becomes(panel, old.name, "active")


@pytest.mark.parametrize("kind", ["visitors", "operators"])
async def test_ending_what_never_was(system: System, panel: Panel, kind: str) -> None:
    old = OldLhc(system, "old-way-never")
    assert (await old.delete(kind)).json() == DONE
    assert await audit(panel, old.name) == []


async def test_page_views_while_the_tenant_is_suspended_and_ended(tenant: Tenant) -> None:
    """The tenant's end leaves nothing, whatever came in just before."""
    old = OldLhc(tenant.system, tenant.name)
    for number in range(1, 6):
        await old.lhc.new_visitor(f"visitor.{number}", PASSWORD)
    assert (await old.delete("operators")).json() == DONE
    answers = [await old.lhc.new_visitor(f"visitor.{number}", PASSWORD) for number in range(1, 11)]
    assert all(answer.json()["error"] for answer in answers)
    await becomes(tenant.panel, tenant.name, None)
    assert await tenant.system.users_of(tenant.name) == []

"""Answers that are broken in some way, through a whole system: what was received is posted once."""

from typing import Any

import pytest

from bench.testbed.lhc import Lhc
from bench.testbed.panel import Panel
from bench.testbed.system import System
from bench.testbed.waiting import until_async
from tests.world.console import Browser
from tests.world.odd_server import odd_server
from tests.world.tenant import NewTenant

PASSWORD = "0123456789abcdef0123"
KINDS = (
    "truncated",
    "chunk-garbage",
    "big-header",
    "bad-header-name",
    "reset-after-head",
    "204-with-body",
    "head-unfinished",
)


async def test_what_was_received_is_posted_once(new_tenant: NewTenant, admin: Browser) -> None:
    tenant = await new_tenant()
    bob = await tenant.operator_online()
    path = f"/v1/tenants/{tenant.name}"
    async with odd_server() as server:
        moved = await tenant.panel.http.put(path, json={"callback_url": f"{server.url}/index.php/xmppservice/"})
        assert moved.is_success, moved.text
        for number, kind in enumerate(KINDS, start=1):
            await tenant.lhc.new_visitor(f"visitor.{number}", PASSWORD)
            bob.write(tenant.lhc.name(f"visitor.{number}"), kind)

        async def delivered() -> list[dict[str, Any]] | None:
            found = (await tenant.panel.http.get(f"{path}/deliveries")).json()["deliveries"]
            return found if [one["state"] for one in found] == ["delivered"] * len(KINDS) else None

        found = await until_async(delivered, "all are received")
        assert [one["attempts"] for one in found] == [1] * len(KINDS)
        assert [server.asked[kind] for kind in KINDS] == [1] * len(KINDS)
        assert {asked for asked in server.paths if "message" in asked} == {"/index.php/xmppservice/processmessage"}
        detail = (await tenant.panel.http.get(f"{path}/deliveries/{found[0]['id']}")).json()
        assert "ended early" in detail["history"][0]["warning"]
        circuit = (await tenant.panel.http.get(f"{path}/circuit")).json()
        assert (circuit["state"], circuit["failures"]) == ("closed", 0)
        bob.write(tenant.lhc.name("visitor.1"), "page")

        async def is_warned() -> bool:
            return "a web page with a title came back" in await admin.text(f"/console/tenant/{tenant.name}/live")

        await until_async(is_warned, "the tenant's page warns")


@pytest.mark.parametrize(
    ("name", "field", "rule"),
    [
        ("a--b", "callback_url", "two dashes in a row"),
        ("standalone", "instance_name", "the one tenant of a standalone system"),
    ],
)
async def test_a_name_that_means_no_lhc_is_refused_by_every_door(
    system: System, panel: Panel, name: str, field: str, rule: str
) -> None:
    refused = await panel.http.put(f"/v1/tenants/{name}", json={})
    assert refused.status_code == 422
    (error,) = refused.json()["errors"]
    assert (error["field"], rule in error["rule"]) == (field, True)
    endpoints = system.endpoints
    lhc = Lhc(name, base=endpoints["api"], secret_key=endpoints["hosting_key"], host=endpoints["xmpp_host"])
    keys = {
        "group": f"operators.{name}",
        "host": endpoints["xmpp_host"],
        "name": "Operators",
        "desc": "",
        "display": "",
    }
    begun = (await lhc.call("/xmpp-setup-instance-roasters", **keys)).json()
    assert begun["error"]
    assert rule in begun["msg"]
    assert (await panel.http.get(f"/v1/tenants/{name}")).status_code == 404

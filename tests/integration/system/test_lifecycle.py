"""A tenant's life: provision, wrong names, destroy with progress, expiry; seen by the panel and in Flower."""

import asyncio
from typing import Any

import httpx
import pytest

from bench.testbed.lhc import Lhc
from bench.testbed.panel import Panel
from bench.testbed.system import System
from bench.testbed.waiting import until_async
from tests.world.tenant import Tenant

PASSWORD = "0123456789abcdef0123"


async def groups_of(system: System, instance_name: str) -> list[str]:
    return sorted(group for group in await system.rosters() if group.endswith(f".{instance_name}"))


async def test_provisioning_makes_both_rosters(system: System, panel: Panel) -> None:
    answer = await panel.http.put("/v1/tenants/prov-a", json={"callback_url": "http://127.0.0.1:1/lhc"})
    assert answer.status_code == 202
    created = answer.json()
    assert answer.headers["Location"] == f"/v1/operations/{created['operation']['id']}"
    assert len(created["secret_key"]) >= 40
    operation = await panel.finished(created["operation"]["id"])
    assert [(step["name"], step["state"], step["done"], step["total"]) for step in operation["steps"]] == [
        ("begin", "succeeded", 1, 1),
        ("create_visitors_roster", "succeeded", 1, 1),
        ("create_operators_roster", "succeeded", 1, 1),
        ("verify", "succeeded", 1, 1),
        ("activate", "succeeded", 1, 1),
    ]
    assert operation["progress"] == 1
    assert await groups_of(system, "prov-a") == ["operators.prov-a", "visitors.prov-a"]
    operators = await system.roster("operators.prov-a")
    assert operators is not None
    assert operators.displayed == ("operators.prov-a", "visitors.prov-a")

    again = await panel.http.put("/v1/tenants/prov-a", json={"online_seconds": 60})
    assert again.status_code == 200
    tenant = again.json()
    assert (tenant["state"], tenant["online_seconds"], tenant["secret_key"]) == ("active", 60, None)
    assert tenant["callback_url"] == "http://127.0.0.1:1/lhc"
    seen = (await panel.http.get("/v1/tenants/prov-a")).json()
    assert seen == tenant


async def test_creating_twice_at_once_is_one_operation(panel: Panel) -> None:
    answers = await asyncio.gather(*(panel.http.put("/v1/tenants/twice") for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {200, 202}
    operations = {answer.json()["operation"]["id"] for answer in answers}
    assert len(operations) == 1
    await panel.finished(operations.pop())


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("chat", "must not be 'chat'"),
        ("Acme", "must be lower case"),
        ("my%20shop", "must be of a-z, 0-9 and dashes"),
        ("shop.acme", "must not contain a dot"),
        ("a@b", "must be of a-z, 0-9 and dashes"),
        ("a" * 64, "must be at most 63 characters"),
        ("caf%C3%A9", "must be ASCII"),
        ("-acme", "must be of a-z, 0-9 and dashes"),
    ],
)
async def test_a_wrong_name_is_refused_with_its_rule(system: System, panel: Panel, name: str, rule: str) -> None:
    before = await system.rosters()
    answer = await panel.http.put(f"/v1/tenants/{name}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    (error,) = answer.json()["errors"]
    assert error["field"] == "instance_name"
    assert rule in error["rule"]
    assert await system.rosters() == before
    assert (await panel.http.get(f"/v1/tenants/{name}")).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"online_seconds": -1}, "online_seconds"),
        ({"colour": "red"}, "colour"),
        ({"callback_url": "x"}, "callback_url"),
    ],
)
async def test_wrong_values_are_named(panel: Panel, body: dict[str, Any], field: str) -> None:
    answer = await panel.http.put("/v1/tenants/wrong-values", json=body)
    assert answer.status_code == 422
    assert field in {error["field"] for error in answer.json()["errors"]}
    assert (await panel.http.get("/v1/tenants/wrong-values")).status_code == 404


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}])
async def test_the_panel_needs_its_token(system: System, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=system.endpoints["api"], headers=headers) as http:
        for method, path in (
            ("PUT", "tenants/x"),
            ("GET", "tenants/x"),
            ("DELETE", "tenants/x"),
            ("GET", "operations/x"),
        ):
            answer = await http.request(method, f"/v1/{path}")
            assert answer.status_code == 401
            assert answer.json()["detail"] == "the token is missing or wrong"


async def test_what_does_not_exist_is_not_found(panel: Panel) -> None:
    for method, path in (
        ("GET", "tenants/nobody"),
        ("DELETE", "tenants/nobody"),
        ("GET", "operations/none"),
        ("GET", "x"),
    ):
        answer = await panel.http.request(method, f"/v1/{path}")
        assert answer.status_code == 404
        assert answer.json()["title"] == "Not Found"


async def test_destroying_200_accounts_leaves_nothing_and_tells_how_far_it_is(tenant: Tenant) -> None:
    system, lhc, host = tenant.system, tenant.lhc, tenant.host
    bob = await tenant.operator_online()
    gate = asyncio.Semaphore(8)

    async def register(number: int) -> None:
        async with gate:
            assert (await lhc.new_visitor(f"visitor.{number}", PASSWORD)).json() == {"error": False, "msg": ""}

    await asyncio.gather(*(register(number) for number in range(1, 196)))
    # what the registry does not know goes as well: one that merely bears the name, one in a roster alone
    await system.ejabberd("register", user=lhc.name("orphan"), host=host, password="x")
    await system.join(f"visitors.{tenant.name}", lhc.name("ghost"))
    assert (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}")).json()["accounts"] == {
        "operator": 1,
        "visitor": 195,
        "chat": 0,
    }
    await bob.sees(lhc.name("visitor.195"))

    started = await tenant.panel.http.delete(f"/v1/tenants/{tenant.name}")
    assert started.status_code == 202
    seen: list[tuple[int, int]] = []

    async def ended() -> bool:
        operation = (await tenant.panel.http.get(f"/v1/operations/{started.json()['id']}")).json()
        seen.extend((s["done"], s["total"]) for s in operation["steps"] if s["name"] == "remove_accounts")
        assert operation["state"] != "failed", operation
        return bool(operation["state"] == "succeeded")

    await until_async(ended, "the tenant is destroyed", 60)
    assert seen[-1] == (198, 198)
    assert [progress for progress in seen if 0 < progress[0] < 198], f"no progress was told: {set(seen)}"
    assert seen == sorted(seen, key=lambda progress: (progress[1] > 1, progress[0]))

    left = await system.ejabberd("lhc_tenant_left", host=host, suffix=f".{tenant.name}", groups=[])
    assert [kind for kind in left if kind["count"]] == []
    assert await system.users_of(tenant.name) == []
    assert await groups_of(system, tenant.name) == []
    assert await system.sessions_of(tenant.name) == []
    await bob.sees(lhc.name("visitor.1"), kind="unavailable")
    assert bob.disconnected.is_set()
    assert (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}")).status_code == 404
    # its own key still opens, for what LHC removes afterwards, and for nothing else
    assert (await lhc.page_view("visitor.1", PASSWORD)).json() == {
        "error": True,
        "msg": f"there is no tenant '{tenant.name}'",
    }

    # the same name begins anew, with a key of its own
    again = await tenant.panel.create(tenant.name)
    assert again["secret_key"] != tenant.key
    assert again["accounts"] == {"operator": 0, "visitor": 0, "chat": 0}


async def test_destroying_waits_for_the_provisioning_under_way(panel: Panel, system: System) -> None:
    created = (await panel.http.put("/v1/tenants/in-a-hurry")).json()
    await panel.destroy("in-a-hurry")
    await panel.finished(created["operation"]["id"])
    assert await groups_of(system, "in-a-hurry") == []


async def test_idle_accounts_expire_but_never_operators_or_who_is_online(new_tenant: Any) -> None:
    tenant = await new_tenant(idle_hours=0.0003, online_seconds=2)
    lhc = tenant.lhc
    await lhc.new_operator("bob", "operator-pw")
    await lhc.new_visitor("visitor.1", PASSWORD)
    await lhc.new_visitor("visitor.2.chat", PASSWORD)
    await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json={"online_seconds": 300})
    await lhc.new_visitor("visitor.3", PASSWORD)

    async def expired() -> bool:
        tenant.system.send_task("accounts.expire")
        # the registry forgets an account after ejabberd has
        accounts = (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}")).json()["accounts"]
        return bool(accounts == {"operator": 1, "visitor": 1, "chat": 0})

    await until_async(expired, "the idle accounts are gone")
    assert await tenant.system.users_of(tenant.name) == [lhc.name("bob"), lhc.name("visitor.3")]


async def test_a_panel_may_send_the_tasks_by_name(system: System, panel: Panel) -> None:
    system.send_task("tenants.provision", instance_name="by-task")

    async def state() -> str | None:
        answer = await panel.http.get("/v1/tenants/by-task")
        return answer.json()["state"] if answer.is_success and answer.json()["state"] == "active" else None

    await until_async(state, "the tenant is provisioned by a task")
    system.send_task("tenants.destroy", instance_name="by-task")

    async def gone() -> bool:
        return (await panel.http.get("/v1/tenants/by-task")).is_client_error

    await until_async(gone, "the tenant is destroyed by a task")


async def test_flower_finds_the_tasks_of_a_tenant_and_of_an_operation(tenant: Tenant) -> None:
    """As docs/celery.md says."""
    operation = (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}")).json()["operation"]

    async def found(search: str) -> list[dict[str, Any]]:
        endpoints = tenant.system.endpoints
        login = (endpoints["flower_user"], endpoints["flower_password"])
        async with httpx.AsyncClient(base_url=endpoints["flower"], auth=login) as http:
            answer = (await http.get("/api/tasks", params={"search": search, "limit": 100})).json()
        return [task for task in answer.values() if task["state"] == "SUCCESS"]

    async def is_found() -> list[dict[str, Any]]:
        return await found(f"kwargs:operation_id={operation['id']}")

    of_operation = await until_async(is_found, "Flower shows the provisioning")
    assert {task["name"] for task in of_operation} == {"operations.advance"}
    of_tenant = await found(f"kwargs:instance_name={tenant.name}")
    assert {task["uuid"] for task in of_operation} <= {task["uuid"] for task in of_tenant}
    assert all(task["kwargs"].startswith(f"{{'instance_name': '{tenant.name}'") for task in of_tenant)
    assert operation["celery_id"] in {task["uuid"] for task in of_tenant}
    assert await found(f"kwargs:instance_name={tenant.name}-other") == []


async def test_health_and_the_openapi_page(system: System) -> None:
    async with httpx.AsyncClient(base_url=system.endpoints["api"]) as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        ready = (await http.get("/readyz")).json()
        paths = (await http.get("/openapi.json")).json()["paths"]
        page = await http.get("/docs")
        assert "text/html" in page.headers["content-type"]
        # a private network has no way to a foreign server
        assert "https://" not in page.text
        assert (await http.get("/static-offline-docs/swagger-ui-bundle.js")).is_success
    assert ready == {
        "ready": True,
        "parts": dict.fromkeys(("database", "broker", "ejabberd", "worker", "lifecycle", "pool"), "ok"),
    }
    assert {"/v1/tenants/{instance_name}", "/v1/operations/{operation_id}", "/readyz"} <= set(paths)


async def test_the_root_takes_the_hosting_key_for_every_tenant(tenant: Tenant) -> None:
    endpoints = tenant.system.endpoints
    root = Lhc(tenant.name, base=endpoints["api"], secret_key=endpoints["hosting_key"], host=tenant.host)
    assert (await root.new_visitor("visitor.1", PASSWORD)).json() == {"error": False, "msg": ""}
    assert (await root.page_view("visitor.1", PASSWORD)).text == "ok"


async def test_no_secret_is_in_the_logs(tenant: Tenant) -> None:
    """After all that went before; the last words are this test's own."""
    await tenant.lhc.new_visitor("visitor.77", "pw-of-the-visitor-77")
    await tenant.lhc.page_view("visitor.77", "wrong-pw-of-the-visitor")
    endpoints = tenant.system.endpoints
    secrets = {
        tenant.key,
        "pw-of-the-visitor-77",
        "wrong-pw-of-the-visitor",
        *(endpoints[name] for name in ("panel_token", "hosting_key", "rpc_password")),
        endpoints["broker_url"].split(":")[2].split("@")[0],
    }
    for log in (tenant.system.state / "logs").glob("*.log*"):
        text = log.read_text(errors="replace")
        assert [secret for secret in secrets if secret in text] == [], log.name

"""`/metrics`: what Prometheus sees of a running system; and that alerts and dashboard ask for what there is."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bench.testbed.login import Door, Login
from bench.testbed.waiting import until_async
from tests.world.console import Browser
from tests.world.tenant import Tenant

PASSWORD = "0123456789abcdef0123"
MONITORING = Path(__file__).parents[3] / "docs" / "monitoring"
_OF_OURS = re.compile(r"\blhc_[a-z_]+")


async def read(tenant: Tenant) -> dict[tuple[str, tuple[str, ...]], float]:
    """Each sample, by its name and the values of its labels."""
    answer = await tenant.panel.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_it_tells_who_is_online_and_what_was_asked_for(tenant: Tenant) -> None:
    before = await read(tenant)
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    await bob.sees(tenant.lhc.name("visitor.1"))
    bob.write(tenant.lhc.name("visitor.1"), "hello")
    await tenant.receiver.message("hello")

    async def counted() -> bool:
        now = await read(tenant)
        return now["lhc_operators_online", ()] >= 1 and now["lhc_visitors_online", ()] >= 1

    await until_async(counted, "both are counted")
    now = await read(tenant)
    assert now["lhc_events_last_minute", ()] >= 1
    assert now["lhc_tenants", ("active",)] >= 1
    assert now["lhc_tenants", ("failed",)] >= 0
    assert sum(value for (name, _), value in now.items() if name == "lhc_shards") == 64
    assert {labels[0] for name, labels in now if name == "lhc_heartbeat_age_seconds"} == {"worker", "lifecycle"}
    registered = "lhc_requests_total", ("xmpp-register-online-visitor", "200")
    assert now[registered] == before.get(registered, 0) + 1
    assert now["process_resident_memory_bytes", ()] > 10_000_000


async def test_it_tells_how_busy_each_batch_is(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    await bob.sees(tenant.lhc.name("visitor.1"))
    bob.write(tenant.lhc.name("visitor.1"), "a batch of one")
    await tenant.receiver.message("a batch of one")

    async def all_told() -> bool:
        now = await read(tenant)
        # labels come in the order of their names: batch, process
        told = {labels for name, labels in now if name == "lhc_batch_largest_size"}
        # a worker tells it with its next sign of life
        return told >= {("store_session", "api"), ("claim_work", "worker"), ("record_outcome", "worker")}

    await until_async(all_told, "what each batch does is told", 30)
    now = await read(tenant)
    assert (
        now["lhc_batch_largest_size", ("store_session", "api")]
        >= now["lhc_batch_mean_size", ("store_session", "api")]
        >= 1
    )
    assert (
        now["lhc_batch_waiting", ("store_session", "api")] == now["lhc_batch_under_way", ("store_session", "api")] == 0
    )


async def test_nobody_invents_labels(tenant: Tenant) -> None:
    http = tenant.panel.http
    for path in ("/v1/nonsense-a", "/v1/nonsense-b", "/%00"):
        await http.get(path)
    endpoints = {labels[0] for name, labels in await read(tenant) if name == "lhc_requests_total"}
    assert "other" in endpoints
    assert not any("nonsense" in endpoint or "\0" in endpoint for endpoint in endpoints)


async def test_it_is_for_monitoring_and_the_panel_alone(tenant: Tenant) -> None:
    specs: list[tuple[dict[str, Any], int]] = [
        ({"name": "prometheus", "scope": "metrics"}, 200),
        ({"name": "dashboard", "scope": "panel:read"}, 200),
        ({"name": "lhc", "scope": "tenant", "instance_name": tenant.name}, 403),
    ]
    async with httpx.AsyncClient(base_url=tenant.system.endpoints["api"]) as http:
        assert (await http.get("/metrics")).status_code == 401
        for spec, status in specs:
            token = (await tenant.panel.http.post("/v1/tokens", json=spec)).json()["token"]
            answer = await http.get("/metrics", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == status


async def test_alerts_and_dashboard_ask_for_what_there_is(tenant: Tenant) -> None:
    rules = [
        rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]
    ]
    panels = json.loads((MONITORING / "grafana.json").read_text())["panels"]
    asked = [rule["expr"] for rule in rules] + [target["expr"] for panel in panels for target in panel["targets"]]
    there = {name for name, _ in await read(tenant)}
    assert {name for expression in asked for name in _OF_OURS.findall(expression)} <= there
    page = (MONITORING.parent / "monitoring.md").read_text()
    assert all(f"`{rule['alert']}`" in page for rule in rules)


async def test_failed_logins_are_counted_by_kind_and_no_name_is_told(tenant: Tenant) -> None:
    refused = "lhc_failed_logins_total", ("refused", "operator")
    at_console = "lhc_failed_console_logins_total", ("refused",)
    before = await read(tenant)
    async with Login(Door.all_of(tenant.system.endpoints)[0], tenant.host) as login:
        assert await login.scram(tenant.lhc.name("bob"), "a guess") == "not-authorized"
    async with httpx.AsyncClient(base_url=tenant.system.endpoints["api"], timeout=30) as http:
        await Browser(http).log_in("somebody", "a guess")
    after = await read(tenant)
    assert after[refused] == before.get(refused, 0) + 1
    assert after[at_console] == before[at_console] + 1

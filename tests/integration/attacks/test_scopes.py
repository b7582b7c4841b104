"""A token opens what its scope says, and no page of the API or the console beyond."""

from collections.abc import AsyncIterator

import httpx
import pytest

from bench.testbed.panel import Panel
from tests.world.tenant_api import TenantApi

WORDS = "Rumpelstiltskin ordered a spinning wheel"


@pytest.fixture
async def http(panel: Panel) -> AsyncIterator[httpx.AsyncClient]:
    """Who bears no token yet."""
    async with httpx.AsyncClient(base_url=panel.http.base_url, timeout=30) as client:
        yield client


async def bearing(panel: Panel, scope: str) -> dict[str, str]:
    made = await panel.http.post("/v1/tokens", json={"name": scope, "scope": scope})
    assert made.status_code == 201, made.text
    return {"Authorization": f"Bearer {made.json()['token']}"}


async def operations_of(http: httpx.AsyncClient, **values: str) -> list[tuple[str, str]]:
    """Method and path of all that the API has, with these values in their places; streams left out."""
    paths = (await http.get("/openapi.json")).json()["paths"]
    return [
        (method.upper(), path.format_map({"name": "none", "operator": "none", "username": "none", **values}))
        for path, methods in paths.items()
        if path.startswith("/v1/") and not path.endswith("/events")
        for method in methods
    ]


async def test_a_token_for_metrics_reads_nothing_else(api: TenantApi, panel: Panel, http: httpx.AsyncClient) -> None:
    await api.chat("1", message=WORDS)
    prometheus = await bearing(panel, "metrics")
    assert (await http.get("/metrics", headers=prometheus)).status_code == 200
    places = {"instance_name": api.tenant.name, "chat_id": "1", "visitor_id": "1"}
    places |= dict.fromkeys(("operation_id", "token_id", "message_id", "line_id", "bulk_id"), "1")
    every = await operations_of(http, **places)
    assert len(every) > 40
    answers = {one: (await http.request(*one, headers=prometheus, json={})).status_code for one in every}
    assert {one: status for one, status in answers.items() if status != 403} == {}


async def test_a_token_for_metrics_is_no_login_at_the_console(panel: Panel, http: httpx.AsyncClient) -> None:
    token = (await bearing(panel, "metrics"))["Authorization"].removeprefix("Bearer ")
    page = await http.get("/console/login")
    csrf = page.cookies["starlette_admin_csrftoken"]
    form = {"username": "", "password": token, "csrftoken": csrf}
    refused = await http.post("/console/login", data=form)
    assert "orchestrator_console" not in refused.cookies
    assert refused.status_code != 303


async def test_who_may_look_at_the_panel_does_not_read_what_people_said(
    api: TenantApi, panel: Panel, http: httpx.AsyncClient
) -> None:
    changed = await panel.http.put(f"/v1/tenants/{api.tenant.name}", json={"history_hours": 24})
    assert changed.is_success, changed.text
    bob = await api.operator("bob")
    await api.chat("1", message=WORDS)
    await bob.reads(WORDS)
    bob.write(api.tenant.lhc.name("visitor.1.chat"), f"{WORDS}, says Bob")
    await api.tenant.receiver.message(f"{WORDS}, says Bob")
    path = f"/v1/tenants/{api.tenant.name}/chats/1/messages"

    reader = await bearing(panel, "panel:read")
    places = {"instance_name": api.tenant.name, "chat_id": "1", "username": "bob"}
    places |= dict.fromkeys(("operation_id", "token_id", "message_id", "line_id", "bulk_id", "visitor_id"), "1")
    pages = [path for method, path in await operations_of(http, **places) if method == "GET"]
    assert path in pages
    assert [page for page in pages if WORDS in (await http.get(page, headers=reader)).text] == []
    refused = await http.get(path, headers=reader)
    assert (refused.status_code, "panel:messages" in refused.json()["detail"]) == (403, True)

    support = await bearing(panel, "panel:messages")
    said = [message["body"] for message in (await http.get(path, headers=support)).json()["messages"]]
    assert said == [WORDS, f"{WORDS}, says Bob"]
    written = await http.post(path, headers=support, json={"message": "me too"})
    changed = await http.put(f"/v1/tenants/{api.tenant.name}", headers=support, json={})
    assert (written.status_code, changed.status_code) == (403, 403)
    for own in (panel.http, api.http):
        assert (await own.get(path if own is panel.http else "/chats/1/messages")).status_code == 200

"""Somebody who may read wants the password in a tenant's address; and nobody writes the mask that he was shown."""

import asyncio
import base64
import os
import subprocess
from http import HTTPStatus
from typing import Any

import pytest

from bench.testbed.system import ORCHESTRATOR, domain_of
from tenants.core.errors import InvalidInputError
from tenants.lifecycle import registry
from tenants.outbound.callback_urls import as_meant, check_no_password, shown
from tests.world.console import FORM, Browser, OpenBrowser, let_in
from tests.world.tenant import NewTenant, Tenant

WORD = "tr0ub4dor"
HIDDEN = "http://lhc:***@"


@pytest.fixture
async def guarded(new_tenant: NewTenant) -> Tenant:
    """A tenant whose LHC asks for a name and a password."""
    tenant = await new_tenant()
    url = f"http://lhc:{WORD}@{tenant.callback_host}:{tenant.receiver.port}/"
    answer = await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json={"callback_url": url})
    assert answer.json()["callback_url"].startswith(HIDDEN)
    return tenant


async def address_of(tenant: Tenant) -> str:
    async with domain_of(tenant.system) as services:
        return str((await registry.get(services, tenant.name)).callback_url)


async def test_nobody_is_shown_it(guarded: Tenant, admin: Browser, open_browser: OpenBrowser) -> None:
    panel, name = guarded.panel.http, guarded.name
    paths = (f"/v1/tenants/{name}", f"/v1/tenants?search={name}", f"/v1/tenants/{name}/audit")
    seen = [(await panel.get(path)).text for path in paths]
    for scope, tenant in (("tenant", name), ("panel:read", None)):
        wanted = {"name": "reader", "scope": scope, "instance_name": tenant}
        token = (await panel.post("/v1/tokens", json=wanted)).json()["token"]
        answer = await panel.get(f"/v1/tenants/{name}", headers={"Authorization": f"Bearer {token}"})
        assert answer.json()["callback_url"].startswith(HIDDEN)
        seen.append(answer.text)
    viewer = await let_in(admin, open_browser(), f"{name} viewer", "viewer")
    pages = (f"tenants/detail?pk={name}", f"tenant/{name}/live", f"tenants/list?q={name}")
    seen += [await viewer.text(f"/console/{page}") for page in pages]
    seen.append(await admin.text(f"/console/tenants/edit?pk={name}"))
    action = f"/console/_api/tenants/action?name=export&all=1&_list_query=?q={name}"
    seen.append((await viewer.post(action, format="csv", scope="selected")).text)
    seen.append(await asyncio.to_thread(shown_by_command, guarded))
    assert [text for text in seen if WORD in text] == []
    assert sum(HIDDEN in text for text in seen) >= 7
    asked = await viewer.http.get("/console/tenants/list", params={"filter": f"callback_url__contains={WORD[:3]}"})
    assert asked.status_code == HTTPStatus.BAD_REQUEST, "nor can it be guessed letter by letter"


def shown_by_command(tenant: Tenant) -> str:
    words = [str(ORCHESTRATOR), "tenant", "show", tenant.name, "--json"]
    environment = {**os.environ, "ORCHESTRATOR_STATE_DIR": str(tenant.system.state)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


async def test_it_opens_all_the_same(guarded: Tenant) -> None:
    await guarded.operator_online()
    callback = next(iter(guarded.callbacks()))
    assert callback.headers["authorization"] == "Basic " + base64.b64encode(f"lhc:{WORD}".encode()).decode()


async def test_what_is_shown_can_be_written_back_and_changes_nothing(guarded: Tenant, admin: Browser) -> None:
    panel, path = guarded.panel.http, f"/v1/tenants/{guarded.name}"
    before = await address_of(guarded)
    assert WORD in before
    masked = (await panel.get(path)).json()["callback_url"]
    assert (await panel.put(path, json={"callback_url": masked, "max_accounts": 9})).is_success
    moved = await panel.post(f"{path}/address", json={"callback_url": masked})
    await guarded.panel.finished(moved.json()["id"])
    form = {**FORM, "callback_url": masked, "max_accounts": "8"}
    assert (await admin.post(f"/console/tenants/edit?pk={guarded.name}", **form)).url.path == "/console/tenants/list"
    assert (await panel.get(path)).json()["max_accounts"] == 8
    assert await address_of(guarded) == before


async def test_what_is_shown_is_no_password_anywhere_else(guarded: Tenant, admin: Browser) -> None:
    panel, path = guarded.panel.http, f"/v1/tenants/{guarded.name}"
    elsewhere = "https://lhc:***@evil.example/"
    for answer in (
        await panel.put(path, json={"callback_url": elsewhere}),
        await panel.post(f"{path}/address", json={"callback_url": elsewhere}),
    ):
        assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        assert answer.json()["errors"][0]["field"] == "callback_url"
    form = {**FORM, "callback_url": elsewhere}
    refused = await admin.post(f"/console/tenants/edit?pk={guarded.name}", **form)
    assert refused.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert WORD in await address_of(guarded)


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("https://u:p@host/x", "https://u:***@host/x"),
        ("https://u:p%40:q@host", "https://u:***@host"),
        ("https://:p@host", "https://:***@host"),
        ("https://u@host/a:b@c", "https://u@host/a:b@c"),
        ("no answer from http://u:p@a/, http://host:8000/", "no answer from http://u:***@a/, http://host:8000/"),
    ],
)
def test_every_form_of_it_is_hidden(address: str, seen: str) -> None:
    assert shown(address) == seen
    assert shown(seen) == seen


def test_it_comes_by_no_celery_task() -> None:
    check_no_password("https://host/")
    with pytest.raises(InvalidInputError, match="must not hold a password here"):
        check_no_password("https://u:p@host/")


def test_a_mask_for_no_address_is_refused() -> None:
    known: Any = None
    with pytest.raises(InvalidInputError):
        as_meant("https://u:***@host/", known)

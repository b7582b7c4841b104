"""Page views without news, which the API answers from memory: what everybody else sees of them."""

import asyncio
import time
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from bench.testbed.lhc import Lhc
from bench.testbed.system import domain_of
from bench.testbed.waiting import until_async
from tenants.store.models import VisitorSession
from tests.world.tenant import NewTenant, Tenant
from tests.world.tenant_api import TenantApi

PASSWORD = "0123456789abcdef0123"
VISITOR = "visitor.1"
WINDOW = 8.0
"""Seconds: longer than `tenants.process.cache.MARGIN`, or nothing would be answered from memory."""
IN_EFFECT = 5.0
"""Seconds within which a change of a tenant takes effect."""


async def session_of(tenant: Tenant, visitor: str = VISITOR) -> tuple[int, float]:
    """The session's version, which grows with what is told to the pool, and its end."""
    async with domain_of(tenant.system) as services, services.database.read() as session:
        row = await session.scalar(select(VisitorSession).where(VisitorSession.username == tenant.lhc.name(visitor)))
    return (row.version, row.online_until) if row else (0, 0.0)


async def become_known(tenant: Tenant, lhc: Lhc | None = None) -> None:
    """Page views until one of them was answered from memory."""

    async def is_known() -> bool:
        before = await session_of(tenant)
        assert (await (lhc or tenant.lhc).page_view(VISITOR, PASSWORD, status="here")).text == "ok"
        return before[0] > 0 and (await session_of(tenant))[0] == before[0]

    await until_async(is_known, "the visitor is known")


async def test_who_views_pages_stays_and_the_pool_is_not_told_of_each(new_tenant: NewTenant) -> None:
    tenant = await new_tenant(online_seconds=WINDOW)
    bob = await tenant.operator_online()
    await become_known(tenant)
    version, _ = await session_of(tenant)
    until, last_view = time.monotonic() + 1.5 * WINDOW, 0.0
    while time.monotonic() < until:
        last_view = time.time()
        assert (await tenant.lhc.page_view(VISITOR, PASSWORD, status="here")).text == "ok"
        await asyncio.sleep(0.2)
    name = tenant.lhc.name(VISITOR)
    assert {seen.type for seen in bob.presences if seen.username == name} == {"available"}
    # a machine that stands still for seconds makes some of them go the slow way; not the fifty that there were
    assert (await session_of(tenant))[0] - version < 20
    await bob.sees(name, kind="unavailable")
    assert time.time() - last_view > WINDOW - 1


async def test_news_and_a_wrong_password_are_never_answered_from_memory(new_tenant: NewTenant) -> None:
    tenant = await new_tenant(online_seconds=300)
    bob = await tenant.operator_online()
    await become_known(tenant)
    name = tenant.lhc.name(VISITOR)
    assert (await tenant.lhc.page_view(VISITOR, "wrong", status="by somebody else")).text == "ok"
    await tenant.lhc.page_view(VISITOR, PASSWORD, status="there")
    await bob.sees(name, status="there")
    await tenant.lhc.page_view(VISITOR, PASSWORD, status="there", nick="Ann")
    await bob.sees(name, status="there", nick="Ann")
    assert "by somebody else" not in {seen.status for seen in bob.presences}


async def test_a_visitor_whose_account_was_removed_is_made_anew(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    await become_known(tenant)
    name = tenant.lhc.name(VISITOR)
    await tenant.lhc.call("/xmpp-unregister", user=name, host=tenant.host)
    await bob.sees(name, kind="unavailable")
    assert (await tenant.lhc.page_view(VISITOR, PASSWORD, status="here")).text == "ok"
    assert name in await tenant.system.users_of(tenant.name)


async def test_a_tenant_that_is_suspended_is_refused_within_seconds_and_served_again(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    await become_known(tenant)
    suspended = await tenant.panel.http.post(f"/v1/tenants/{tenant.name}/suspend")
    await tenant.panel.finished(suspended.json()["id"])

    async def is_refused() -> bool:
        return "not active" in (await tenant.lhc.page_view(VISITOR, PASSWORD, status="here")).text

    await until_async(is_refused, "page views are refused", IN_EFFECT)
    await bob.sees(tenant.lhc.name(VISITOR), kind="unavailable")
    resumed = await tenant.panel.http.post(f"/v1/tenants/{tenant.name}/resume")
    await tenant.panel.finished(resumed.json()["id"])
    # the suspension ended his session
    bob = await tenant.online("bob")

    async def is_seen() -> bool:
        await tenant.lhc.page_view(VISITOR, PASSWORD, status="here")
        return any(seen.type == "available" for seen in bob.presences)

    await until_async(is_seen, "the visitor is seen again")


async def test_a_key_that_was_rotated_is_refused_within_seconds(tenant: Tenant) -> None:
    await become_known(tenant)
    rotated = await tenant.panel.http.post(f"/v1/tenants/{tenant.name}/rotate-keys", json={"overlap_seconds": 0})
    await tenant.panel.finished(rotated.json()["operation"]["id"])

    async def is_refused() -> bool:
        return (await tenant.lhc.page_view(VISITOR, PASSWORD, status="here")).status_code == 403

    await until_async(is_refused, "the old key is refused", IN_EFFECT)
    base = f"{tenant.system.endpoints['api']}/t/{tenant.name}"
    lhc = Lhc(tenant.name, base=base, secret_key=rotated.json()["secret_key"], host=tenant.host)
    assert (await lhc.page_view(VISITOR, PASSWORD, status="here")).text == "ok"


async def test_calls_are_counted_that_are_answered_from_memory(tenant: Tenant) -> None:
    await become_known(tenant)
    await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json={"calls_per_second": 0.001})

    async def is_refused() -> bool:
        return (await tenant.lhc.page_view(VISITOR, PASSWORD, status="here")).status_code == 429

    await until_async(is_refused, "a call too many is refused", IN_EFFECT)


async def test_the_hosting_key_opens_at_the_root(tenant: Tenant) -> None:
    endpoints = tenant.system.endpoints
    root = Lhc(tenant.name, base=endpoints["api"], secret_key=endpoints["hosting_key"], host=tenant.host)
    await become_known(tenant, root)
    stranger = Lhc(tenant.name, base=endpoints["api"], secret_key=tenant.key, host=tenant.host)
    assert (await stranger.page_view(VISITOR, PASSWORD, status="here")).status_code == 403


async def test_what_is_no_object_of_strings_is_judged_as_ever(tenant: Tenant) -> None:
    await become_known(tenant)
    jid = f"{tenant.lhc.name(VISITOR)}@{tenant.host}"
    known = f'"jid":"{jid}","pass":"{PASSWORD}","nick":"Online visitor","status":"here","secret_key":"{tenant.key}"'
    for body, status in (
        (b"{" + known.encode() + b"}", 200),
        (b"{" + known.encode() + b',"x":"\xff"}', 400),
        (b"{" + known.encode() + b',"x":NaN}', 400),
        (b"{" + known.encode() + b"} x", 400),
        (b"[]", 403),
        (b"", 403),
        (b"{" + known.encode() + b',"x":"' + b"x" * 103_000 + b'"}', 413),
    ):
        answer = await tenant.lhc.post("/xmpp", body)
        assert answer.status_code == status, (body[-20:], answer.text)
    answer = await tenant.lhc.post("/xmpp", "{" + known + ',"host":5}')
    assert answer.json() == {"error": True, "msg": "host: must be a string"}


async def view(api: TenantApi, **said: Any) -> httpx.Response:
    """A page view through the tenant's own API."""
    return await api.http.post("/visitors/1/pageviews", json=said or {"page": "here"})


async def become_known_natively(api: TenantApi) -> None:
    async def is_known() -> bool:
        before = await session_of(api.tenant)
        assert (await view(api)).status_code == 202
        return before[0] > 0 and (await session_of(api.tenant))[0] == before[0]

    await until_async(is_known, "the visitor is known")


async def test_a_tenants_own_page_views_are_answered_from_memory_as_ever(api: TenantApi) -> None:
    bob = await api.tenant.operator_online()
    name = api.tenant.lhc.name(VISITOR)
    made = await view(api)
    await become_known_natively(api)
    known = await view(api)
    for answer in (made, known):
        assert answer.status_code == 202
        assert answer.headers["content-type"] == "application/json"
    first, last = made.json(), known.json()
    assert first.pop("online_until") < last.pop("online_until")
    assert first == last == {"username": name, "status": "Page: here"}
    await bob.sees(name, status="Page: here")
    news = {"page": "there\r\n", "city": "Rome", "visits": 3, "nick": "Ann \U0001f600"}
    assert (await view(api, **news)).json()["status"] == "Page: there\n| Location: Rome\n| Visits: 3"
    await bob.sees(name, status="Page: there\n| Location: Rome\n| Visits: 3", nick="Ann \U0001f600")


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"page": "x" * 2001}, "page"),
        ({"page": "bell \x07"}, "page"),
        ({"nick": ""}, "nick"),
        ({"visits": 1.5}, "visits"),
        ({"visits": -1}, "visits"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_bad_page_views_of_a_known_visitor_are_refused(api: TenantApi, said: dict[str, Any], field: str) -> None:
    await become_known_natively(api)
    before = await session_of(api.tenant)
    answer = await view(api, **said)
    assert answer.status_code == 422
    assert field in answer.text
    assert (await session_of(api.tenant))[0] == before[0]


async def test_a_known_visitor_opens_no_door(api: TenantApi, new_tenant: NewTenant) -> None:
    await become_known_natively(api)
    other = await new_tenant(routing="orchestrator")
    path = f"/v1/tenants/{api.tenant.name}/visitors/1/pageviews"
    tokens = {
        "Bearer nonsense": 401,
        f"Basic {api.token}": 401,
        f"Bearer {api.token}x": 401,
        f"Bearer {await token_of(other)}": 404,
    }
    async with httpx.AsyncClient(base_url=api.tenant.system.endpoints["api"]) as http:
        for header, status in tokens.items():
            answer = await http.post(path, json={"page": "here"}, headers={"Authorization": header})
            assert answer.status_code == status, header
    # as its own visitor, put together otherwise
    assert (await api.http.post(f"/visitors/1.{api.tenant.name}/pageviews", json={"page": "here"})).status_code == 422


async def test_a_repeated_page_view_of_a_known_visitor_is_answered_once(api: TenantApi) -> None:
    await become_known_natively(api)
    headers = {"Idempotency-Key": "once"}
    for replayed in (None, "true"):
        answer = await api.http.post("/visitors/1/pageviews", json={"page": "there"}, headers=headers)
        assert answer.headers.get("idempotent-replayed") == replayed
        await view(api, page="elsewhere")
    assert (await api.http.post("/visitors/1/pageviews", json={"page": "x"}, headers=headers)).status_code == 422


async def test_a_revoked_token_opens_a_known_visitors_door_for_seconds_at_most(api: TenantApi) -> None:
    await become_known_natively(api)
    made = await api.tenant.panel.http.get("/v1/tokens", params={"instance_name": api.tenant.name})
    await api.tenant.panel.http.delete(f"/v1/tokens/{made.json()['tokens'][0]['id']}")

    async def is_refused() -> bool:
        return (await view(api)).status_code == 401

    await until_async(is_refused, "the token opens nothing", IN_EFFECT)


async def token_of(tenant: Tenant) -> str:
    spec = {"name": "lhc", "scope": "tenant", "instance_name": tenant.name}
    made = await tenant.panel.http.post("/v1/tokens", json=spec)
    return str(made.json()["token"])

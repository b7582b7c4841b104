"""A tenant's quotas as its LHC meets them."""

from xmlrpc.client import Fault

import httpx
import pytest

from bench.testbed.lhc import Lhc, rpc
from bench.testbed.waiting import until_async
from tests.world.tenant import NewTenant, Tenant

PASSWORD = "0123456789abcdef0123"


@pytest.fixture
async def slow(new_tenant: NewTenant) -> Tenant:
    """A tenant that may make one page view and one other call in a long time, and made both."""
    tenant = await new_tenant(calls_per_second=0.001)
    assert (await tenant.lhc.page_view("visitor.1", PASSWORD)).text == "ok"
    await tenant.lhc.call("/xmpp-unregister", user=tenant.lhc.name("visitor.2"), host=tenant.host)
    return tenant


def told_to_wait(answer: httpx.Response, msg: str) -> bool:
    assert answer.json() == {"error": True, "msg": msg}
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["Retry-After"]) > 0
    return answer.status_code == 429


@pytest.mark.parametrize("endpoint", ["/xmpp", "/xmpp-unregister", "/xmpp-does-shared-roaster-exists"])
async def test_a_call_too_many_is_refused_at_each_endpoint(slow: Tenant, endpoint: str) -> None:
    keys = {"jid": f"{slow.lhc.name('visitor.1')}@{slow.host}", "user": slow.lhc.name("visitor.1")}
    answer = await slow.lhc.call(endpoint, **keys, group=f"visitors.{slow.name}", host=slow.host)
    counted = "page views" if endpoint == "/xmpp" else "other calls"
    assert told_to_wait(answer, f"tenant '{slow.name}' may make 0.001 {counted} a second")
    assert 900 < int(answer.headers["Retry-After"]) <= 1000


async def test_a_call_too_many_over_xml_rpc_is_a_fault(slow: Tenant) -> None:
    endpoints = slow.system.endpoints
    of_the_hoster = {"user": endpoints["rpc_user"], "server": slow.host, "password": endpoints["rpc_password"]}
    of_the_tenant = {"user": slow.name, "server": slow.host, "password": slow.key}
    for credentials in (of_the_hoster, of_the_tenant):
        with pytest.raises(Fault, match=f"tenant '{slow.name}' may make 0.001 other calls a second") as fault:
            await rpc(
                f"{endpoints['api']}/rpc",
                credentials,
                "user_sessions_info",
                user=slow.lhc.name("visitor.1"),
                host=slow.host,
            )
        assert fault.value.faultCode == -118


async def test_calls_with_the_hosting_key_count_for_the_tenant_that_they_name(
    slow: Tenant, new_tenant: NewTenant
) -> None:
    endpoints, other = slow.system.endpoints, await new_tenant()
    for tenant, refused in ((slow, True), (other, False)):
        root = Lhc(tenant.name, base=endpoints["api"], secret_key=endpoints["hosting_key"], host=tenant.host)
        answers = [
            await root.page_view("visitor.1", PASSWORD),
            await root.call("/xmpp-unregister", user=root.name("visitor.1"), host=root.host),
            await root.call("/xmpp-does-shared-roaster-exists", group=f"visitors.{tenant.name}", host=root.host),
        ]
        assert [answer.status_code for answer in answers] == [429 if refused else 200] * 3


async def test_a_limit_next_to_nothing_is_tried_again_in_an_hour(new_tenant: NewTenant) -> None:
    tenant = await new_tenant(calls_per_second=5e-324)
    assert (await tenant.lhc.page_view("visitor.1", PASSWORD)).text == "ok"
    assert (await tenant.lhc.page_view("visitor.1", PASSWORD)).headers["Retry-After"] == "3600"


async def test_messages_come_through_beside_too_many_page_views(new_tenant: NewTenant) -> None:
    tenant = await new_tenant()
    bob = await tenant.operator_online()
    assert (await tenant.lhc.new_visitor("visitor.1", PASSWORD)).json() == {"error": False, "msg": ""}
    await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json={"calls_per_second": 0.5})

    async def refused() -> bool:
        return (await tenant.lhc.page_view("visitor.1", PASSWORD)).status_code == 429

    await until_async(refused, "the limit is known")
    assert (await tenant.lhc.visitor_writes("visitor.1", PASSWORD, "bob", "still heard")).text == "ok"
    await bob.reads("still heard")


async def test_a_wrong_key_uses_nothing_up(new_tenant: NewTenant) -> None:
    tenant = await new_tenant(calls_per_second=0.001)
    stranger = Lhc(tenant.name, base=f"{tenant.system.endpoints['api']}/t/{tenant.name}", secret_key="x", host="")
    assert (await stranger.page_view("visitor.1", PASSWORD)).status_code == 403
    assert (await tenant.lhc.page_view("visitor.1", PASSWORD)).text == "ok"


async def test_a_limit_that_is_lifted_is_none(slow: Tenant) -> None:
    await slow.panel.http.put(f"/v1/tenants/{slow.name}", json={"calls_per_second": None})

    async def admitted() -> bool:
        return (await slow.lhc.page_view("visitor.1", PASSWORD)).text == "ok"

    await until_async(admitted, "the limit is lifted")


async def test_one_visitor_too_many(new_tenant: NewTenant) -> None:
    tenant = await new_tenant(max_online_visitors=2)
    lhc, bob = tenant.lhc, await tenant.operator_online()
    msg = f"tenant '{tenant.name}' may have 2 visitors online"
    for visitor in ("visitor.1", "visitor.2"):
        assert (await lhc.new_visitor(visitor, PASSWORD)).json() == {"error": False, "msg": ""}
    assert told_to_wait(await lhc.new_visitor("visitor.3", PASSWORD), msg)
    assert told_to_wait(await lhc.page_view("visitor.3", PASSWORD), msg)
    assert lhc.name("visitor.3") not in await tenant.system.users_of(tenant.name)
    assert (await lhc.page_view("visitor.1", PASSWORD, status="still here")).text == "ok"
    await bob.sees(lhc.name("visitor.1"), status="still here")
    # somebody waits for an answer in a chat
    assert (await lhc.new_visitor("visitor.3.chat", PASSWORD)).json() == {"error": False, "msg": ""}
    await bob.sees(lhc.name("visitor.3.chat"))
    await lhc.call("/xmpp-unregister", user=lhc.name("visitor.2"), host=tenant.host)
    assert (await lhc.page_view("visitor.3", PASSWORD)).text == "ok"


async def test_one_account_too_many(new_tenant: NewTenant) -> None:
    tenant = await new_tenant(max_accounts=2)
    lhc = tenant.lhc
    msg = f"tenant '{tenant.name}' may have 2 accounts"
    await lhc.new_operator("bob", "operator-pw")
    assert (await lhc.new_visitor("visitor.1", PASSWORD)).json() == {"error": False, "msg": ""}
    another = await lhc.call("/xmpp-register", user=lhc.name("ann"), host=tenant.host, password="operator-pw")
    assert told_to_wait(another, msg)
    assert told_to_wait(await lhc.new_visitor("visitor.2", PASSWORD), msg)
    assert told_to_wait(await lhc.page_view("visitor.2", PASSWORD), msg)
    await lhc.new_operator("bob", "operator-pw")
    assert await tenant.system.users_of(tenant.name) == sorted([lhc.name("bob"), lhc.name("visitor.1")])

"""People of a suspended tenant: logged in all the while, they used what nobody pays for."""

import pytest

from bench.testbed.browser import Browser
from bench.testbed.waiting import until
from tests.world.tenant import Tenant

PASSWORD = "0123456789abcdef0123"


async def do(tenant: Tenant, action: str) -> None:
    answer = await tenant.panel.http.post(f"/v1/tenants/{tenant.name}/{action}")
    await tenant.panel.finished(answer.json()["id"])


async def is_kept_out(tenant: Tenant) -> None:
    bob = tenant.operator("bob")
    with pytest.raises(PermissionError):
        await bob.connect()
    await bob.leave()
    with pytest.raises(AssertionError, match="account-disabled"):
        await browser_of(tenant).__aenter__()


def browser_of(tenant: Tenant) -> Browser:
    return Browser(tenant.system.endpoints["websocket"], tenant.lhc.name("visitor.1"), tenant.host, PASSWORD)


async def test_nobody_of_a_suspended_tenant_is_logged_in(tenant: Tenant) -> None:
    lhc = tenant.lhc
    bob, phone = await tenant.operator_online(), await tenant.online("bob", resource="phone")
    await lhc.new_operator("ann", "operator-pw")
    await lhc.new_visitor("visitor.1", PASSWORD)
    await bob.sees(lhc.name("visitor.1"))
    await lhc.visitor_writes("visitor.1", PASSWORD, "ann", f"for later {tenant.name}")
    async with browser_of(tenant) as browser:
        await do(tenant, "suspend")
        for device in (bob, phone):
            await until(device.disconnected.is_set, "the operator is disconnected")
        await until(lambda: browser.is_closed, "the browser is disconnected")
    await is_kept_out(tenant)
    # who sees that ejabberd lets them in all the same puts it right
    await tenant.system.ejabberd("lhc_open_tenant", host=tenant.host, tenant=tenant.name)
    async with tenant.operator("bob"):
        pass
    answer = await tenant.panel.http.post(f"/v1/tenants/{tenant.name}/reconcile")
    await tenant.panel.finished(answer.json()["id"])
    await is_kept_out(tenant)

    await do(tenant, "resume")
    ann = await tenant.online("ann")
    await ann.reads(f"for later {tenant.name}")
    bob = await tenant.online("bob")
    assert (await lhc.page_view("visitor.1", PASSWORD)).text == "ok"
    await bob.sees(lhc.name("visitor.1"))


async def test_who_is_called_as_a_suspended_tenant_was_is_not_suspended(tenant: Tenant) -> None:
    await do(tenant, "suspend")
    assert tenant.name in await tenant.system.ejabberd("lhc_shut_tenants", host=tenant.host)
    await tenant.panel.destroy(tenant.name)
    assert tenant.name not in await tenant.system.ejabberd("lhc_shut_tenants", host=tenant.host)

"""New visitors who come at the same time: all of them are accounts, contacts and online; what is not theirs is left."""

import asyncio

from tests.world.tenant import NewTenant, Tenant

PASSWORD = "0123456789abcdef0123"
OTHER = "another-0123456789ab"


async def test_many_visitors_of_several_tenants_come_at_once(new_tenant: NewTenant) -> None:
    tenants = [await new_tenant() for _ in range(3)]
    operators = [await tenant.operator_online() for tenant in tenants]
    visitors = [f"visitor.{number}" for number in range(1, 21)]
    answers = await asyncio.gather(
        *(tenant.lhc.page_view(visitor, PASSWORD, status="here") for tenant in tenants for visitor in visitors)
    )
    assert {answer.text for answer in answers} == {"ok"}
    for tenant, bob in zip(tenants, operators, strict=True):
        names = {tenant.lhc.name(visitor) for visitor in visitors}
        for name in names:
            await bob.sees(name, status="here")
        assert names <= set(await tenant.system.users_of(tenant.name))
        assert names <= await contacts(tenant)


async def test_a_visitor_who_comes_twice_at_once_is_made_once(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    answers = await asyncio.gather(
        *(tenant.lhc.page_view("visitor.1", password, status="here") for password in [PASSWORD, OTHER] * 5)
    )
    assert {answer.text for answer in answers} == {"ok"}
    name = tenant.lhc.name("visitor.1")
    await bob.sees(name, status="here")
    right = [password for password in (PASSWORD, OTHER) if await knows(tenant, name, password)]
    assert len(right) == 1


async def test_an_account_that_the_registry_does_not_know_is_left_as_it_is(tenant: Tenant) -> None:
    name = tenant.lhc.name("visitor.1")
    await tenant.system.ejabberd("register", user=name, host=tenant.host, password=OTHER)
    answers = await asyncio.gather(
        tenant.lhc.page_view("visitor.1", PASSWORD), tenant.lhc.page_view("visitor.2", PASSWORD)
    )
    assert "already registered" in answers[0].text
    assert answers[1].text == "ok"
    assert await knows(tenant, name, OTHER)


async def contacts(tenant: Tenant) -> set[str]:
    """The members of the tenant's roster of visitors."""
    members = await tenant.system.ejabberd("srg_get_members", group=f"visitors.{tenant.name}", host=tenant.host)
    return {member.partition("@")[0] for member in members}


async def knows(tenant: Tenant, username: str, password: str) -> bool:
    """Whether ejabberd takes the password."""
    code = await tenant.system.ejabberd("check_password", user=username, host=tenant.host, password=password)
    return bool(code == 0)

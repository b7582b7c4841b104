"""Tokens of the API in the registry, on both databases: what opens, for how long, and what is kept of them."""

import asyncio

import pytest
from sqlalchemy import select

from tenants.access import tokens
from tenants.core.errors import InvalidInputError, NotFoundError
from tenants.lifecycle import audit, incarnations, registry
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.registry import TenantSpec
from tenants.store.models import Scope, Tenant, TenantState, Token
from tests.world.registry import World

PANEL = Cause("panel")


async def make(world: World, name: str = "dashboard") -> tuple[Token, str]:
    return await tokens.create(world.services, name=name, scope=Scope.PANEL_READ, created_by="panel")


async def stored(world: World, token_id: str) -> Token:
    async with world.services.database.read() as session:
        return await session.get_one(Token, token_id)


async def test_a_token_opens_and_is_kept_as_a_digest(world: World) -> None:
    token, shown = await make(world)
    opened = await tokens.check(world.services, shown)
    assert opened is not None
    assert (opened.id, opened.name, opened.scope) == (token.id, "dashboard", Scope.PANEL_READ)
    secret = shown.removeprefix(f"lhc_{token.id}_")
    assert len(secret) == 43
    row = await stored(world, token.id)
    assert not [value for value in vars(row).values() if isinstance(value, str) and secret in value]


async def test_what_is_not_the_token_opens_nothing(world: World) -> None:
    token, shown = await make(world)
    _, other = await make(world, "other")
    swapped = f"lhc_{token.id}_{other[21:]}"
    for wrong in ("", "lhc", shown[:-1], shown.upper(), f"{shown} ", f"lhc_{'0' * 16}_{shown[21:]}", swapped, "lhc_\0"):
        assert await tokens.check(world.services, wrong) is None, wrong


async def test_a_revoked_token_opens_nothing_and_revoking_twice_is_one(world: World) -> None:
    token, shown = await make(world)
    for _ in range(2):
        revoked = await tokens.revoke(world.services, token.id, Cause("panel", "lost laptop"))
        assert revoked.revoked_at == world.clock.now
    assert await tokens.check(world.services, shown) is None
    log = [(entry.action, entry.actor, entry.reason) for entry in await audit.entries(world.services.database)]
    assert log == [
        ("token revoked", "panel", f"{token.id} for dashboard: lost laptop"),
        ("token created", "panel", f"{token.id} (panel:read) for dashboard"),
    ]
    with pytest.raises(NotFoundError):
        await tokens.revoke(world.services, "none", PANEL)


async def test_an_expired_token_opens_nothing(world: World) -> None:
    now = world.clock.now
    _, shown = await tokens.create(
        world.services, name="short", scope=Scope.PANEL_WRITE, created_by="panel", expires_at=now + 10
    )
    world.clock.now = now + 9.9
    assert await tokens.check(world.services, shown) is not None
    world.clock.now = now + 10
    assert await tokens.check(world.services, shown) is None


async def test_the_last_use_is_noted_once_a_minute(world: World) -> None:
    token, shown = await make(world)
    began = world.clock.now

    async def used_at(moment: float) -> float | None:
        world.clock.now = moment
        await asyncio.gather(*(tokens.check(world.services, shown) for _ in range(3)))
        return (await stored(world, token.id)).last_used_at

    assert (await stored(world, token.id)).last_used_at is None
    assert await used_at(began + 1) == began + 1
    assert await used_at(began + 60) == began + 1
    assert await used_at(began + 61) == began + 61


async def test_the_token_of_a_tenant_is_for_one_that_there_is_and_goes_with_it(world: World) -> None:
    async def make_own() -> tuple[Token, str]:
        return await tokens.create(
            world.services, name="lhc", scope=Scope.TENANT, instance_name="acme", created_by="panel"
        )

    with pytest.raises(InvalidInputError, match="instance_name: must be the name of a tenant"):
        await make_own()
    await registry.put(world.services, "acme", TenantSpec(), PANEL)
    token, shown = await make_own()
    assert [one.id for one in await tokens.find(world.services.database, instance_name="acme")] == [token.id]

    async with world.services.database.write() as session:
        tenant = await session.get_one(Tenant, "acme")
        tenant.state = TenantState.DESTROYING
    with pytest.raises(InvalidInputError):
        await make_own()
    async with world.services.database.write() as session:
        await incarnations.forget(world.services, session, "acme", PANEL)
    assert await tokens.check(world.services, shown) is None
    async with world.services.database.read() as session:
        assert list(await session.scalars(select(Token))) == []


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"scope": Scope.TENANT}, "instance_name"),
        ({"instance_name": "acme"}, "instance_name"),
        ({"expires_at": 1.0}, "expires_at"),
        ({"expires_at": 1e11}, "expires_at"),
    ],
)
async def test_a_wrong_token_is_refused_by_its_field(world: World, wrong: dict[str, object], field: str) -> None:
    wanted = {"name": "x", "scope": Scope.PANEL_READ, "created_by": "panel", **wrong}
    with pytest.raises(InvalidInputError) as refused:
        await tokens.create(world.services, **wanted)  # type: ignore[arg-type]
    assert refused.value.field == field
    assert await tokens.find(world.services.database) == []


async def test_tokens_are_listed_in_pages(world: World) -> None:
    made = []
    for number in range(5):
        world.clock.now += number % 2  # two were made at the same moment
        made.append((await make(world, str(number)))[0].id)
    pages: list[str] = []
    after = None
    while page := await tokens.find(world.services.database, after=after, limit=2):
        pages += [token.id for token in page]
        after = pages[-1]
    assert sorted(pages) == sorted(made)
    assert pages == [token.id for token in await tokens.find(world.services.database)]
    await tokens.revoke(world.services, made[0], PANEL)
    assert made[0] not in {token.id for token in await tokens.find(world.services.database)}
    assert made[0] in {token.id for token in await tokens.find(world.services.database, revoked=True)}

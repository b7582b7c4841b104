"""Leases of shards, on both databases: who holds what, for how long, and that a holder of yesterday changes nothing."""

import asyncio

import pytest

from bench.testbed.waiting import until
from tenants.conversations import operator_presence
from tenants.core.naming import AccountKind, AccountName
from tenants.process import leases
from tenants.process.leases import HANDOVER, TERM, Lease, LeaseLostError, Taken
from tenants.shards.commands import shard_of
from tests.world.registry import World
from xmpp_pool.shards import Shards

BOB = AccountName(AccountKind.OPERATOR, "bob", "acme")
SHARDS = 64


@pytest.fixture
async def prepared(world: World) -> World:
    await leases.prepare(world.services)
    await leases.prepare(world.services)
    return world


async def take(world: World, name: str, at_most: int = SHARDS) -> list[Lease]:
    return [one.lease for one in await leases.take(world.services, name, at_most)]


async def test_each_shard_has_one_holder(prepared: World) -> None:
    mine = await take(prepared, "a", 40)
    others = await take(prepared, "b")
    assert len(mine) == 40
    assert {lease.shard for lease in mine} | {lease.shard for lease in others} == set(range(SHARDS))
    assert await take(prepared, "c") == []
    assert await leases.count_held(prepared.services) == SHARDS


async def test_a_shard_that_changes_hands_is_served_and_one_that_nobody_takes_is_not(prepared: World) -> None:
    mine = await take(prepared, "a")
    await leases.release(prepared.services, "a", [lease.shard for lease in mine[:32]])
    assert await leases.count_held(prepared.services) == 32
    assert await leases.count_served(prepared.services) == SHARDS
    prepared.clock.now += HANDOVER
    assert await leases.count_served(prepared.services) == 32
    # nobody gave these away: their holder is gone
    prepared.clock.now += TERM - HANDOVER
    assert await leases.count_served(prepared.services) == 0


async def test_many_who_take_at_once_share_without_overlap(prepared: World) -> None:
    taken = await asyncio.gather(*(take(prepared, f"p{number}", 20) for number in range(5)))
    shards = [lease.shard for one in taken for lease in one]
    assert len(shards) == len(set(shards))


async def test_who_renews_keeps_and_who_does_not_loses(prepared: World) -> None:
    mine = await take(prepared, "a", 10)
    theirs = await take(prepared, "b", 10)
    prepared.clock.now += TERM - 1
    assert (await leases.renew(prepared.services, "a", mine)).kept == {lease.shard for lease in mine}
    prepared.clock.now += 1
    # a deserter is named: its connection is to be cut before anybody acts in its stead
    taken = await leases.take(prepared.services, "c", SHARDS)
    assert len(taken) == SHARDS - 10
    assert {one.lease.shard for one in taken if one.deserted_by == "b"} == {lease.shard for lease in theirs}
    assert {one.deserted_by for one in taken} == {"b", None}
    assert (await leases.renew(prepared.services, "b", theirs)).kept == frozenset()


async def test_a_lease_that_nobody_took_can_be_renewed_late(prepared: World) -> None:
    mine = await take(prepared, "a", 10)
    prepared.clock.now += 10 * TERM
    assert (await leases.renew(prepared.services, "a", mine)).kept == {lease.shard for lease in mine}


async def test_what_was_released_is_free_at_once_and_not_deserted(prepared: World) -> None:
    mine = await take(prepared, "a")
    await leases.release(prepared.services, "a", [lease.shard for lease in mine[:5]])
    taken = await leases.take(prepared.services, "b", SHARDS)
    assert {one.lease.shard for one in taken} == {lease.shard for lease in mine[:5]}
    assert {one.deserted_by for one in taken} == {None}
    # nobody can release what is another's
    await leases.release(prepared.services, "a", [one.lease.shard for one in taken])
    assert await leases.count_held(prepared.services) == SHARDS


async def test_members_are_counted_while_they_say_so(prepared: World) -> None:
    assert (await leases.renew(prepared.services, "a", [])).members == 1
    assert (await leases.renew(prepared.services, "b", [])).members == 2
    prepared.clock.now += TERM
    assert (await leases.renew(prepared.services, "a", [])).members == 1
    await leases.renew(prepared.services, "b", [])
    await leases.release(prepared.services, "b", [], leaving=True)
    assert (await leases.renew(prepared.services, "a", [])).members == 1


async def test_a_holder_of_yesterday_tells_lhc_nothing(prepared: World) -> None:
    shard = shard_of("acme", SHARDS)
    old = next(lease for lease in await take(prepared, "a") if lease.shard == shard)
    await operator_presence.operator_changed(prepared.services, BOB, online=True, lease=old)
    prepared.clock.now += TERM
    new = next(lease for lease in await take(prepared, "b") if lease.shard == shard)
    assert new.token > old.token
    with pytest.raises(LeaseLostError):
        await operator_presence.operator_changed(prepared.services, BOB, online=False, lease=old)
    assert [one.username for one in await operator_presence.online_operators(prepared.services.database)] == [
        "bob.acme"
    ]
    await operator_presence.operator_changed(prepared.services, BOB, online=False, lease=new)
    assert await operator_presence.online_operators(prepared.services.database) == []


async def test_to_take_a_shard_back_does_not_revive_the_old_token(prepared: World) -> None:
    (old,) = await take(prepared, "a", 1)
    await leases.release(prepared.services, "a", [old.shard])
    again = next(lease for lease in await take(prepared, "a") if lease.shard == old.shard)
    assert (await leases.renew(prepared.services, "a", [old])).kept == frozenset()
    assert (await leases.renew(prepared.services, "a", [again])).kept == {old.shard}


async def test_a_process_that_was_frozen_serves_nothing_and_begins_anew(prepared: World) -> None:
    """Whether it wakes up before it looks at its clock, or between that and the renewal."""
    monotonic, freeze_before_renewal = [100.0], [0.0]
    dropped: list[set[int]] = []

    def fit() -> bool:
        monotonic[0] += freeze_before_renewal[0]
        freeze_before_renewal[0] = 0.0
        return True

    async def restore(taken: list[Taken]) -> None:
        shards.opened({one.lease.shard for one in taken})

    async def drop(lost: set[int]) -> None:
        dropped.append(lost)

    async def flush() -> None:
        return

    shards = Shards(
        prepared.services, "a", fit=fit, restore=restore, drop=drop, flush=flush, monotonic=lambda: monotonic[0]
    )
    running = asyncio.create_task(shards.run())
    try:
        await until(lambda: shards.serves("acme"), "it serves")
        before = shards.lease_of("acme")
        monotonic[0] += TERM
        assert not shards.serves("acme")
        prepared.clock.now += TERM
        await until(lambda: dropped and shards.serves("acme"), "it serves again")
        after = shards.lease_of("acme")
        assert before is not None
        assert after is not None
        assert after.token > before.token
        assert dropped == [set(range(SHARDS))]

        freeze_before_renewal[0] = TERM
        await until(lambda: len(dropped) == 2 and shards.serves("acme"), "it serves once more")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert await leases.count_held(prepared.services) == 0

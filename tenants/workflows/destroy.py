"""Steps that remove all that a tenant has, in ejabberd and in the registry. Each may run twice."""

import asyncio
from collections.abc import Mapping, Sequence

from sqlalchemy import delete

from tenants.conversations import rooms
from tenants.core.chunks import chunks
from tenants.core.errors import DomainError
from tenants.core.text import first_of
from tenants.lifecycle import hosts, incarnations, operations, served_hosts
from tenants.lifecycle.engine import Run
from tenants.shards.commands import CloseTenant
from tenants.store.models import Account, OperationKind
from tenants.workflows import belongings, move

_REPORTS = 20
"""Reports of progress that a removal makes at least, when the tenant has as many accounts."""
_PARALLEL = 2
"""Calls under way at once, each with one chunk of accounts. More would slow down other tenants, and not be quicker."""
_CHUNK = 50
"""Accounts in one chunk. With larger chunks a removal is quicker, but other tenants wait longer."""


class LeftoverError(DomainError):
    """Something of a destroyed tenant is still in ejabberd."""


async def clear_other_hosts(run: Run) -> None:
    """What is on another host because a move to or from it has ended halfway."""
    services, name = run.services, run.instance_name
    own = await hosts.of(services, name)
    moves = await operations.find(services.database, instance_name=name, kind=OperationKind.MOVE)
    others = {host for one in moves if one.input for host in (one.input["from"], one.input["to"])} - {own}
    for host in sorted(others & set(await served_hosts.up(services))):
        await move.clear(services, name, services.ejabberd.at(host), drain=False)


async def remove_rooms(run: Run) -> None:
    """Remove the rooms of the registry, and any that only bears the tenant's name. Whoever is in one is told."""
    found = await belongings.rooms(run.services, run.instance_name)
    left = await rooms.remove_all(run.services, run.instance_name, found)
    _check_nothing(dict.fromkeys(left, "a room"))


async def remove_accounts(run: Run) -> None:
    """Remove every account of the tenant: of its rosters, of the registry, and any that only bears its name.

    Operators first: nobody is online any more to be told of each visitor that goes.
    """
    services, ejabberd = run.services, await run.ejabberd()
    usernames = await belongings.usernames(services, run.instance_name)
    ordered = belongings.operators_first(services.naming, usernames)
    await run.report(0, len(ordered))
    left: dict[str, str] = {}
    done = 0
    for wave in chunks(_calls(ordered), _PARALLEL):
        for answer in await asyncio.gather(*(ejabberd.bulk.remove_users(chunk) for chunk in wave)):
            left |= answer
        await _forget_accounts(run, [username for chunk in wave for username in chunk if username not in left])
        done += sum(map(len, wave))
        await run.report(done, len(ordered))
    _check_nothing(left)


async def remove_rosters(run: Run) -> None:
    ejabberd = await run.ejabberd()
    for group in belongings.groups(run.services.naming, run.instance_name):
        await ejabberd.delete_roster(group)


async def verify(run: Run) -> None:
    services, instance_name, bulk = run.services, run.instance_name, (await run.ejabberd()).bulk
    if not services.naming.is_foreign(instance_name):
        # else what waits is to nobody, and goes back to who wrote it
        await bulk.forget_tenant(services.naming.username_suffix(instance_name))
    # the next tenant of this name must not be suspended
    await bulk.open_tenant(instance_name)
    if await belongings.left(services, instance_name):
        # made by a request that came in just before the door was closed
        await remove_rooms(run)
        await remove_accounts(run)
        await remove_rosters(run)
    _check_nothing(await belongings.left(services, instance_name))


async def forget(run: Run) -> None:
    # once more: a page view that was accepted just before the door was closed may have come after the first
    await run.services.commands.publish(CloseTenant(instance_name=run.instance_name))
    async with run.write() as session:
        await incarnations.forget(run.services, session, run.instance_name, run.cause)


async def _forget_accounts(run: Run, usernames: Sequence[str]) -> None:
    """Remove accounts from the registry that are gone from ejabberd, so that a repeated step does only the rest."""
    async with run.write() as session:
        await session.execute(delete(Account).where(Account.username.in_(usernames)))


def _calls(usernames: Sequence[str]) -> list[Sequence[str]]:
    """The usernames in pieces, one for each call; several even of a small tenant, so that progress is seen."""
    return list(chunks(usernames, min(max(len(usernames) // _REPORTS, 1), _CHUNK)))


def _check_nothing(left: Mapping[str, str]) -> None:
    if left:
        raise LeftoverError(f"still in ejabberd: {first_of([f'{name} ({what})' for name, what in left.items()])}")

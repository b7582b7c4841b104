"""Moves a tenant to another XMPP host. Each step may run twice, and end anywhere.

Nobody of the tenant is in meanwhile: it is suspended, and shut at both hosts. What it has goes over account by
account, complete at the new host before it leaves the old one (`config/ejabberd/lhc_bridge_moving.erl`). A move that
ended in the middle is asked for once more, or tried again; until it has come to its end nothing else happens to the
tenant but its own end.
"""

import asyncio

from sqlalchemy import select

from tenants.core.chunks import chunks
from tenants.core.errors import ConflictError, DomainError, InvalidInputError
from tenants.core.naming import AccountKind, RoomName, RosterKind
from tenants.core.text import first_of
from tenants.ejabberd import rosters
from tenants.ejabberd.bulk import Kind
from tenants.ejabberd.client import Ejabberd, Roster
from tenants.lifecycle import incarnations, operations, registry, requests, served_hosts
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.engine import Run
from tenants.process.services import Services
from tenants.store.models import Account, AccountState, Operation, OperationKind, Room, RoomState, Tenant, TenantState
from tenants.workflows import belongings

_CHUNK = 50
"""Accounts in one call; others wait as long as that takes."""
_DRAINED_WITHIN = 20.0
"""Seconds for what operators wrote to reach the pool."""
_NOTICE = (
    "This live chat moves to another address. In a moment this connection ends; then log in as {user}@{host}, with the"
    " same password."
)


async def start(services: Services, instance_name: str, host: str, cause: Cause) -> Operation | None:
    """Start to move the tenant to another host. None: it lives there already.

    Raises:
        NotFoundError: there is no such tenant.
        InvalidInputError: the host is not served.
        ConflictError: something bears the tenant's name there; or its state, or what is under way, does not allow it.
        EjabberdUnavailableError: ejabberd cannot be asked.
    """
    tenant = await registry.get(services, instance_name)
    if host not in await served_hosts.up(services):
        raise InvalidInputError("xmpp_host", "must be one that ejabberd serves: `orchestrator host list`")
    async with services.database.read() as session:
        known = await operations.pending_move(session, instance_name)
    if known is not None:
        given = dict(known.input)
        if given["to"] != host:
            raise ConflictError(f"tenant '{instance_name}' is on its way to '{given['to']}': operation '{known.id}'")
    elif tenant.xmpp_host == host:
        return None
    else:
        if left := await belongings.left(services, instance_name, services.ejabberd.at(host)):
            found = first_of([f"{kind} ({what})" for kind, what in left.items()])
            raise ConflictError(f"at '{host}' something bears the name of '{instance_name}': {found}")
        resumes = tenant.state is not TenantState.SUSPENDED
        given = {"from": tenant.xmpp_host, "to": host, "resumes": resumes}
    return await requests.start(services, instance_name, OperationKind.MOVE, cause, given=given)


async def tell_operators(run: Run) -> None:
    """Tell operators where they will be. Who is away reads it at the new host."""
    old, to = _old(run), run.input["to"]
    async with run.services.database.read() as session:
        query = select(Account.username).where(
            Account.instance_name == run.instance_name,
            Account.kind == AccountKind.OPERATOR,
            Account.state == AccountState.ACTIVE,
        )
        names = sorted(await session.scalars(query))
    there = await old.bulk.having_accounts(names)
    for done, username in enumerate(names):
        if username in there:
            await old.tell(username, _NOTICE.format(user=username, host=to))
        await run.report(done + 1, len(names))


async def close(run: Run) -> None:
    """Let nobody in at either host, let what operators wrote reach the pool, and take no more of visitors.

    One step, so that a move which is given up here leaves the tenant as it was, or suspended.
    """
    is_active = (await registry.get(run.services, run.instance_name)).state is TenantState.ACTIVE
    await _new(run).bulk.shut_tenant(run.instance_name)
    try:
        await _shut_out(run)
    except DomainError:
        if is_active:
            await _old(run).bulk.open_tenant(run.instance_name)
        raise
    if is_active:
        await run.enter(TenantState.SUSPENDING)


async def _shut_out(run: Run) -> None:
    if left := await _old(run).bulk.shut_tenant(run.instance_name):
        raise DomainError(f"still logged in: {first_of(left)}")
    await _drain(run.services, run.instance_name, _old(run))


async def _drain(services: Services, instance_name: str, ejabberd: Ejabberd) -> None:
    deadline = services.clock() + _DRAINED_WITHIN
    groups, suffix = belongings.groups(services.naming, instance_name), services.naming.username_suffix(instance_name)
    while True:
        left = await ejabberd.bulk.tenant_left(suffix, groups)
        waits = {kind: what for kind, what in left.items() if kind in {Kind.WAITING_MESSAGES, Kind.NODES_AWAY}}
        if not waits:
            return
        if services.clock() > deadline:
            raise DomainError(f"what operators wrote waits for the pool: {first_of(list(map(str, waits.values())))}")
        await asyncio.sleep(0.2)


async def settle(run: Run) -> None:
    """No process remembers any more how the tenant was before its last change."""
    tenant = await registry.get(run.services, run.instance_name)
    await asyncio.sleep(max(0.0, tenant.updated_at + incarnations.NAME_RESTS - run.services.clock()))


async def suspended(run: Run) -> None:
    if (await registry.get(run.services, run.instance_name)).state is TenantState.SUSPENDING:
        await run.enter(TenantState.SUSPENDED)


async def make_rosters(run: Run) -> None:
    naming, old, new = run.services.naming, _old(run), _new(run)
    for kind in RosterKind:
        group = rosters.group_of(naming, run.instance_name, kind)
        wanted, present = rosters.wanted(naming, run.instance_name, kind), await old.bulk.shared_roster(group)
        if present is not None:
            # label and description are the tenant's matter
            wanted = Roster(present.label, present.description, wanted.displayed)
        elif await new.bulk.shared_roster(group) is not None:
            continue  # the move has been here before, and got further
        await new.create_roster(group, wanted)


async def move_accounts(run: Run) -> None:
    old, to = _old(run), run.input["to"]
    names = await belongings.there(run.services, run.instance_name, old)
    await run.report(0, len(names))
    done = 0
    for chunk in chunks(names, _CHUNK):
        _check_nothing(await old.bulk.move_users(chunk, to), old)
        done += len(chunk)
        await run.report(done, len(names))


async def make_rooms(run: Run) -> None:
    naming, query = run.services.naming, select(Room).where(Room.instance_name == run.instance_name)
    async with run.services.database.read() as session:
        found = await session.scalars(query.where(Room.state == RoomState.ACTIVE))
        titles = {naming.room(RoomName(room.name, room.instance_name)): room.title for room in found}
    if missing := await _new(run).rooms.make(titles):
        raise DomainError(f"rooms could not be made: {first_of(missing)}")


async def switch(run: Run) -> None:
    """From now on the tenant lives there."""
    async with run.write() as session:
        await served_hosts.hold(session, run.services.settings, run.input["to"])
        tenant = await session.get_one(Tenant, run.instance_name)
        if tenant.xmpp_host != run.input["to"]:
            tenant.xmpp_host, tenant.updated_at = run.input["to"], run.services.clock()
    run.services.cache.tenants.forget(run.instance_name)
    run.services.cache.hosts.forget(run.instance_name)


async def clear_old(run: Run) -> None:
    """The old host keeps nothing of the tenant, not even that it is shut."""
    await clear(run.services, run.instance_name, _old(run), drain=True)


async def clear(services: Services, instance_name: str, ejabberd: Ejabberd, *, drain: bool) -> None:
    """Remove all that the tenant has at a host that is not, or no longer, its own."""
    suffix = services.naming.username_suffix(instance_name)
    _check_nothing(dict.fromkeys(await ejabberd.rooms.remove(await ejabberd.rooms.names(suffix)), "a room"), ejabberd)
    if drain:
        await _drain(services, instance_name, ejabberd)
    else:
        await ejabberd.bulk.forget_tenant(suffix)
    for chunk in chunks(await belongings.there(services, instance_name, ejabberd), _CHUNK):
        _check_nothing(await ejabberd.bulk.remove_users(chunk), ejabberd)
    for group in belongings.groups(services.naming, instance_name):
        await ejabberd.delete_roster(group)
    _check_nothing(await belongings.left(services, instance_name, ejabberd), ejabberd)
    await ejabberd.bulk.open_tenant(instance_name)


async def let_in(run: Run) -> None:
    await _new(run).bulk.open_tenant(run.instance_name)


def _old(run: Run) -> Ejabberd:
    return run.services.ejabberd.at(run.input["from"])


def _new(run: Run) -> Ejabberd:
    return run.services.ejabberd.at(run.input["to"])


def _check_nothing(left: dict[str, str], ejabberd: Ejabberd) -> None:
    if left:
        what = first_of([f"{name} ({what})" for name, what in left.items()])
        raise DomainError(f"still at {ejabberd.host}: {what}")

"""Operators' presence, of which LHC is told. Only the latest of each operator is kept."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.naming import AccountName
from tenants.lifecycle import admission, hosts
from tenants.outbound.lhc import status_body
from tenants.process import leases
from tenants.process.leases import Lease
from tenants.process.services import Services
from tenants.store.database import Database
from tenants.store.models import EventFormat, OperatorPresence, Tenant


async def operator_changed(
    services: Services, name: AccountName, *, online: bool, lease: Lease, again: bool = False
) -> None:
    """Record that an operator's first connection came or the last one went; LHC is told of what is new to it.

    `again`: the operator came back from being away. LHC's extension then shows one who has hidden there, so it is told
    once more; webhooks are not.

    Raises:
        LeaseLostError: the shard is another's by now, who knows better.
    """
    username = services.naming.username(name)
    action = "connect" if online else "disconnect"
    body = status_body(action=action, user=username, server=await hosts.of(services, name.instance))
    async with services.database.write() as session:
        await leases.check(session, lease)
        known = await session.get(OperatorPresence, username, with_for_update=True)
        is_known = (known is not None and known.online == online) or (known is None and not online)
        if is_known and not (again and await _is_lhc(session, name.instance)):
            return
        if known is None:
            known = OperatorPresence(username=username, instance_name=name.instance, version=0)
            session.add(known)
        known.online = online
        _set_pending(known, body, services.clock(), retried=True)
    await services.delivery.wake(name.instance)


async def operator_answered(services: Services, name: AccountName, jid: str) -> None:
    """An operator's client answered a ping: LHC is told, unless it is still to be told of the connection itself.

    That of a tenant that is shut is not told: it would say nothing new later.
    """
    username = services.naming.username(name)
    async with services.database.write() as session:
        if await admission.is_shut(session, name.instance):
            return
        known = await session.get(OperatorPresence, username, with_for_update=True)
        if known is None or not known.online or (known.pending and known.retried):
            return
        _set_pending(known, status_body(action="ping", user=jid), services.clock(), retried=False)
    await services.delivery.wake(name.instance)


async def online_operators(database: Database) -> list[OperatorPresence]:
    """The operators that LHC believes, or is about to be told, to be online."""
    async with database.read() as session:
        return list(await session.scalars(select(OperatorPresence).where(OperatorPresence.online)))


async def _is_lhc(session: AsyncSession, instance_name: str) -> bool:
    wanted = await session.scalar(select(Tenant.event_format).where(Tenant.instance_name == instance_name))
    return wanted is EventFormat.LHC


def _set_pending(presence: OperatorPresence, body: str, now: float, *, retried: bool) -> None:
    presence.pending = body
    presence.retried = retried
    presence.version += 1
    presence.attempts = 0
    presence.due_at = now

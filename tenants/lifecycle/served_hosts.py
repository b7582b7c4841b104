"""Hosts added and removed while the system runs: a row each, which ejabberd is told of without a restart.

Where ejabberd's configuration includes a file of ours (`ejabberd_hosts_file`), that says which virtual hosts there are
and where their certificates, and ejabberd reads it again. Elsewhere a person does so with the same lines. Each step may
be repeated.
"""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from config.settings import Settings
from tenants.core.errors import ConflictError, InvalidInputError, NotFoundError
from tenants.core.naming import rooms_service
from tenants.lifecycle import audit
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.store.models import Host, Operation, OperationKind, Tenant, TenantState

LONGEST_HOST = 253
_ADDED = select(Host).order_by(Host.added_at, Host.name)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class ServedHost:
    """An XMPP host, and what is to be known of it.

    Attributes:
        is_fixed: it is one of the settings, and is neither added nor removed here.
        tenants: how many live there.
        is_up: whether ejabberd serves it now.
        dns: the lines that whoever has the domain puts into DNS.
    """

    name: str
    certificate: str | None
    is_fixed: bool
    tenants: int
    is_up: bool
    dns: Sequence[str]


async def served(services: Services) -> tuple[str, ...]:
    """The names of all hosts: those of the settings, the default first, then those that were added.

    Raises:
        DATABASE_AWAY: they could not be read.
    """
    return (*services.settings.xmpp_hosts, *(host.name for host in await _added(services)))


async def find(services: Services) -> list[ServedHost]:
    """All hosts.

    Raises:
        EjabberdUnavailableError: ejabberd cannot be asked.
    """
    counted = select(Tenant.xmpp_host, func.count()).where(Tenant.state != TenantState.DESTROYED)
    async with services.database.read() as session:
        tenants = {host: count for host, count in await session.execute(counted.group_by(Tenant.xmpp_host))}  # noqa: C416 - rows are no tuples to mypy
    up = await services.ejabberd.virtual_hosts()
    hosts: list[tuple[str, str | None, bool]] = [(name, None, True) for name in services.settings.xmpp_hosts]
    hosts += [(host.name, host.certificate, False) for host in await _added(services)]
    return [
        ServedHost(name, certificate, is_fixed, tenants.get(name, 0), name in up, dns_lines(services.settings, name))
        for name, certificate, is_fixed in hosts
    ]


async def up(services: Services) -> list[str]:
    """The names of those hosts that ejabberd serves now: of another one it knows nothing.

    Raises:
        EjabberdUnavailableError: ejabberd cannot be asked.
    """
    there = await services.ejabberd.virtual_hosts()
    return [name for name in await served(services) if name in there]


async def get(services: Services, name: str) -> ServedHost:
    """The host.

    Raises:
        NotFoundError: there is none of that name.
        EjabberdUnavailableError: ejabberd cannot be asked.
    """
    for host in await find(services):
        if host.name == name:
            return host
    raise NotFoundError(f"there is no host '{name}'")


async def add(services: Services, name: str, certificate: str | None, cause: Cause) -> ServedHost:
    """Serve the host from now on; of one that is served already, with that certificate.

    Raises:
        InvalidInputError: it is no domain, or that of something else here.
        ConflictError: it is one of the settings.
        EjabberdUnavailableError, EjabberdError: ejabberd was not told; to be asked once more.
    """
    check_name(name, await served(services), services.settings)
    if name in services.settings.xmpp_hosts:
        raise ConflictError(f"host '{name}' is one of the settings")
    async with services.database.write() as session:
        host = await session.get(Host, name, with_for_update=True)
        if host is None:
            host = Host(name=name, added_at=services.clock())
            session.add(host)
            audit.record(session, services.clock(), cause, "host added", what=name)
        host.certificate = certificate
    await publish(services)
    return await get(services, name)


async def remove(services: Services, name: str, cause: Cause) -> None:
    """Serve the host no longer.

    Raises:
        NotFoundError: there is none of that name.
        ConflictError: it is one of the settings, or tenants live there.
        EjabberdUnavailableError, EjabberdError: ejabberd was not told; `publish` tells it.
    """
    if name in services.settings.xmpp_hosts:
        raise ConflictError(f"host '{name}' is one of the settings")
    async with services.database.write() as session:
        host = await session.get(Host, name, with_for_update=True)
        if host is None:
            raise NotFoundError(f"there is no host '{name}'")
        living = select(Tenant.instance_name).where(Tenant.xmpp_host == name, Tenant.state != TenantState.DESTROYED)
        if tenants := list(await session.scalars(living.order_by(Tenant.instance_name).limit(3))):
            raise ConflictError(f"tenants live on '{name}', such as {', '.join(tenants)}: move or destroy them before")
        moves = select(Operation).where(Operation.kind == OperationKind.MOVE)
        if coming := [one.instance_name for one in await session.scalars(moves) if name in one.input.values()]:
            raise ConflictError(f"a move to or from '{name}' is not done, such as that of {coming[0]}")
        await session.execute(delete(Host).where(Host.name == name))
        audit.record(session, services.clock(), cause, "host removed", what=name)
    await publish(services)


async def hold(session: AsyncSession, settings: Settings, name: str) -> None:
    """The host stays until the end of the transaction, which lets a tenant live there.

    Raises:
        InvalidInputError: it is not served.
    """
    if name in settings.xmpp_hosts or await session.get(Host, name, with_for_update={"read": True}) is not None:
        return
    hosts = ", ".join([*settings.xmpp_hosts, *(host.name for host in await session.scalars(_ADDED))])
    raise InvalidInputError("xmpp_host", f"must be one that is served: {hosts}")


async def publish(services: Services) -> None:
    """Let ejabberd know which hosts there are, if its configuration includes a file of ours.

    Raises:
        EjabberdUnavailableError, EjabberdError: ejabberd did not read it.
    """
    target = services.settings.ejabberd_hosts_file
    if not target:
        return
    async with services.database.write() as session:
        # locked, so that of two who publish the later one writes last
        added = list(await session.scalars(_ADDED.with_for_update()))
        await asyncio.to_thread(_write, Path(target), _configuration(services.settings, added))
    await services.ejabberd.reload()


async def lines(services: Services) -> str:
    """What ejabberd's configuration is to say of the hosts, for who writes it by hand."""
    return _configuration(services.settings, await _added(services))


def _configuration(settings: Settings, added: Sequence[Host]) -> str:
    """JSON is YAML, too."""
    fixed = settings.xmpp_hosts
    hosts = [*fixed, *(host.name for host in added if host.name not in fixed)]
    files = [name for name in (settings.ejabberd_certificate, *(host.certificate for host in added)) if name]
    return json.dumps({"hosts": hosts} | ({"certfiles": files} if files else {}), indent=2) + "\n"


def dns_lines(settings: Settings, name: str) -> Sequence[str]:
    """What whoever has the domain puts into DNS (RFC 6120, 3.2.1; XEP-0368), unless it leads to ejabberd itself."""
    target = settings.xmpp_hosts[0]
    if name == target:
        return ()
    return (f"_xmpp-client._tcp.{name}. SRV 0 5 5222 {target}.", f"_xmpps-client._tcp.{name}. SRV 0 5 5223 {target}.")


def check_name(name: str, hosts: Sequence[str], settings: Settings, field: str = "name") -> str:
    """Return the name, when a host may bear it.

    Raises:
        InvalidInputError: it is no domain in lower case, or that of a service.
    """
    labels = name.split(".")
    if len(name) > LONGEST_HOST or len(labels) < 2 or not all(map(_LABEL.fullmatch, labels)):  # noqa: PLR2004 - a domain has two
        raise InvalidInputError(
            field, "must be a domain in lower case, in ASCII (an IDN as xn--…): chat.customer.example"
        )
    taken = {settings.component_jid, *map(rooms_service, hosts)}
    if name in taken or rooms_service(name) in hosts:
        raise InvalidInputError(field, "is the domain of a service of another host, or its own would be")
    return name


async def _added(services: Services) -> list[Host]:
    async with services.database.read() as session:
        rows = await session.scalars(_ADDED)
        return [host for host in rows if host.name not in services.settings.xmpp_hosts]


def _write(target: Path, text: str) -> None:
    """At once: ejabberd may read it at any time."""
    new = target.with_suffix(".new")
    new.write_text(text)
    new.replace(target)

"""Whether what is configured fits together: each part is asked, and what is wrong comes with what to change.

For people who set a system up, or look for what is broken; `/readyz` is for programs.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import ColumnElement, Float, cast, exists, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from config.ejabberd_storage import EjabberdStorage
from tenants.core.errors import DomainError, NotFoundError
from tenants.core.naming import STANDALONE_INSTANCE
from tenants.core.text import first_of
from tenants.delivery import send
from tenants.ejabberd import fitness
from tenants.ejabberd.client import Node
from tenants.lifecycle import operations, registry
from tenants.outbound import callback_urls, lhc
from tenants.process import heartbeats, leases
from tenants.process.services import Services
from tenants.store.database import sqlite_file
from tenants.store.migrate import alembic_config
from tenants.store.models import EVERY_TENANT, Account, EventFormat, OperationKind, Tenant, TenantState

_SECONDS = 10.0
"""For each check."""
_CLOCK_SECONDS = 1.0
"""By how much clocks may differ: terms of leases are measured by each machine's own."""
_SERVER_ERROR = 500
_GIB = 1024**3
_LEAST_FREE, _LEAST_SHARE = 5 * _GIB, 0.05
"""Bytes and the share of a disk that are to be free: less than both is too little."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        part: what was looked at.
        ok: None when it could not be looked at, because of something else that is wrong.
        found: one line for people.
        advice: what to change; empty when nothing.
    """

    part: str
    ok: bool | None
    found: str
    advice: str = ""


class WrongError(Exception):
    """A part is not as it should be."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.advice = advice


Check = Callable[[Services], Awaitable[str]]
"""Says in a line what is well, or raises WrongError."""


async def examine(
    services: Services,
    further: Sequence[tuple[str, Check]] = (),
    instance_name: str | None = None,
    *,
    patience: float = _SECONDS,
) -> list[Finding]:
    """Look at every part, all at once; `further` parts are those that this package knows nothing of.

    With `instance_name` also whether that tenant's LHC can be reached. `patience`: seconds for each part.
    """
    checks = [*_CHECKS, *further]
    if instance_name is not None:

        async def reach(services: Services) -> str:
            return await check_tenant(services, instance_name)

        checks.append((f"tenant {instance_name}", reach))
    return list(await asyncio.gather(*(_find(services, part, check, patience) for part, check in checks)))


async def _find(services: Services, part: str, check: Check, patience: float) -> Finding:
    try:
        async with asyncio.timeout(patience):
            return Finding(part, True, await check(services))
    except (WrongError, fitness.UnfitError) as error:
        return Finding(part, False, str(error), error.advice)
    except TimeoutError:
        return Finding(part, False, f"no answer within {patience:g} s", _ADVICE.get(part, ""))
    except DBAPIError as error:
        found = str(error.orig).partition("\n")[0]
        # the check of the database says the same already
        return Finding(part, False if part == "database" else None, found, _ADVICE["database"])
    except (DomainError, OSError) as error:
        return Finding(part, False, str(error), _ADVICE.get(part, ""))


async def _check_keys(services: Services) -> str:
    settings = services.settings
    missing = [
        f"ORCHESTRATOR_{name.upper()} ({what})"
        for name, what in (
            ("component_secret", "ejabberd accepts no pool process"),
            ("ejabberd_api_secret", "ejabberd carries out no command"),
            ("panel_token", "only tokens that were made at the console open the API"),
            ("signing_master_key", "no webhooks are sent"),
        )
        if not getattr(settings, name).get_secret_value()
    ]
    if missing:
        raise WrongError(f"not set: {'; '.join(missing)}", "set it to a long random value, the same for all processes")
    return "all are set"


async def _check_database(services: Services) -> str:
    newest = ScriptDirectory.from_config(alembic_config()).get_current_head()
    async with services.database.read() as session:
        try:
            present = await session.scalar(text("SELECT version_num FROM alembic_version"))
        except DBAPIError as error:
            if error.connection_invalidated or "alembic_version" not in str(error.orig):
                raise
            present = None
    if present != newest:
        raise WrongError(f"its schema is {present or 'not there'}, not {newest}", "run `orchestrator migrate`")
    return f"{services.database.engine.dialect.name}, schema {present}"


async def _check_mode(services: Services) -> str:
    """Whether the names of what is there are of this mode: in the other one they are nobody's."""
    hosting = services.settings.hosting
    live = Tenant.state != TenantState.DESTROYED
    is_stranger = Tenant.instance_name == STANDALONE_INSTANCE
    if not hosting:
        is_stranger = ~is_stranger
    async with services.database.read() as session:
        strangers = list(
            await session.scalars(select(Tenant.instance_name).where(live, is_stranger).order_by(Tenant.instance_name))
        )
        ours = await _weigh(session, live, ~is_stranger)
        theirs = await _weigh(session, live, is_stranger)
    mode = "hosting: many instances, named in every username" if hosting else "standalone: one instance, named nowhere"
    if strangers:
        advice = _begun_in_the_other_mode(hosting) if theirs > ours else _begun_in_this_mode(hosting)
        raise WrongError(f"{mode}; but there are tenants of the other mode: {first_of(strangers)}", advice)
    if not hosting and not ours:
        raise WrongError(
            f"{mode}; but its tenant is not there", f"run `orchestrator tenant create {STANDALONE_INSTANCE}`"
        )
    return mode


async def _weigh(session: AsyncSession, *which: ColumnElement[bool]) -> int:
    """0: there are no such tenants; 1: there are; 2: they have accounts, so somebody uses them."""
    # an instance of that name which an earlier version let begin is no standalone system's tenant: its names say so
    is_hosted = Account.username.endswith(f".{STANDALONE_INSTANCE}")
    has_accounts = exists().where(Account.instance_name == Tenant.instance_name, ~is_hosted)
    if await session.scalar(select(exists().where(*which, has_accounts))):
        return 2
    return int(bool(await session.scalar(select(exists().where(*which)))))


def _begun_in_the_other_mode(hosting: bool) -> str:
    former, setting = ("standalone", "false") if hosting else ("hosted", "true")
    return (
        f"this was a {former} system: set ORCHESTRATOR_HOSTING={setting}, as it was when they were made, for all"
        " processes and ejabberd's mod_lhc_bridge; to change the mode, destroy them first"
    )


def _begun_in_this_mode(hosting: bool) -> str:
    """Of a system that is used as it is: to set the other mode would make all its tenants nobody's."""
    if hosting:
        return (
            f"leave the mode as it is, and run `orchestrator tenant destroy {STANDALONE_INSTANCE}`; it has no way back,"
            " and ends its accounts too"
        )
    return (
        f"leave the mode as it is: '{STANDALONE_INSTANCE}' is the tenant of this system; the others were made while"
        " ORCHESTRATOR_HOSTING was true, and take no calls: run `orchestrator tenant destroy` for each; it has no way"
        " back, and ends its accounts too"
    )


async def _check_clock(services: Services) -> str:
    if services.database.is_sqlite:
        return "the database is on this machine"
    async with services.database.read() as session:
        theirs = await session.scalar(select(cast(func.extract("epoch", func.clock_timestamp()), Float)))
    apart = abs(services.clock() - (theirs or 0.0))
    if apart > _CLOCK_SECONDS:
        raise WrongError(f"{apart:.1f} s apart from the database's", "let NTP set the clocks of all machines")
    return f"{apart:.2f} s apart from the database's"


async def _check_disk(services: Services) -> str:
    """Of the machine that this runs on: where SQLite's file is, else where the process was started."""
    file = sqlite_file(services.settings.database_url.get_secret_value())
    folder = Path() if file is None else file.parent
    usage = await asyncio.to_thread(shutil.disk_usage, folder)
    found = f"{usage.free / _GIB:.1f} of {usage.total / _GIB:.0f} GiB are free at {folder.resolve()}"
    if usage.free < min(_LEAST_FREE, usage.total * _LEAST_SHARE):
        raise WrongError(found, "make room there, or give it a larger disk")
    return found


async def _check_broker(services: Services) -> str:
    await services.commands.check()
    return services.settings.broker_url.get_secret_value().partition(":")[0]


async def _check_ejabberd(services: Services) -> str:
    version = await fitness.check_version(services.ejabberd, services.settings.ejabberd_untested)
    if not await services.ejabberd.asks_for_secret():
        raise WrongError(
            "its admin API obeys whoever reaches it, without a secret",
            "let lhc_bridge_api handle /api in ejabberd.yml, instead of mod_http_api",
        )
    return f"{services.settings.ejabberd_api_url}: {version}"


async def _check_bridge(services: Services) -> str:
    return await fitness.check_bridge(services.ejabberd)


async def _check_storage(services: Services) -> str:
    return await fitness.check_storage(services.ejabberd, services.settings.ejabberd_storage)


async def _check_nodes(services: Services) -> str:
    nodes = await services.ejabberd.nodes()
    if down := [_of_down(node) for node in nodes if not node.is_up]:
        raise WrongError(
            f"down: {'; '.join(down)}", "start it; one that never comes back leaves (ejabberdctl leave_cluster)"
        )
    if len(nodes) > 1 and services.settings.ejabberd_storage is EjabberdStorage.MNESIA:
        raise WrongError(
            f"{len(nodes)} nodes, with accounts in Mnesia: a network that fails between them leaves two truths",
            "keep everything in SQL, or run one node",
        )
    if any(node.connections for node in nodes) and (lonely := [node.name for node in nodes if not node.connections]):
        raise WrongError(
            f"no pool process is connected to {', '.join(lonely)}", "name it in ORCHESTRATOR_COMPONENT_HOSTS"
        )
    if len({node.bridge for node in nodes}) > 1:
        found = ", ".join(f"{node.name}: {node.bridge}" for node in nodes)
        raise WrongError(f"different versions of the bridge module: {found}", "upgrade the others, one by one")
    return ", ".join(node.name for node in nodes)


def _of_down(node: Node) -> str:
    waiting = "nobody knows what waits there" if node.waiting is None else f"{node.waiting} messages wait there"
    return f"{node.name}, {waiting}"


async def _check_reconciliation(services: Services) -> str:
    found = await operations.latest_result(services.database, EVERY_TENANT, OperationKind.RECONCILE)
    if held := found.get("held"):
        raise WrongError(
            f"nothing was mended: {held} differences would be removed or made anew, which is too much at once",
            "look at `orchestrator drift`: has ejabberd lost its data, or is it another one? If all of it is to be as"
            " the registry says: `orchestrator reconcile --anyway`",
        )
    return f"{found['found']} differences when it was last compared" if found else "not compared yet"


async def _check_workers(services: Services) -> str:
    fresh = await heartbeats.fresh(services)
    missing = [name for name in (heartbeats.WORKER, heartbeats.LIFECYCLE) if name not in fresh]
    if missing:
        raise WrongError(f"no sign of life of: {', '.join(missing)}", "start workers for all queues, and one beat")
    return "callbacks and workflows are worked off"


async def _check_pools(services: Services) -> str:
    served, count = await leases.count_served(services), services.settings.shard_count
    if served < count:
        raise WrongError(f"{served} of {count} shards are served", "start `orchestrator pool`, or look into its log")
    return f"all {count} shards are served"


async def check_tenant(services: Services, instance_name: str) -> str:
    """Whether the tenant can be told of events: says so in a line.

    Raises:
        WrongError: it cannot, or whoever answers is plainly not its LHC.
    """
    try:
        tenant = await registry.get(services, instance_name)
    except NotFoundError as error:
        raise WrongError(str(error), "create it, or mend the name") from None
    url = send.base(services.settings, tenant)
    if url is None:
        raise WrongError("its name gives no address: a part of it would be empty", "set its callback_url")
    is_lhc = tenant.event_format is EventFormat.LHC
    shown = callback_urls.shown(lhc.message_page(url) if is_lhc else url)
    answer = await (services.lhc if is_lhc else services.webhooks).reach(url)
    status = answer.http_status
    if status is None:
        raise WrongError(f"{shown}: {answer.error}", "mend its callback_url, its name in DNS, or its certificate")
    if status >= _SERVER_ERROR:
        raise WrongError(f"{shown}: {answer.error}", "look into the log of that web server")
    # what takes nothing but POST may say so; a webhook's receiver, of which we know nothing, may say anything
    wrong = answer.error if (is_lhc and status != HTTPStatus.METHOD_NOT_ALLOWED) or status == HTTPStatus.GONE else None
    if wrong or (is_lhc and answer.warning):
        raise WrongError(f"{shown}: {wrong or answer.warning}", "mend its callback_url, or its LHC's XMPP extension")
    return f"{tenant.state}; {shown} answers ({status}, {answer.seconds * 1000:.0f} ms)"


_CHECKS: tuple[tuple[str, Check], ...] = (
    ("keys", _check_keys),
    ("database", _check_database),
    ("mode", _check_mode),
    ("clock", _check_clock),
    ("disk", _check_disk),
    ("broker", _check_broker),
    ("ejabberd", _check_ejabberd),
    ("bridge module", _check_bridge),
    ("ejabberd's storage", _check_storage),
    ("nodes of ejabberd", _check_nodes),
    ("reconciliation", _check_reconciliation),
    ("workers", _check_workers),
    ("pools", _check_pools),
)
_ADVICE = {
    "database": "mend ORCHESTRATOR_DATABASE_URL, or start the server",
    "broker": "mend ORCHESTRATOR_BROKER_URL, or start the server",
    "ejabberd": (
        "mend ORCHESTRATOR_EJABBERD_API_URL and _SECRET, or let ejabberd's lhc_bridge_api listen there, with that"
        " secret as api_secret of mod_lhc_bridge"
    ),
    "bridge module": "see ejabberd",
    "ejabberd's storage": "see ejabberd",
    "component": "mend ORCHESTRATOR_COMPONENT_HOST and _PORT, or let ejabberd listen there (ejabberd_service)",
}
"""What to change where a part does not answer at all."""

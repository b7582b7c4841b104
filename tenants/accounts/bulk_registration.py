"""New visitors: accounts and contacts of operators, made for many at once.

What is out of the common (a tenant that may have only so many accounts, a name that is there already) is left to
`tenants.accounts.accounts`, which does it one by one. As there, the registry's row comes first: a crash leaves no
orphan.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import delete, update

from tenants.core import scram
from tenants.core.digests import digest
from tenants.core.errors import DomainError
from tenants.core.naming import AccountName
from tenants.core.scram import Verifier
from tenants.core.text import own_nick
from tenants.ejabberd import rosters
from tenants.ejabberd.bulk import NewMember
from tenants.lifecycle import admission
from tenants.process.services import Batched, Services
from tenants.store.database import Database
from tenants.store.models import Account, AccountState, Tenant

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Newcomer:
    name: AccountName
    username: str
    host: str
    group: str
    """Of the shared roster."""
    nick: str
    password_digest: str
    verifier: Verifier


async def create(services: Services, tenant: Tenant, name: AccountName, password: str, nick: str) -> bool:
    """Whether the visitor's account was made, with that password, a contact of the operators. If not, ask why.

    Raises:
        InvalidInputError: the password cannot be one.
        NotFoundError: there is no such tenant.
        ConflictError: it was shut just now, or lost the feature.
        EjabberdError, UnavailableError: ejabberd does not do it, or not now.
    """
    if tenant.max_accounts is not None:
        return False
    username = services.naming.username(name)
    newcomer = _Newcomer(
        name=name,
        username=username,
        host=tenant.xmpp_host,
        group=rosters.group_of(services.naming, name.instance, name.roster),
        nick=nick,
        password_digest=digest(username, password),
        verifier=await scram.make_verifier(password),
    )
    made = await _CREATE_ACCOUNT.do(services, newcomer)
    if made:
        account = Account(username=username, instance_name=name.instance, kind=name.kind)
        services.cache.keep_account(tenant, account, newcomer.password_digest)
    return made


async def _create_all(services: Services, newcomers: Sequence[_Newcomer]) -> list[bool | Exception]:
    # of two with the same name the first is made, and the other one finds it
    wanted = {one.username: one for one in reversed(newcomers)}
    new, refused = await _insert(services, wanted)
    results = await _register(services, [one for one in wanted.values() if one.username in new])
    created = {username for username, result in results.items() if result == "created"}
    # not of those who were created and are no members: without a row nobody would know whose account it is
    absent = {username for username, result in results.items() if result not in {"created", "no_member"}}
    made = await _finish(services.database, created, absent)
    return [refused.get(one.username) or (one.username in made and wanted[one.username] is one) for one in newcomers]


_CREATE_ACCOUNT = Batched("create_account", _create_all)


async def _register(services: Services, new: Sequence[_Newcomer]) -> dict[str, str]:
    """Make the accounts, each on its host. Returns what came of each, by username."""
    members: dict[str, dict[str, NewMember]] = defaultdict(dict)
    for one in new:
        members[one.host][one.username] = NewMember(one.group, own_nick(one.nick), one.verifier)
    answers = await asyncio.gather(
        *(services.ejabberd.at(host).bulk.register_members(some) for host, some in members.items())
    )
    return {username: result for answer in answers for username, result in answer.items()}


async def _insert(services: Services, wanted: Mapping[str, _Newcomer]) -> tuple[set[str], dict[str, DomainError]]:
    """Put the rows there. Returns which are new, and whose tenant is shut."""
    now = services.clock()
    refused: dict[str, DomainError] = {}
    rows = []
    async with services.database.write() as session:
        tenants, _ = await admission.hold_many(session, {one.name.instance for one in wanted.values()})
        for username, one in sorted(wanted.items()):
            try:
                admission.check(tenants.get(one.name.instance), one.name.instance, one.name.kind)
            except DomainError as error:
                refused[username] = error
                continue
            rows.append(
                {
                    "username": username,
                    "instance_name": one.name.instance,
                    "kind": one.name.kind,
                    "state": AccountState.PENDING,
                    "password_digest": one.password_digest,
                    "created_at": now,
                    "last_active_at": now,
                }
            )
        if not rows:
            return set(), refused
        insert = services.database.insert(Account).on_conflict_do_nothing()
        connection = await session.connection()
        inserted = await connection.execute(insert.returning(Account.__table__.c.username), rows)
        return {username for (username,) in inserted}, refused


async def _finish(database: Database, created: set[str], absent: set[str]) -> set[str]:
    """Set the rows of the created accounts to active, remove those of the absent. Returns the names set to active."""
    made: set[str] = set()
    pending = Account.state == AccountState.PENDING
    async with database.write() as session:
        if created:
            active = await session.scalars(
                update(Account)
                .where(Account.username.in_(created), pending)
                .values(state=AccountState.ACTIVE)
                .returning(Account.username)
                .execution_options(synchronize_session=False)
            )
            made = set(active)
        if absent:
            await session.execute(delete(Account).where(Account.username.in_(absent), pending))
    return made

"""Claims pieces of tenants' work: for all runners of a process that ask at the same time, in one transaction."""

import functools
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Float, Integer, Select, bindparam, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from tenants.delivery import circuits
from tenants.lifecycle import admission
from tenants.process.services import Batched, Services
from tenants.store import claims
from tenants.store.claims import key_of, takeable
from tenants.store.database import Database
from tenants.store.json_rows import ROWS
from tenants.store.models import CallbackMessage, Conversation, MessageState, OperatorPresence, Tenant, TenantState

Work = type[Conversation] | type[OperatorPresence]


@dataclass(frozen=True, slots=True)
class Piece:
    """A claimed piece of a tenant's work.

    Attributes:
        token: the claim on its row.
        probe: the claim on the tenant's circuit, when this is the one that tries it.
        more: whether more of the tenant is due, which could be done at the same time.
        claimed_at: Unix seconds; tenant and message are as they were then.
        message: the conversation's oldest that is pending.
    """

    instance_name: str
    model: Work
    key: Any
    token: str
    probe: str | None
    more: bool
    claimed_at: float
    tenant: Tenant | None
    message: CallbackMessage | None


async def claim_next(services: Services, instance_name: str) -> Piece | None:
    """Claim what has waited longest of the tenant's due work.

    None when nothing is due, the circuit is open, or the tenant is shut.
    """
    return await _CLAIM_WORK.do(services, instance_name)


@dataclass(frozen=True, slots=True)
class _Due:
    """Work that is due. The earlier `due_at`, the longer it has waited."""

    due_at: float
    instance_name: str
    model: Work
    key: Any


async def _claim_all(services: Services, asked: Sequence[str]) -> list[Piece | None]:
    """For each tenant's name that was asked for, a piece of that tenant's work; None where there is no more."""
    now, wanted = services.clock(), Counter(asked)
    async with services.database.write() as session:
        tenants = {one.instance_name: one for one in await session.scalars(_tenants(wanted))}
        shut = {name for name, tenant in tenants.items() if admission.refusal(tenant)}
        blocked, half_open = await circuits.look(session, wanted, now)
        names = wanted.keys() - shut - blocked
        waiting = await _waiting(services.database, session, names, now, most=max(wanted.values()) + 1)
        # a circuit that is half-open is tried with one piece
        chosen = {name: due[: 1 if name in half_open else wanted[name]] for name, due in waiting.items()}
        claimed = await _claim(session, [one for due in chosen.values() for one in due], now)
        probes = await _admit(
            session, {one: token for one, token in claimed.items() if one.instance_name in half_open}, now
        )
        oldest = await find_oldest_pending(session, [one.key for one in claimed if one.model is Conversation])
    pieces: defaultdict[str, deque[Piece]] = defaultdict(deque)
    for one, token in claimed.items():
        name = one.instance_name
        if name in half_open and name not in probes:
            continue
        more = name not in half_open and len(waiting[name]) > len(chosen[name])
        message = oldest.get(one.key) if one.model is Conversation else None
        pieces[name].append(
            Piece(name, one.model, one.key, token, probes.get(name), more, now, tenants.get(name), message)
        )
    return [pieces[name].popleft() if pieces[name] else None for name in asked]


_CLAIM_WORK = Batched("claim_work", _claim_all)


def _tenants(names: Collection[str]) -> Select[Tenant]:
    return select(Tenant).where(Tenant.instance_name.in_(names), Tenant.state != TenantState.DESTROYED)


async def _waiting(
    database: Database, session: AsyncSession, names: Collection[str], now: float, *, most: int
) -> dict[str, list[_Due]]:
    """Of each tenant, the due work that has waited longest, `most` of each kind at most."""
    waiting: defaultdict[str, list[_Due]] = defaultdict(list)
    models: tuple[Work, ...] = (Conversation, OperatorPresence)
    rows: dict[str, object] = {"rows": {name: [] for name in names}}
    for model in models:
        due = await session.execute(_first_due(database.is_sqlite, model), {**rows, "now": now, "most": most})
        for due_at, name, key in due:
            waiting[name].append(_Due(due_at, name, model, key))
    return {name: sorted(due, key=lambda one: one.due_at) for name, due in waiting.items()}


@functools.lru_cache(maxsize=4)
def _first_due(is_sqlite: bool, model: Work) -> Select[Any]:
    """Reads no more than `most` of any tenant, however long its backlog is."""
    first = aliased(model)
    key = getattr(first, key_of(model).name)
    due = select(first.due_at, first.instance_name, key.label("key")).where(
        first.instance_name == ROWS.c.key, takeable(first, bindparam("now", type_=Float))
    )
    due = due.order_by(first.due_at).limit(bindparam("most", type_=Integer))
    if is_sqlite:
        # it has no LATERAL, but takes the rows one by one as well
        keys = select(due.correlate(ROWS).subquery().c.key)
        return select(model.due_at, model.instance_name, key_of(model)).join(ROWS, key_of(model).in_(keys))
    of_each = due.lateral()
    return select(of_each).select_from(ROWS).join(of_each, true())


async def _claim(session: AsyncSession, wanted: Sequence[_Due], now: float) -> dict[_Due, str]:
    """Take those that nobody else took meanwhile. Returns the claims' tokens."""
    claimed: dict[_Due, str] = {}
    for model in (Conversation, OperatorPresence):
        due = {one.key: one for one in wanted if one.model is model}
        if due:
            tokens = await claims.claim_all(session, model, list(due), now)
            claimed |= {due[key]: token for key, token in tokens.items()}
    # the longest waiting first
    return {one: claimed[one] for one in wanted if one in claimed}


async def _admit(session: AsyncSession, claimed: Mapping[_Due, str], now: float) -> dict[str, str | None]:
    """The probes of tenants whose circuit is half-open. Where another process was first, the work is given back."""
    probes: dict[str, str | None] = {}
    for one, token in claimed.items():
        admitted = await circuits.admit(session, one.instance_name, now)
        if admitted is None:
            await claims.give_back(session, one.model, one.key, token)
        else:
            probes[one.instance_name] = admitted.probe
    return probes


async def find_oldest_pending(session: AsyncSession, conversation_ids: Sequence[Any]) -> dict[int, CallbackMessage]:
    """Of each conversation, the oldest message that is pending."""
    oldest = (
        select(func.min(CallbackMessage.id))
        .where(CallbackMessage.conversation_id.in_(conversation_ids), CallbackMessage.state == MessageState.PENDING)
        .group_by(CallbackMessage.conversation_id)
    )
    messages = await session.scalars(select(CallbackMessage).where(CallbackMessage.id.in_(oldest)))
    return {message.conversation_id: message for message in messages}

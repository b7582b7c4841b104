"""Tenants as people look at them: some numbers of many, or all there is to see of one, as it is now."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.accounts import operators
from tenants.accounts.operators import OperatorSummary
from tenants.core.errors import UnavailableError
from tenants.delivery import circuits
from tenants.delivery.circuits import CircuitSummary
from tenants.lifecycle import registry
from tenants.process.services import Services
from tenants.store.models import (
    Account,
    AuditEntry,
    CallbackMessage,
    Chat,
    ChatState,
    Drift,
    MessageState,
    Operation,
    OperatorPresence,
    ReturnedMessage,
    Tenant,
    VisitorSession,
)

_SHOWN = 50
"""Rows of each kind that are shown; how many there are in all is counted."""
_LATEST = 10


@dataclass(frozen=True, slots=True)
class Numbers:
    """Of one tenant."""

    visitors_online: int = 0
    operators_online: int = 0
    accounts: int = 0
    undelivered: int = 0
    drift: int = 0


@dataclass(frozen=True, slots=True)
class Portrait:
    """One tenant. Of what there may be many of, the first `_SHOWN`.

    Attributes:
        operators: with their devices; None while ejabberd cannot be asked.
        accounts: how many of each kind.
        undelivered, dead, returned, chats_open, visitors_online: how many there are in all.
    """

    tenant: Tenant
    accounts: dict[str, int]
    operators: list[OperatorSummary] | None
    operators_online: int
    visitors: list[VisitorSession]
    visitors_online: int
    chats: list[Chat]
    chats_open: int
    messages: list[CallbackMessage]
    undelivered: int
    dead: int
    returned: list[ReturnedMessage]
    circuit: CircuitSummary
    drift: list[Drift]
    operations: list[Operation]
    audit: list[AuditEntry]


async def numbers(services: Services, session: AsyncSession, instance_names: Sequence[str]) -> dict[str, Numbers]:
    """The numbers of these tenants."""
    counts: dict[str, tuple[Any, Any]] = {
        "visitors_online": (VisitorSession, VisitorSession.online_until > services.clock()),
        "operators_online": (OperatorPresence, OperatorPresence.online),
        "accounts": (Account, true()),
        "undelivered": (CallbackMessage, CallbackMessage.state != MessageState.DELIVERED),
        "drift": (Drift, Drift.mended_at.is_(None)),
    }
    found: dict[str, dict[str, int]] = {name: {} for name in instance_names}
    for what, (model, condition) in counts.items():
        owner = model.instance_name
        query = select(owner, func.count()).where(owner.in_(instance_names), condition).group_by(owner)
        for name, count in await session.execute(query):
            found[name][what] = count
    return {name: Numbers(**counted) for name, counted in found.items()}


async def paint(services: Services, instance_name: str) -> Portrait:
    """All there is to see of the tenant.

    Raises:
        NotFoundError: there is no such tenant, nor ever was.
    """
    await registry.get_known(services, instance_name)
    shown_operators, circuit = await asyncio.gather(
        _operators(services, instance_name), circuits.view(services, instance_name)
    )
    now = services.clock()
    async with services.database.read() as session:

        async def rows(model: Any, *conditions: Any, order: Any, limit: int = _SHOWN) -> list[Any]:
            query = select(model).where(model.instance_name == instance_name, *conditions)
            return list(await session.scalars(query.order_by(order).limit(limit)))

        async def count(model: Any, *conditions: Any) -> int:
            query = select(func.count()).where(model.instance_name == instance_name, *conditions)
            return await session.scalar(query) or 0

        is_online = VisitorSession.online_until > now
        is_undelivered = CallbackMessage.state != MessageState.DELIVERED
        return Portrait(
            tenant=await session.get_one(Tenant, instance_name),
            accounts={kind.value: n for kind, n in (await registry.count_accounts(session, instance_name)).items()},
            operators=shown_operators,
            operators_online=await count(OperatorPresence, OperatorPresence.online),
            visitors=await rows(VisitorSession, is_online, order=VisitorSession.online_until.desc()),
            visitors_online=await count(VisitorSession, is_online),
            chats=await rows(Chat, Chat.state != ChatState.CLOSED, order=Chat.created_at.desc()),
            chats_open=await count(Chat, Chat.state != ChatState.CLOSED),
            messages=await rows(CallbackMessage, is_undelivered, order=CallbackMessage.id),
            undelivered=await count(CallbackMessage, is_undelivered),
            dead=await count(CallbackMessage, CallbackMessage.state == MessageState.DEAD),
            returned=await rows(ReturnedMessage, ReturnedMessage.replayed_at.is_(None), order=ReturnedMessage.id),
            circuit=circuit,
            drift=await rows(Drift, Drift.mended_at.is_(None), order=Drift.id),
            operations=await rows(Operation, order=Operation.created_at.desc(), limit=_LATEST),
            audit=await rows(AuditEntry, order=AuditEntry.id.desc(), limit=_LATEST),
        )


async def _operators(services: Services, instance_name: str) -> list[OperatorSummary] | None:
    try:
        return await operators.find(services, instance_name, limit=_SHOWN)
    except UnavailableError:
        return None

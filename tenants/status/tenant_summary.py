"""What people are shown of tenants: some numbers of many tenants, or all there is to see of one, as it is now."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.accounts import operators
from tenants.accounts.operators import OperatorSummary
from tenants.core.clock import Clock
from tenants.core.errors import UnavailableError
from tenants.delivery import circuits, history
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
    """How much there is of one tenant."""

    visitors_online: int = 0
    operators_online: int = 0
    accounts: int = 0
    undelivered: int = 0
    drift: int = 0


@dataclass(frozen=True, slots=True)
class TenantSummary:
    """All that is shown of one tenant. Each list holds the first `_SHOWN` rows.

    Attributes:
        operators: with their devices; None while ejabberd cannot be asked.
        accounts: how many of each kind.
        undelivered, dead, returned, chats_open, visitors_online: how many there are in all.
        warning: what was strange about the answer to the latest message that was received.
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
    warning: str | None
    drift: list[Drift]
    operations: list[Operation]
    audit: list[AuditEntry]


async def numbers(clock: Clock, session: AsyncSession, instance_names: Sequence[str]) -> dict[str, Numbers]:
    """The numbers of these tenants."""
    counts: dict[str, tuple[Any, Any]] = {
        "visitors_online": (VisitorSession, VisitorSession.online_until > clock()),
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


async def read(services: Services, instance_name: str) -> TenantSummary:
    """All there is to see of the tenant.

    Raises:
        NotFoundError: there is no such tenant, nor ever was.
    """
    await registry.get_known(services.database, instance_name)
    shown_operators, circuit = await asyncio.gather(
        _operators(services, instance_name), circuits.view(services, instance_name)
    )
    now = services.clock()
    async with services.database.read() as session:
        of = _OfTenant(session, instance_name)
        is_online = VisitorSession.online_until > now
        is_undelivered = CallbackMessage.state != MessageState.DELIVERED
        return TenantSummary(
            tenant=await session.get_one(Tenant, instance_name),
            accounts={kind.value: n for kind, n in (await registry.count_accounts(session, instance_name)).items()},
            operators=shown_operators,
            operators_online=await of.count(OperatorPresence, OperatorPresence.online),
            visitors=await of.rows(VisitorSession, is_online, order=VisitorSession.online_until.desc()),
            visitors_online=await of.count(VisitorSession, is_online),
            chats=await of.rows(Chat, Chat.state != ChatState.CLOSED, order=Chat.created_at.desc()),
            chats_open=await of.count(Chat, Chat.state != ChatState.CLOSED),
            messages=await of.rows(CallbackMessage, is_undelivered, order=CallbackMessage.id),
            undelivered=await of.count(CallbackMessage, is_undelivered),
            dead=await of.count(CallbackMessage, CallbackMessage.state == MessageState.DEAD),
            returned=await of.rows(ReturnedMessage, ReturnedMessage.replayed_at.is_(None), order=ReturnedMessage.id),
            circuit=circuit,
            warning=await history.latest_warning(session, instance_name),
            drift=await of.rows(Drift, Drift.mended_at.is_(None), order=Drift.id),
            operations=await of.rows(Operation, order=Operation.created_at.desc(), limit=_LATEST),
            audit=await of.rows(AuditEntry, order=AuditEntry.id.desc(), limit=_LATEST),
        )


class _OfTenant:
    """Reads rows of one tenant."""

    def __init__(self, session: AsyncSession, instance_name: str) -> None:
        self._session = session
        self._instance_name = instance_name

    async def rows(self, model: Any, *conditions: Any, order: Any, limit: int = _SHOWN) -> list[Any]:
        query = select(model).where(model.instance_name == self._instance_name, *conditions)
        return list(await self._session.scalars(query.order_by(order).limit(limit)))

    async def count(self, model: Any, *conditions: Any) -> int:
        query = select(func.count()).where(model.instance_name == self._instance_name, *conditions)
        return await self._session.scalar(query) or 0


async def _operators(services: Services, instance_name: str) -> list[OperatorSummary] | None:
    try:
        return await operators.find(services, instance_name, limit=_SHOWN)
    except UnavailableError:
        return None

"""A registry as it is after some months: tenants, accounts, operations, deliveries and an audit log, made up as rows.

One tenant is large: a fifth of all accounts are its own. Whatever could be due is due tomorrow, and passwords open
nothing.
"""

import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, text

from tenants.core.naming import AccountKind
from tenants.store.database import Database
from tenants.store.models import (
    Account,
    AccountState,
    AuditEntry,
    Base,
    CallbackMessage,
    Chat,
    ChatState,
    Circuit,
    ConsoleUser,
    Conversation,
    DeliveryAttempt,
    Drift,
    MessageState,
    Operation,
    OperationKind,
    OperationState,
    OperationStep,
    Operator,
    OperatorPresence,
    ReturnedMessage,
    Role,
    StepState,
    Tenant,
    TenantState,
    TrafficMinute,
    VisitorSession,
)

LARGE = "shop-large"
_DAY = 86_400.0
_ROWS_AT_ONCE = 5_000
_OF_LARGE = 5
"""Every fifth account is the large tenant's."""
_DEPARTMENTS = ("sales", "support", "billing")
_STEPS = ("visitors_roster", "operators_roster", "first_operator", "verify", "activate")
_ATTEMPTS = 12
"""After so many a message is dead."""
_REFUSED = "503 Service Unavailable"

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """How much of it: accounts of all tenants together."""

    tenants: int
    accounts: int
    audit_entries: int


async def fill(database_url: str, size: Size) -> None:
    """Write all of it; the tenants must not be there yet."""
    database, registry = Database(database_url), _Registry(size)
    try:
        for model, rows in registry.all_rows():
            async with database.write() as session:
                for some in _some_at_once(rows):
                    await session.execute(insert(model), some)
        if not database.is_sqlite:
            # the server does so itself, within minutes
            async with database.statement() as connection:
                await connection.execute(text("ANALYZE"))
    finally:
        await database.close()


def _some_at_once(rows: Iterable[Values]) -> Iterator[list[Values]]:
    some: list[Values] = []
    for row in rows:
        some.append(row)
        if len(some) == _ROWS_AT_ONCE:
            yield some
            some = []
    if some:
        yield some


class _Registry:
    """The rows; the same each time, but for their moments."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._now = time.time()
        self._random = random.Random(1)
        self._names = [LARGE, *(f"shop-{number:04}" for number in range(1, size.tenants))]
        large = size.accounts // _OF_LARGE
        self._accounts = dict.fromkeys(self._names, (size.accounts - large) // (size.tenants - 1)) | {LARGE: large}
        self._accounts[self._names[-1]] += size.accounts - sum(self._accounts.values())

    def all_rows(self) -> Iterator[tuple[type[Base], Iterator[Values]]]:
        """Table by table, those that others refer to first."""
        yield Tenant, self._tenants()
        yield Account, self._all_accounts()
        yield Operator, self._operators()
        yield OperatorPresence, self._presences()
        yield VisitorSession, self._sessions()
        yield Chat, self._chats()
        yield Conversation, self._conversations()
        yield CallbackMessage, self._messages()
        yield DeliveryAttempt, self._attempts()
        yield Circuit, self._circuits()
        yield ReturnedMessage, self._returned()
        yield Drift, self._drift()
        yield Operation, self._operations()
        yield OperationStep, self._steps()
        yield AuditEntry, self._audit()
        yield ConsoleUser, self._people()
        yield TrafficMinute, self._traffic()

    def _tenants(self) -> Iterator[Values]:
        for number, name in enumerate(self._names):
            created = self._ago(90 * _DAY)
            yield {
                "instance_name": name,
                "state": TenantState.SUSPENDED if number % 20 == 1 else TenantState.ACTIVE,
                "online_seconds": 300.0,
                "idle_hours": 24.0,
                "max_accounts": 20_000,
                "created_at": created,
                "updated_at": created,
            }

    def _kinds(self, name: str) -> dict[AccountKind, int]:
        """Two of a hundred are operators at the large tenant, else three; a seventh of the others are chats."""
        count = self._accounts[name]
        operators = count // 50 if name == LARGE else 3
        chats = (count - operators) // 7
        return {
            AccountKind.OPERATOR: operators,
            AccountKind.CHAT: chats,
            AccountKind.VISITOR: count - operators - chats,
        }

    def _of_kind(self, kind: AccountKind, share: float = 1) -> Iterator[tuple[str, int, str]]:
        """Instance, number and username of those accounts; of each tenant the first, if only a share is wanted."""
        for name in self._names:
            for number in range(1, round(self._kinds(name)[kind] * share) + 1):
                ident = f"agent-{number}" if kind is AccountKind.OPERATOR else f"{kind.value}.{number}"
                yield name, number, f"{ident}.{name}"

    def _all_accounts(self) -> Iterator[Values]:
        for kind in AccountKind:
            for name, _, username in self._of_kind(kind):
                yield {
                    "username": username,
                    "instance_name": name,
                    "kind": kind,
                    "state": AccountState.ACTIVE,
                    "created_at": self._ago(_DAY / 2),
                    "last_active_at": self._ago(_DAY / 4),
                }

    def _operators(self) -> Iterator[Values]:
        for name, number, username in self._of_kind(AccountKind.OPERATOR):
            departments = [_DEPARTMENTS[number % len(_DEPARTMENTS)]]
            yield {
                "username": username,
                "instance_name": name,
                "lhc_user_id": number,
                "nick": f"Agent {number}",
                "departments": departments,
            }

    def _presences(self) -> Iterator[Values]:
        for name, number, username in self._of_kind(AccountKind.OPERATOR):
            yield {"username": username, "instance_name": name, "online": number % 3 != 0}

    def _sessions(self) -> Iterator[Values]:
        for name, number, username in self._of_kind(AccountKind.VISITOR, 0.12):
            yield {
                "username": username,
                "instance_name": name,
                "nick": "Online visitor",
                "status": f"Shop | Garden furniture | https://shop.example.org/garden/benches?page={number}",
                "online_until": self._now + _DAY,
            }

    def _chats(self) -> Iterator[Values]:
        for name, number, username in self._of_kind(AccountKind.CHAT):
            is_open = number % 5 == 1
            created = self._ago(_DAY / 4)
            yield {
                "instance_name": name,
                "chat_id": str(number),
                "username": username,
                "nick": f"Visitor {number}",
                "department": _DEPARTMENTS[number % len(_DEPARTMENTS)],
                "owner": f"agent-1.{name}",
                "state": ChatState.OWNED if is_open else ChatState.CLOSED,
                "created_at": created,
                "pending_since": created,
                "accepted_at": created + 10,
                "closed_at": None if is_open else created + 600,
            }

    def _conversations(self) -> Iterator[Values]:
        for number, (name, _, username) in enumerate(self._of_kind(AccountKind.CHAT), 1):
            due = self._now + _DAY if number % 7 == 0 else None
            yield {"id": number, "instance_name": name, "receiver": username, "due_at": due}

    def _messages(self) -> Iterator[Values]:
        """Six to a chat; of every seventh chat they wait, of every twentieth they were given up."""
        for conversation, (name, _, username) in enumerate(self._of_kind(AccountKind.CHAT), 1):
            is_pending, is_dead = conversation % 7 == 0, conversation % 20 == 0
            state = MessageState.DEAD if is_dead else MessageState.PENDING if is_pending else MessageState.DELIVERED
            for turn in range(6):
                created = self._ago(_DAY / 2)
                yield {
                    "id": conversation * 6 + turn,
                    "conversation_id": conversation,
                    "instance_name": name,
                    "stanza_id": f"seeded-{conversation}-{turn}",
                    "sender": f"agent-1.{name}",
                    "receiver": username,
                    "server": "xmpp.example.org",
                    "body": None if state is MessageState.DELIVERED else "Which bench do you mean?",
                    "state": state,
                    "attempts": _ATTEMPTS if is_dead else 3 if is_pending else 1,
                    "last_error": None if state is MessageState.DELIVERED else _REFUSED,
                    "created_at": created,
                    "finished_at": None if state is MessageState.PENDING else created + 1,
                }

    def _attempts(self) -> Iterator[Values]:
        for message in self._messages():
            for _ in range(message["attempts"]):
                is_delivered = message["state"] is MessageState.DELIVERED
                yield {
                    "message_id": message["id"],
                    "at": message["created_at"] + 1,
                    "seconds": 0.2,
                    "http_status": 200 if is_delivered else 503,
                    "error": message["last_error"],
                }

    def _circuits(self) -> Iterator[Values]:
        for name in self._names[::50]:
            yield {
                "instance_name": name,
                "failures": 9,
                "openings": 3,
                "opened_at": self._ago(_DAY / 4),
                "due_at": self._now + _DAY,
            }

    def _returned(self) -> Iterator[Values]:
        for name, number, username in self._of_kind(AccountKind.VISITOR, 0.02):
            yield {
                "instance_name": name,
                "stanza_id": f"seeded-{name}-{number}",
                "message_id": f"seeded-{number}",
                "visitor": username,
                "operator": f"agent-1.{name}",
                "body": "Is it waterproof?",
                "condition": "service-unavailable",
                "created_at": self._ago(_DAY / 4),
            }

    def _drift(self) -> Iterator[Values]:
        for name, _, username in self._of_kind(AccountKind.VISITOR, 0.02):
            yield {
                "instance_name": name,
                "kind": "unknown account",
                "subject": f"old.{username}",
                "found_at": self._ago(_DAY / 4),
            }

    def _runs(self) -> Iterator[tuple[str, str, int]]:
        """Id, instance and number of operations: three of each tenant, fifty of the large one."""
        for tenant, name in enumerate(self._names):
            for number in range(50 if name == LARGE else 3):
                yield f"{tenant:016x}{number:016x}", name, number

    def _operations(self) -> Iterator[Values]:
        for operation_id, name, number in self._runs():
            created = self._ago(60 * _DAY)
            yield {
                "id": operation_id,
                "instance_name": name,
                "kind": OperationKind.RECONCILE if number else OperationKind.PROVISION,
                "state": OperationState.FAILED if number % 10 == 1 else OperationState.SUCCEEDED,
                "requested_by": "panel",
                "error": "ejabberd does not answer" if number % 10 == 1 else None,
                "created_at": created,
                "started_at": created,
                "finished_at": created + 2,
            }

    def _steps(self) -> Iterator[Values]:
        for operation_id, _, number in self._runs():
            for position, step in enumerate(_STEPS):
                has_failed = number % 10 == 1 and position == len(_STEPS) - 1
                yield {
                    "operation_id": operation_id,
                    "position": position,
                    "name": step,
                    "state": StepState.FAILED if has_failed else StepState.SUCCEEDED,
                    "attempts": 1,
                    "done": 1,
                }

    def _audit(self) -> Iterator[Values]:
        """In the order of time; every twentieth is of the large tenant."""
        count = self._size.audit_entries
        for number in range(count):
            name = LARGE if number % 20 == 0 else self._names[number % len(self._names)]
            yield {
                "at": self._now - (count - number) * 60,
                "actor": f"console:person-{number % 50:02}",
                "action": "state",
                "instance_name": name,
                "operation_id": f"{number:032x}",
                "old_state": TenantState.RESUMING,
                "new_state": TenantState.ACTIVE,
                "reason": f"ticket {number}: paid again",
            }

    def _people(self) -> Iterator[Values]:
        for number in range(50):
            yield {
                "name": f"person-{number:02}",
                "role": Role.SUPPORT,
                "password_hash": "none",
                "created_at": self._now,
                "changed_at": self._now,
            }

    def _traffic(self) -> Iterator[Values]:
        minute = int(self._now // 60)
        for before in range(1, 60):
            yield {
                "minute": minute - before,
                "to_operators": self._random.randrange(500, 900),
                "to_visitors": self._random.randrange(400, 700),
            }

    def _ago(self, most: float) -> float:
        return self._now - self._random.uniform(0, most)

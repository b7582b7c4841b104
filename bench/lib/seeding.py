"""Visitors online that nobody had to come for: rows of accounts and sessions, written straight into the database.

ejabberd knows nothing of these accounts, and need not: a visitor has no session there. A pool process finds them when
it starts.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import insert

from bench.lib.harness import PASSWORD
from bench.lib.watching import Login
from bench.testbed.lhc import Lhc
from bench.testbed.panel import Panel
from bench.testbed.system import System
from tenants.core.naming import AccountKind
from tenants.store.database import Database
from tenants.store.models import Account, AccountState, VisitorSession

_ONLINE_SECONDS = 24 * 3600.0
_ROWS_AT_ONCE = 5000
_TENANTS_AT_ONCE = 8
_NICK = "Online visitor"
_PAGE = "Shop | Garden furniture | https://shop.example.org/garden/furniture/benches?page=%d"
"""What a visitor's status says, of usual length."""


async def open_tenants(system: System, names: Sequence[str], operator: str) -> dict[str, str]:
    """Tenants with an operator each. Returns their keys."""
    api = str(system.endpoints["api"])
    gate, keys = asyncio.Semaphore(_TENANTS_AT_ONCE), dict[str, str]()

    async def open_one(panel: Panel, name: str) -> None:
        async with gate:
            created = await panel.create(name)
            keys[name] = str(created["secret_key"])
            lhc = Lhc(name, base=f"{api}/t/{name}", secret_key=keys[name], host=str(system.endpoints["xmpp_host"]))
            await lhc.new_operator(operator, PASSWORD)

    async with Panel(api, str(system.endpoints["panel_token"])) as panel:
        await asyncio.gather(*(open_one(panel, name) for name in names))
    return keys


def login_of(system: System, username: str) -> Login:
    """How that operator logs in."""
    return Login(username, str(system.endpoints["xmpp_host"]), PASSWORD, int(system.endpoints["c2s_port"]))


async def seed(system: System, instance_names: Sequence[str], first: int, beyond: int) -> None:
    """Visitors with the numbers from `first` to before `beyond`, of the tenants in turn, online for a day."""
    database = Database(str(system.endpoints["database_url"]))
    try:
        for start in range(first, beyond, _ROWS_AT_ONCE):
            numbers = range(start, min(start + _ROWS_AT_ONCE, beyond))
            async with database.write() as session:
                await session.execute(insert(Account), list(_accounts(instance_names, numbers)))
                await session.execute(insert(VisitorSession), list(_sessions(instance_names, numbers)))
    finally:
        await database.close()


def _accounts(instance_names: Sequence[str], numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    now = time.time()
    for number in numbers:
        name = instance_names[number % len(instance_names)]
        yield {
            "username": f"visitor.{number}.{name}",
            "instance_name": name,
            "kind": AccountKind.VISITOR,
            "state": AccountState.ACTIVE,
            "created_at": now,
            "last_active_at": now,
        }


def _sessions(instance_names: Sequence[str], numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    ends = time.time() + _ONLINE_SECONDS
    for number in numbers:
        name = instance_names[number % len(instance_names)]
        yield {
            "username": f"visitor.{number}.{name}",
            "instance_name": name,
            "nick": _NICK,
            "status": _PAGE % number,
            "online_until": ends,
        }

"""Ends visitors' sessions: when their window is over, their tenant is closed, or it may not show them any more.

Operators are told in bulk, in turns. A session's row is removed after they were told: if this process dies before that,
the next one finds the row and tells them. Sessions whose end failed half-way are put back into the table, and ended
again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from tenants.core.naming import domain_of
from tenants.lifecycle import admission
from tenants.process.services import Services
from tenants.store.database import DATABASE_AWAY
from tenants.store.models import Tenant
from tenants.visitors import stored_sessions
from tenants.visitors.stored_sessions import Session
from xmpp_pool import stanzas
from xmpp_pool.announcer import Announcer, jid_of
from xmpp_pool.fanout import Fanout
from xmpp_pool.operator_directory import OperatorDirectory
from xmpp_pool.sessions import SessionTable
from xmpp_pool.stream import StreamLostError

_ENDS_AT_ONCE = 500
"""Sessions that are looked at, and ended, together."""


class SessionEnds:
    """Ends sessions, of the same table that the announcer shows."""

    def __init__(
        self,
        services: Services,
        announcer: Announcer,
        operators: OperatorDirectory,
        sessions: SessionTable,
        fanout: Fanout,
        *,
        serves: Callable[[str], bool],
    ) -> None:
        self._services = services
        self._announcer = announcer
        self._operators = operators
        self._sessions = sessions
        self._fanout = fanout
        self._serves = serves

    async def close(self, instance_name: str) -> bool:
        """End all sessions of a tenant. Returns False if another process serves it by now, which then ends them.

        Raises:
            StreamLostError, DATABASE_AWAY: to be done again.
        """
        sessions = self._sessions.of_tenant(instance_name)
        self._sessions.drop([instance_name])
        if len(await self._say_gone(sessions)) < len(sessions) or not self._serves(instance_name):
            return False
        # the tenant's end waits for these rows to go
        await stored_sessions.remove_of_tenant(self._services.database, instance_name)
        return True

    async def expire(self) -> None:
        """Announce the end of sessions whose window is over."""
        now = self._services.clock()
        while self._sessions.is_due(now):
            await self._end_due(self._sessions.take_due(now, _ENDS_AT_ONCE), now)
            # give way to others: a piece whose sessions were all prolonged by commands waits for nothing else
            await asyncio.sleep(0)

    async def _end_due(self, due: list[Session], now: float) -> None:
        try:
            prolonged = await stored_sessions.read_prolonged(
                self._services.database, [session.username for session in due], now
            )
        except DATABASE_AWAY:
            for session in due:
                self._sessions.go_on(session)
            raise
        gone = [session for session in due if self._is_over(session, prolonged, now)]
        for session in gone:
            self._sessions.remove(session.instance_name, session.username)
        # if another process serves the tenant now, that one tells operators
        told = await self._say_gone([session for session in gone if self._serves(session.instance_name)])
        try:
            returned = await stored_sessions.remove_ended(
                self._services.database, [session.username for session in told], now
            )
        except DATABASE_AWAY:
            self._put_back(told)
            raise
        for session in returned:
            self._announcer.announce(session)

    def _is_over(self, due: Session, prolonged: dict[str, float], now: float) -> bool:
        """Whether the session is over by now: commands or page views may have prolonged it. If not, it goes on."""
        session = self._sessions.get(due.instance_name, due.username)
        if session is None:
            return False
        # its nick and status stay: a command brings new ones, and then operators are told
        session.online_until = max(session.online_until, prolonged.get(session.username, 0.0))
        if session.online_until <= now:
            return True
        self._sessions.go_on(session)
        return False

    async def close_refused(self) -> None:
        """End the sessions whose tenant was shut, or lost the feature, since their page view was accepted.

        The workflow that shuts a tenant closes its sessions, too; but a command that was on its way comes after that.
        """
        more = True
        while more:
            refused = list(islice(self._refused(await self._limited_tenants()), _ENDS_AT_ONCE))
            more = len(refused) == _ENDS_AT_ONCE
            await self._refuse(refused)

    async def _refuse(self, refused: list[Session]) -> None:
        if not refused:
            return
        for session in refused:
            self._sessions.remove(session.instance_name, session.username)
        told = await self._say_gone(refused)
        # a row of another version is of a later page view: refused in the next run, or rightly accepted
        try:
            await stored_sessions.remove_unchanged(self._services.database, told)
        except DATABASE_AWAY:
            self._put_back(told)
            raise

    async def _limited_tenants(self) -> list[Tenant]:
        """Of the tenants that we serve and that have sessions, those that may not have all kinds of them."""
        served = [name for name in self._sessions.tenants() if self._serves(name)]
        return await admission.limited_of(self._services.database, served)

    def _refused(self, tenants: Iterable[Tenant]) -> Iterator[Session]:
        kind_of = self._services.naming.parse_username
        for tenant in tenants:
            is_shut = (
                admission.refusal(tenant) is not None
            )  # then names need not be read: they may be of the other mode
            for session in self._sessions.of_tenant(tenant.instance_name):
                if is_shut or admission.refusal(tenant, kind_of(session.username).kind):
                    yield session

    async def _say_gone(self, sessions: list[Session]) -> list[Session]:
        """Tell operators that these visitors left. They are out of the table already, and are put back if this fails.

        Returns those of whom operators were told: another process serves the tenants of the others by now.

        Raises:
            StreamLostError: to be done again.
        """
        by_tenant: dict[str, list[Session]] = defaultdict(list)
        for session in sessions:
            by_tenant[session.instance_name].append(session)
        try:
            told = await asyncio.gather(
                *(self._fanout.tell(name, self._farewells(name, gone)) for name, gone in by_tenant.items())
            )
        except StreamLostError:
            self._put_back(sessions)
            raise
        return [one for done, gone in zip(told, by_tenant.values(), strict=True) if done for one in gone]

    def _farewells(self, instance_name: str, gone: list[Session]) -> Iterator[str]:
        """The presences that say so to the tenant's operators; none of a visitor who is back when its turn comes."""
        for session in gone:
            if self._sessions.get(instance_name, session.username) is None:
                for jid in self._operators.jids(instance_name):
                    yield stanzas.unavailable(jid_of(session.username, domain_of(jid)), jid)

    def _put_back(self, sessions: Iterable[Session]) -> None:
        """Their end is still to be told, or recorded."""
        for session in sessions:
            self._sessions.put(session)

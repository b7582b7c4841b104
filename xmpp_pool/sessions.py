"""Virtual sessions: each stands in the place of a visitor's own XMPP connection. Pure data, no I/O."""

import heapq
from collections import defaultdict
from collections.abc import Iterable

from tenants.visitors.stored_sessions import Session

_VOID_ENTRIES = 1000
"""The heap is made anew when it has so many entries more than twice the number of sessions."""


class SessionTable:
    """All sessions of this process, by tenant, and which of them are over.

    The ends are a heap with an entry per session. A page view only changes `online_until`; the entry is corrected when
    it comes up, so to prolong a session costs nothing. The entry of a session that was removed before its end stays
    until it comes up, or until such entries are more than half of the heap.
    """

    def __init__(self) -> None:
        self._by_tenant: dict[str, dict[str, Session]] = defaultdict(dict)
        self._ends: list[tuple[float, str, str]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, instance_name: str, username: str) -> Session | None:
        """The session, if there is one."""
        sessions = self._by_tenant.get(instance_name)
        return None if sessions is None else sessions.get(username)

    def of_tenant(self, instance_name: str) -> list[Session]:
        """The tenant's sessions."""
        return list(self._by_tenant.get(instance_name, {}).values())

    def usernames(self, instance_name: str) -> list[str]:
        """The usernames of the tenant's sessions."""
        return list(self._by_tenant.get(instance_name, ()))

    def tenants(self) -> list[str]:
        """The instance names of all that have sessions."""
        return list(self._by_tenant)

    def drop(self, instance_names: Iterable[str]) -> None:
        """Forget all sessions of these tenants."""
        for instance_name in instance_names:
            self._count -= len(self._by_tenant.pop(instance_name, ()))
        self._forget_void_ends()

    def put(self, session: Session) -> bool:
        """Add or renew. True when operators are to be told: the session is new, or its nick or status changed."""
        sessions = self._by_tenant[session.instance_name]
        known = sessions.get(session.username)
        if known is None:
            sessions[session.username] = session
            self._count += 1
            self._forget_void_ends()
            self.go_on(session)
            return True
        if session.version < known.version:
            return False
        sessions[session.username] = session
        session.online_until = max(session.online_until, known.online_until)
        return (known.nick, known.status) != (session.nick, session.status)

    def absorb(self, other: "SessionTable") -> None:
        """Take over all sessions of another table, in next to no time. The other one must not be used afterwards."""
        by_tenant, ends = other._by_tenant, other._ends  # noqa: SLF001 - one of our own
        for instance_name, sessions in by_tenant.items():
            if instance_name in self._by_tenant:
                for session in sessions.values():
                    self.put(session)
            else:
                self._by_tenant[instance_name] = sessions
                self._count += len(sessions)
        self._ends += ends
        heapq.heapify(self._ends)

    def remove(self, instance_name: str, username: str) -> Session | None:
        """Take the session out, and give it."""
        sessions = self._by_tenant.get(instance_name)
        removed = None if sessions is None else sessions.pop(username, None)
        if removed is not None:
            self._count -= 1
        if not sessions:
            self._by_tenant.pop(instance_name, None)
        return removed

    def is_due(self, now: float) -> bool:
        """Whether `take_due` has something to do."""
        return bool(self._ends) and self._ends[0][0] <= now

    def take_due(self, now: float, at_most: int) -> list[Session]:
        """Sessions that are over, as far as is known here. Looks at `at_most` entries, so the call is always short.

        They stay in the table and are not returned again: the caller removes each, or calls `go_on`.
        """
        due: list[Session] = []
        for _ in range(at_most):
            if not self.is_due(now):
                break
            _, instance_name, username = self._ends[0]
            session = self.get(instance_name, username)
            if session is not None and session.online_until > now:
                heapq.heapreplace(self._ends, (session.online_until, instance_name, username))
                continue
            heapq.heappop(self._ends)
            if session is not None:
                due.append(session)
        return due

    def go_on(self, session: Session) -> None:
        """A session that was due ends later, or is to be returned by `take_due` once more."""
        heapq.heappush(self._ends, (session.online_until, session.instance_name, session.username))

    def _forget_void_ends(self) -> None:
        """A visitor who comes and goes again and again leaves an entry each time: the heap must not grow by that."""
        if len(self._ends) > 2 * self._count + _VOID_ENTRIES:
            self._ends = [
                (session.online_until, session.instance_name, session.username)
                for sessions in self._by_tenant.values()
                for session in sessions.values()
            ]
            heapq.heapify(self._ends)

"""Virtual sessions: what a visitor costs us instead of an XMPP connection. Pure data, no I/O."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(slots=True)
class Session:
    """A visitor or chat that operators see as online until `online_until` (Unix seconds)."""

    username: str
    instance_name: str
    nick: str
    status: str
    online_until: float
    version: int


class SessionTable:
    """All sessions of this process, by tenant, and which of them are over.

    Expiry is a heap with one entry per session. A page view only moves `online_until`; the entry is put right when
    it comes up, so extending costs nothing.
    """

    def __init__(self) -> None:
        self._by_tenant: dict[str, dict[str, Session]] = defaultdict(dict)
        self._ends: list[tuple[float, str, str]] = []

    def __len__(self) -> int:
        return sum(map(len, self._by_tenant.values()))

    def get(self, instance_name: str, username: str) -> Session | None:
        """The session, if there is one."""
        return self._by_tenant.get(instance_name, {}).get(username)

    def of_tenant(self, instance_name: str) -> Iterable[Session]:
        """The tenant's sessions."""
        return list(self._by_tenant.get(instance_name, {}).values())

    def tenants(self) -> list[str]:
        """The instance names of all that have sessions."""
        return list(self._by_tenant)

    def drop(self, instance_names: Iterable[str]) -> None:
        """Forget all sessions of these tenants."""
        for instance_name in instance_names:
            self._by_tenant.pop(instance_name, None)

    def put(self, session: Session) -> bool:
        """Add or renew. True when operators are to be told: the session is new, or its nick or status changed."""
        sessions = self._by_tenant[session.instance_name]
        known = sessions.get(session.username)
        if known is None:
            sessions[session.username] = session
            heapq.heappush(self._ends, (session.online_until, session.instance_name, session.username))
            return True
        if session.version < known.version:
            return False
        sessions[session.username] = session
        session.online_until = max(session.online_until, known.online_until)
        return (known.nick, known.status) != (session.nick, session.status)

    def remove(self, instance_name: str, username: str) -> Session | None:
        """Take the session out, and give it."""
        sessions = self._by_tenant.get(instance_name, {})
        removed = sessions.pop(username, None)
        if not sessions:
            self._by_tenant.pop(instance_name, None)
        return removed

    def remove_expired(self, now: float) -> Iterator[Session]:
        """Take out the sessions that are over, and give each."""
        while self._ends and self._ends[0][0] <= now:
            _, instance_name, username = heapq.heappop(self._ends)
            session = self.get(instance_name, username)
            if session is None:
                continue
            if session.online_until > now:
                heapq.heappush(self._ends, (session.online_until, instance_name, username))
                continue
            self.remove(instance_name, username)
            yield session

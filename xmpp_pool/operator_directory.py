"""Which operators are there, with which connections. Pure data, no I/O."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Connection:
    """One connection of an operator that has sent available presence.

    Attributes:
        next_ping_at: on the monotonic clock, in seconds.
        priority: with one below zero it sees who is there, and is sent no messages (RFC 6121, 4.7.2.3).
        away: its presence says so (RFC 6121, 4.7.2.1).
        node: of ejabberd's cluster, which has it.
    """

    jid: str
    next_ping_at: float
    priority: int = 0
    away: bool = False
    node: str = ""

    @property
    def is_reachable(self) -> bool:
        """Whether ejabberd gives it messages. An operator is online with one that is."""
        return self.priority >= 0


@dataclass(slots=True)
class _Tenant:
    operators: dict[str, dict[str, Connection]] = field(default_factory=lambda: defaultdict(dict))


class OperatorDirectory:
    """Connections by tenant, operator and full JID."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = defaultdict(_Tenant)

    def put(self, instance_name: str, username: str, connection: Connection) -> tuple[bool, bool]:
        """Note a connection, or what it says now. Returns whether it is new, and whether it was away and is no more."""
        connections = self._tenants[instance_name].operators[username]
        known = connections.setdefault(connection.jid, connection)
        came_back = known.away and not connection.away
        known.priority, known.away, known.node = connection.priority, connection.away, connection.node
        return known is connection, came_back

    def remove(self, instance_name: str, username: str, jid: str, node: str) -> None:
        """Note the end of a connection at that node. One of the same JID may have begun at another node meanwhile."""
        operators = self._tenants[instance_name].operators
        known = operators[username].get(jid)
        if known is not None and known.node == node:
            del operators[username][jid]
        if not operators[username]:
            del operators[username]
        if not operators:
            del self._tenants[instance_name]

    def jids(self, instance_name: str) -> list[str]:
        """The full JIDs of all connections of the tenant's operators."""
        tenant = self._tenants.get(instance_name)
        if tenant is None:
            return []
        return [jid for connections in tenant.operators.values() for jid in connections]

    def jids_of(self, instance_name: str, username: str) -> list[str]:
        """The full JIDs of the operator's connections that can be reached."""
        tenant = self._tenants.get(instance_name)
        connections = tenant.operators.get(username, {}) if tenant else {}
        return [connection.jid for connection in connections.values() if connection.is_reachable]

    def is_online(self, instance_name: str, username: str) -> bool:
        """Whether the operator can be reached."""
        return bool(self.jids_of(instance_name, username))

    def is_there(self, instance_name: str, jid: str) -> bool:
        """Whether that connection of an operator of the tenant is there."""
        tenant = self._tenants.get(instance_name)
        return tenant is not None and jid in tenant.operators.get(jid.partition("@")[0], ())

    def usernames(self) -> set[str]:
        """The operators online, of all tenants: those who can be reached."""
        return {
            username
            for tenant in self._tenants.values()
            for username, connections in tenant.operators.items()
            if any(connection.is_reachable for connection in connections.values())
        }

    def connections(self) -> Iterable[tuple[str, str, Connection]]:
        """All connections as (instance name, username, connection)."""
        return [
            (instance_name, username, connection)
            for instance_name, tenant in self._tenants.items()
            for username, connections in tenant.operators.items()
            for connection in connections.values()
        ]

    def clear(self) -> None:
        """Forget everything, before ejabberd is asked who is online."""
        self._tenants.clear()

"""Which operators are online, with which connections. Pure data, no I/O."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Connection:
    """One connection of an operator. `next_ping_at` is on the monotonic clock, in seconds."""

    jid: str
    next_ping_at: float
    away: bool = False


@dataclass(slots=True)
class _Tenant:
    operators: dict[str, dict[str, Connection]] = field(default_factory=lambda: defaultdict(dict))


class OperatorDirectory:
    """Connections by tenant, operator and full JID."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = defaultdict(_Tenant)

    def add(self, instance_name: str, username: str, connection: Connection) -> tuple[bool, bool]:
        """Note a connection. Returns whether it is new, and whether it is the operator's first."""
        connections = self._tenants[instance_name].operators[username]
        first = not connections
        new = connection.jid not in connections
        if new:
            connections[connection.jid] = connection
        return new, first

    def set_away(self, instance_name: str, username: str, jid: str, *, away: bool) -> bool:
        """Note whether a connection that is there is away. Returns whether it was, and is no more."""
        connection = self._tenants[instance_name].operators[username][jid]
        came_back = connection.away and not away
        connection.away = away
        return came_back

    def remove(self, instance_name: str, username: str, jid: str) -> bool:
        """Note the end of a connection. Returns whether it was known, and the operator's last."""
        operators = self._tenants[instance_name].operators
        known = operators[username].pop(jid, None)
        gone = not operators[username]
        if gone:
            del operators[username]
        if not operators:
            del self._tenants[instance_name]
        return known is not None and gone

    def jids(self, instance_name: str) -> list[str]:
        """The full JIDs of all the tenant's operators online."""
        tenant = self._tenants.get(instance_name)
        if tenant is None:
            return []
        return [jid for connections in tenant.operators.values() for jid in connections]

    def jids_of(self, instance_name: str, username: str) -> list[str]:
        """The full JIDs of one operator online."""
        tenant = self._tenants.get(instance_name)
        return list(tenant.operators[username]) if tenant and username in tenant.operators else []

    def is_online(self, instance_name: str, jid: str) -> bool:
        """Whether that connection of an operator of the tenant is there."""
        tenant = self._tenants.get(instance_name)
        return tenant is not None and jid in tenant.operators.get(jid.partition("@")[0], ())

    def usernames(self) -> set[str]:
        """The operators online, of all tenants."""
        return {username for tenant in self._tenants.values() for username in tenant.operators}

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

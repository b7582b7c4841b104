"""Which tenant bears a name now, and on which host: since a command was published, another may have got its name.

Only the database knows. It is not asked for each command: what was read is believed for a shorter time than a name
rests between two tenants (`tenants.lifecycle.registry`).
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tenants.lifecycle.incarnations import Incarnation, incarnations_of
from tenants.process.services import Services
from tenants.shards.commands import AnyCommand, CloseTenant, CloseVisitor

_BELIEVED_SECONDS = 4.0
_USED_SECONDS = 60.0
"""A tenant is read again in advance for so long after the last command for it."""


@dataclass(slots=True)
class _Life:
    """`incarnation`: None when there is no such tenant (any more)."""

    incarnation: Incarnation | None
    read_at: float
    used_at: float


class Lives:
    """The tenants for which one pool process had commands lately."""

    def __init__(self, services: Services, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._monotonic = monotonic
        self._known: dict[str, _Life] = {}

    async def learn(self, instance_names: Iterable[str]) -> None:
        """Read those of these tenants that are not known, or were read too long ago.

        Raises:
            DATABASE_AWAY: the registry could not be asked.
        """
        now = self._monotonic()
        unknown: set[str] = set()
        for name in instance_names:
            life = self._known.get(name)
            if life is None or life.read_at < now - _BELIEVED_SECONDS:
                unknown.add(name)
            else:
                life.used_at = now
        await self._read(sorted(unknown), now)

    async def refresh(self) -> None:
        """Read the tenants in use again, so that no command waits for that. To be called every two seconds.

        Raises:
            DATABASE_AWAY: the registry could not be asked.
        """
        now = self._monotonic()
        self._known = {name: life for name, life in self._known.items() if life.used_at > now - _USED_SECONDS}
        await self._read(list(self._known))

    def concerns(self, command: AnyCommand) -> bool:
        """Whether the command is for the tenant that bears the name now. Call `learn` with its name before."""
        if command.incarnation is None or isinstance(command, CloseTenant):
            return True
        present = self._known[command.instance_name].incarnation
        # what ends a tenant closes its visitors, and these commands may come when it is gone
        if present is None:
            return isinstance(command, CloseVisitor)
        return present.id == command.incarnation

    def host_of(self, instance_name: str) -> str:
        """The XMPP host of the tenant; the default one when it is gone. Call `learn` with its name before."""
        life = self._known.get(instance_name)
        if life is None or life.incarnation is None:
            return self._services.settings.xmpp_host
        return life.incarnation.host

    async def _read(self, names: Sequence[str], used_at: float | None = None) -> None:
        now = self._monotonic()
        found = await incarnations_of(self._services.database, names)
        for name in names:
            before = self._known.get(name)
            last = used_at if used_at is not None else before.used_at if before else now
            self._known[name] = _Life(found.get(name), now, last)

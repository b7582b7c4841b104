"""Presence in bulk: a new operator is shown thousands of visitors, or thousands of visitors leave at once.

Tenants take turns of a few stanzas each, and no more is written at a time than ejabberd handles in some ten
milliseconds. So one tenant's bulk delays neither the bulk of others nor messages and news, which are written straight
to the stream. A stanza is made when its turn comes, from what is true then, so nothing out of date is written last.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from xmpp_pool.gateway import Gateway
from xmpp_pool.stream import StreamLostError

_TURN = 50
"""Stanzas that a tenant writes before the next tenant has its turn."""
_UNCONFIRMED = 200
"""Stanzas at most that are written and not handled by ejabberd yet. A message may have to wait for so many."""


@dataclass(slots=True)
class _Bulk:
    """Stanzas, each made when it is taken. `told` gets its result when ejabberd has handled them all."""

    stanzas: Iterator[str]
    told: asyncio.Future[bool] | None = None


class Fanout:
    """What is to be written in bulk, by tenant."""

    def __init__(self, gateway: Gateway, serves: Callable[[str], bool]) -> None:
        self._gateway = gateway
        self._serves = serves
        self._bulks: OrderedDict[str, dict[object, _Bulk]] = OrderedDict()
        """By tenant; the first has the next turn. Bounded by the operators online and the callers of `tell`."""
        self._written: list[asyncio.Future[bool]] = []
        """Of the callers of `tell` whose stanzas are all written, but not yet known to be handled."""
        self._work = asyncio.Event()

    def show(self, instance_name: str, jid: str, stanzas: Iterable[str]) -> None:
        """Show these presences to an operator's connection, in the place of those that it was still to be shown."""
        self._add(instance_name, jid, _Bulk(iter(stanzas)))

    async def tell(self, instance_name: str, stanzas: Iterable[str]) -> bool:
        """Write these. Returns True when ejabberd has handled them all, False if another process serves the tenant now.

        Raises:
            StreamLostError: the stream ended; some may have been handled.
        """
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._add(instance_name, told, _Bulk(iter(stanzas), told))
        return await told

    def tenants(self) -> list[str]:
        """The instance names of all for whom something waits."""
        return list(self._bulks)

    def drop(self, instance_names: Iterable[str]) -> None:
        """Forget the bulk of these tenants: another process serves them now."""
        for instance_name in instance_names:
            for bulk in self._bulks.pop(instance_name, {}).values():
                if bulk.told is not None and not bulk.told.done():
                    bulk.told.set_result(False)

    async def run(self) -> None:
        """Write what waits; until cancelled."""
        while True:
            await self._work.wait()
            await self._gateway.wait_established()
            try:
                await self._write_some()
            except StreamLostError:
                self._fail()
            if not self._bulks:
                self._work.clear()

    def _add(self, instance_name: str, key: object, bulk: _Bulk) -> None:
        self._bulks.setdefault(instance_name, {})[key] = bulk
        self._work.set()

    async def _write_some(self) -> None:
        """Give tenants their turns until enough is written, and return when ejabberd has handled it."""
        written = 0
        while written < _UNCONFIRMED and self._bulks:
            instance_name = next(iter(self._bulks))
            if self._serves(instance_name):
                written += self._write_turn(instance_name)
            else:
                self.drop([instance_name])
        if written or self._written:
            await self._gateway.confirm()
        for told in self._written:
            if not told.done():
                told.set_result(True)
        self._written.clear()

    def _write_turn(self, instance_name: str) -> int:
        bulks = self._bulks[instance_name]
        key, bulk = next(iter(bulks.items()))
        written = 0
        for xml in islice(bulk.stanzas, _TURN):
            self._gateway.send(xml)
            written += 1
        if written < _TURN:
            del bulks[key]
            if bulk.told is not None:
                self._written.append(bulk.told)
        if bulks:
            self._bulks.move_to_end(instance_name)
        else:
            del self._bulks[instance_name]
        return written

    def _fail(self) -> None:
        """Callers of `tell` must call again. For shows nothing is to be done: on the next stream all is shown anew."""
        lost, self._written = self._written, []
        for bulks in self._bulks.values():
            for key, bulk in list(bulks.items()):
                if bulk.told is not None:
                    lost.append(bulk.told)
                    del bulks[key]
        self._bulks = OrderedDict((name, bulks) for name, bulks in self._bulks.items() if bulks)
        for told in lost:
            if not told.done():
                told.set_exception(StreamLostError())

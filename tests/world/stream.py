"""The pool's stream without a server: keeps what is written, in order, and confirms it when the test says so."""

import asyncio
import re
from typing import cast

from bench.testbed.waiting import until
from xmpp_pool.gateway import Gateway
from xmpp_pool.stream import StreamLostError

_TO, _FROM = re.compile(r" to=[\"']([^\"']*)"), re.compile(r" from=[\"']([^@\"']*)")


class Stream:
    """In the place of a `Gateway`.

    Attributes:
        written: all stanzas, in order.
        confirmed_at: how many had been written whenever the server confirmed.
        up: set while there is a stream.
        goes_on: set while the server handles what is written.
    """

    def __init__(self) -> None:
        self.written: list[str] = []
        self.confirmed_at: list[int] = []
        self.up = asyncio.Event()
        self.up.set()
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self._confirming = 0

    @property
    def gateway(self) -> Gateway:
        """As who writes to it knows it."""
        return cast(Gateway, self)

    def send(self, xml: str) -> None:
        if not self.up.is_set():
            raise StreamLostError
        self.written.append(xml)

    async def wait_established(self) -> None:
        await self.up.wait()

    async def confirm(self) -> None:
        self._confirming += 1
        try:
            await asyncio.sleep(0)
            await self.goes_on.wait()
        finally:
            self._confirming -= 1
        if not self.up.is_set():
            raise StreamLostError
        self.confirmed_at.append(len(self.written))

    async def handled(self, count: int) -> None:
        """Wait until the server has handled so many stanzas, and nothing more is under way."""
        await until(lambda: count in self.confirmed_at[-1:] and not self._confirming, f"{count} stanzas are handled")

    def seen_by(self, jid: str) -> dict[str, str]:
        """What the operator's connection was told last of each visitor: its status, or `left`."""
        seen: dict[str, str] = {}
        for xml in self.written:
            to, sender = _TO.search(xml), _FROM.search(xml)
            if to and sender and to[1] == jid:
                seen[sender[1]] = "left" if "unavailable" in xml else xml.partition("<status>")[2].partition("<")[0]
        return seen

    def receivers(self) -> list[str]:
        """To whom the stanzas went, in order."""
        return [found[1] for xml in self.written if (found := _TO.search(xml))]

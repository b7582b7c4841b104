"""One stream to ejabberd, as slixmpp has it, which also tells whether the server takes what is written."""

import asyncio
from typing import cast

from slixmpp import ComponentXMPP, Iq

from config.settings import Settings

_NOT_TAKEN = 256 * 1024
"""Bytes that the server has not taken; beyond so many there is no `room`."""


class StreamLostError(Exception):
    """The stream ended before the server confirmed what was sent; it is to be sent again on the next one."""


class Stream(ComponentXMPP):
    """A component's stream that also tells whether the server takes what is written, and who waits for an answer."""

    def __init__(self, settings: Settings, host: str, port: int) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            settings.component_jid,
            settings.component_secret.get_secret_value(),
            host,
            port,
        )
        # slixmpp would keep a roster entry per JID it ever heard of; and it tries TLS by itself otherwise
        self.remove_handler("Presence")
        self.enable_direct_tls = False
        self.room = asyncio.Event()
        self.room.set()
        self.lost = asyncio.Event()
        self._asked: set[asyncio.Future[Iq]] = set()
        self.add_event_handler("disconnected", self._disconnected)

    def connection_made(self, transport: asyncio.BaseTransport, send_event: bool = True) -> None:
        super().connection_made(transport, send_event)
        cast(asyncio.WriteTransport, transport).set_write_buffer_limits(high=_NOT_TAKEN)

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    async def ask(self, iq: Iq, timeout: float) -> Iq:  # noqa: ASYNC109 - the wait is slixmpp's own
        """Send an IQ and wait for the answer, which is returned.

        Raises:
            IqError: the answer is an error.
            IqTimeout: there was none in time.
            StreamLostError: the stream ended.
        """
        answer: asyncio.Future[Iq] = iq.send(timeout=timeout)
        self._asked.add(answer)
        answer.add_done_callback(self._asked.discard)
        return await answer

    def _disconnected(self, _reason: object) -> None:
        self.lost.set()
        self.room.set()
        # slixmpp would have them wait for their time-out
        for answer in list(self._asked):
            if not answer.done():
                answer.set_exception(StreamLostError())

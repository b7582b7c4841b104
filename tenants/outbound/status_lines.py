"""Reads the status of an answer whose head aiohttp's parser refuses.

A header too long or misspelt, two lengths, a head that breaks off: the server has our request all the same.
"""

import functools
import re
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

_MOST = 16 * 1024
"""Bytes of an answer in which its status is looked for: interim answers may come first."""
_STATUS_LINE = re.compile(rb"HTTP/\d(?:\.\d)? +(\d{3})(?!\d)")
_FINAL = 200
"""Below are interim answers (RFC 9110, 15.2)."""


class BrokenHeadError(aiohttp.ClientError):
    """The head of an answer could not be read, but for its status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def read_status(beginning: bytes) -> int | None:
    """The status of an answer that begins so, behind the interim ones; None when it has none."""
    for head in re.split(rb"\r?\n\r?\n", beginning.lstrip()):
        found = _STATUS_LINE.match(head)
        if found is None:
            return None
        if int(found[1]) >= _FINAL:
            return int(found[1])
    return None


class _Protocol(ResponseHandler):
    """Keeps the beginning of an answer as it came, until its head was read."""

    beginning: bytes | None = None

    def set_response_params(self, **params: Any) -> None:
        """A request begins."""
        self.beginning = b""
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        if self.beginning is not None and len(self.beginning) < _MOST:
            self.beginning += data[:_MOST]
        super().data_received(data)


class Connector(aiohttp.TCPConnector):
    """Opens connections that remember how an answer began."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # the parser says nothing of a head that it refuses, and aiohttp has no public way to look at its bytes
        protocol: type[ResponseHandler] = _Protocol
        self._factory = functools.partial(protocol, loop=self._loop)


class Response(aiohttp.ClientResponse):
    """An answer of a `Connector`'s connection."""

    async def start(self, connection: Connection) -> "aiohttp.ClientResponse":
        """Read the head.

        Raises:
            BrokenHeadError: the status alone could be read.
            ClientError, TimeoutError: not even that.
        """
        protocol = cast("_Protocol", connection.protocol)
        try:
            return await super().start(connection)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            status = read_status(protocol.beginning or b"")
            if status is None:
                raise
            raise BrokenHeadError(status) from error
        finally:
            protocol.beginning = None

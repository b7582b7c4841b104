"""The addresses of ejabberd's nodes, as DNS has them now: a name may have the address of each node."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence

import structlog

from xmpp_pool.link import Address

log = structlog.get_logger(__name__)

_PAUSE = 15.0
_NONE_PAUSE = 1.0
"""Seconds until names are looked up again: when there are addresses, and when there are none yet."""


async def node_addresses(hosts: Sequence[Address]) -> AsyncIterator[set[Address]]:
    """All addresses of the hosts, whenever they have been looked up. Those of a name that fails now stay."""
    known: dict[Address, set[Address]] = {host: set() for host in hosts}
    while True:
        for host in known:
            try:
                known[host] = await _look_up(host)
            except OSError as error:
                log.warning("an address of ejabberd is not found", host=host[0], error=str(error))
        found = set[Address]().union(*known.values())
        yield found
        await asyncio.sleep(_PAUSE if found else _NONE_PAUSE)


async def _look_up(host: Address) -> set[Address]:
    entries = await asyncio.get_running_loop().getaddrinfo(*host, type=socket.SOCK_STREAM)
    return {(str(entry[4][0]), int(entry[4][1])) for entry in entries}

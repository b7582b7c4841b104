"""Who opens the connections to tenants' servers, and so decides which addresses may be reached."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpcore

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host and port, best first; at least one.

Raises:
    OSError: there are none.
"""
_LOOPBACK = "127.0.0.1"
_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All that IANA gives addresses out from."""
_NAT64 = IPv6Network("64:ff9b::/96")
_NOT_PUBLIC = (
    IPv4Network("192.0.0.0/24"),  # IETF protocol assignments; Python knows of a part only
    IPv4Network("168.63.129.16/32"),  # what Azure's virtual machines reach their own host by
    IPv6Network("3fff::/20"),  # documentation (RFC 9637); newer than Python's table
)


class RefusedAddressError(Exception):
    """The host has an address that we do not connect to. Nothing was sent."""


def permitted(address: Address, networks: Iterable[Network]) -> bool:
    """Whether the address is public, or in one of the networks.

    An IPv6 address that only carries an IPv4 one (mapped, NAT64, 6to4) is judged by that.
    """
    meant = _carried(address) or address
    return _is_public(meant) or any(meant in network for network in networks)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_PUBLIC)


def _carried(address: Address) -> IPv4Address | None:
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour


class AnyConnector(httpcore.AnyIOBackend):
    """Connects to any host.

    `*.localhost` is the loopback address, as RFC 6761 (6.3) lets applications take it; few resolvers know it.
    """

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        reached = _LOOPBACK if _is_localhost(host) else host
        return await super().connect_tcp(reached, port, timeout, local_address, socket_options)


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver, which also reads addresses in their odder forms (`127.1`)."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class PublicConnector(httpcore.AnyIOBackend):
    """Connects to hosts all of whose addresses are permitted, and to just the addresses that were looked at.

    Args:
        networks: what is permitted besides public addresses.
        resolve: finds a host's addresses.
    """

    def __init__(self, networks: Sequence[Network], resolve: Resolve = resolve) -> None:
        self._networks = networks
        self._resolve = resolve

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect.

        Raises:
            RefusedAddressError: an address is not permitted.
            httpcore.ConnectError: there is no address, or nobody answers at any.
            httpcore.ConnectTimeout: it took too long.
        """
        try:
            async with asyncio.timeout(timeout):
                *others, last = await self._permitted_addresses(host, port)
                for address in others:
                    with suppress(httpcore.ConnectError):
                        return await super().connect_tcp(address, port, None, local_address, socket_options)
                return await super().connect_tcp(last, port, None, local_address, socket_options)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error

    async def _permitted_addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = [_LOOPBACK] if _is_localhost(host) else await self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        if not all(permitted(ip_address(address), self._networks) for address in addresses):
            raise RefusedAddressError(f"the address of {host} is not public; see webhook_networks")
        return addresses


def _is_localhost(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")

"""Which addresses of tenants' servers may be reached, and how their hosts are looked up."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

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


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver, which also reads addresses in their odder forms (`0x7f.1`)."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class AnyHost(AbstractResolver):
    """Hosts of any address.

    `*.localhost` is the loopback address, as RFC 6761 (6.3) lets applications take it; few resolvers know it.

    Args:
        resolve: finds a host's addresses.
    """

    def __init__(self, resolve: Resolve = resolve) -> None:
        self._resolve = resolve

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - aiohttp's signature; it wants any
    ) -> list[ResolveResult]:
        """The addresses of a host that is no address itself.

        Raises:
            RefusedAddressError: one of them is not permitted.
            OSError: there are none.
        """
        addresses = [_LOOPBACK] if _is_localhost(host) else await self._resolve(host, port)
        self._check(host, addresses)
        return [_result(host, address, port) for address in addresses]

    def open_socket(self, address: AddrInfoType) -> socket.socket:
        """A socket to connect to the address, which may be what the host was given as: nobody resolved that.

        Raises:
            RefusedAddressError: it is not permitted.
        """
        family, kind, protocol, _, target = address
        self._check(str(target[0]), [str(target[0])])
        return socket.socket(family, kind, protocol)

    def _check(self, host: str, addresses: Sequence[str]) -> None:
        """Raise RefusedAddressError if we do not connect there."""

    async def close(self) -> None:
        """Nothing is held open."""


class PublicHosts(AnyHost):
    """Hosts all of whose addresses are permitted; connected to at just the addresses that were looked at.

    Args:
        networks: what is permitted besides public addresses.
        resolve: finds a host's addresses.
    """

    def __init__(self, networks: Sequence[Network], resolve: Resolve = resolve) -> None:
        super().__init__(resolve)
        self._networks = networks

    def _check(self, host: str, addresses: Sequence[str]) -> None:
        if not all(permitted(ip_address(address), self._networks) for address in addresses):
            raise RefusedAddressError(f"the address of {host} is not public; see webhook_networks")


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)


def _is_localhost(host: str) -> bool:
    return host.lower() == "localhost" or host.lower().endswith(".localhost")

"""What counts as one client, where connections and attempts are counted by address."""

from ipaddress import IPv6Address, ip_address, ip_network

_NETWORK_BITS = 64
"""Of an IPv6 address: the network, of which one customer has all addresses."""


def counted_as(host: str) -> str:
    """The address, of IPv6 its network; what is no address counts as itself."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return str(ip_network((address, _NETWORK_BITS), strict=False)) if isinstance(address, IPv6Address) else host

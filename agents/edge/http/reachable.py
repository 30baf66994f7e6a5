"""Decide at which addresses an API may be reached: public addresses, or the networks that its settings name.

A name is resolved for each request, all its addresses are judged, and the connection goes to a judged address. So a name that
resolves differently a moment later reaches nothing inside.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

from sealbus.envelopes.errors import ConfigurationError

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host as texts; raises `OSError` if it has none."""

_NAT64: Final = IPv6Network("64:ff9b::/96")
"""IPv4 behind a translator (RFC 6052)."""
_UNICAST: Final = IPv6Network("2000::/3")
"""The assigned part of IPv6: the rest has old private addresses (`fec0::/10`) and translators, which `ipaddress` admits."""
_NOT_PUBLIC: Final = tuple(map(ip_network, ("192.0.0.0/24", "2001::/32", "2002::/16", "3fff::/20")))
"""Networks that `ipaddress` takes as public: those of protocols and documentation, and tunnels that hold another address."""


class AddressRefused(Exception):
    """The host has an address at which this API may not be reached. The text names the host, for the operator's log."""


def network_of(text: str) -> Network:
    """Return the network that a setting names; raise `ConfigurationError` for any other text."""
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigurationError(f"networks: {text[:64]!r} is no network such as 10.20.0.0/16") from error


async def resolve(host: str, port: int, *, threads: Executor | None = None) -> Sequence[str]:
    """Return the addresses of `host`; raise `OSError` if there are none. The caller sets the deadline.

    It occupies a thread of `threads`, by default of the loop's, until the name is resolved, even if the caller has left.
    """
    asking = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    addresses = await asyncio.get_running_loop().run_in_executor(threads, asking)
    return [str(address[0]) for *_, address in addresses]


async def address_of(host: str, port: int, networks: Sequence[Network], *, resolving: Resolve = resolve) -> str:
    """Return an address of `host` (a name or an address), if all its addresses are in `networks`, or public if that is empty.

    Raises `AddressRefused`, also if there is no address.
    """
    try:
        addresses = [ip_address(address.partition("%")[0]) for address in await resolving(host, port)]
    except (OSError, UnicodeError, ValueError) as error:
        raise AddressRefused(f"{host}: no address") from error
    if not addresses:
        raise AddressRefused(f"{host}: no address")
    for address in addresses:
        if not (any(address in network for network in networks) if networks else is_public(address)):
            raise AddressRefused(f"{host}: an address that this API may not have")
    return str(addresses[0])


def is_public(address: Address) -> bool:
    """Return whether `address`, or the IPv4 address inside of it, belongs to the public internet."""
    inner: Address | None = None
    if isinstance(address, IPv6Address):
        inner = IPv4Address(address.packed[-4:]) if address in _NAT64 else address.ipv4_mapped
    if inner is not None:
        return is_public(inner)
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_PUBLIC)


def is_loopback(host: str) -> bool:
    """Return whether `host` is `localhost` or an address of the loopback interface; nothing is resolved."""
    try:
        address: Address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback

"""Rate limits per user, client or address: token buckets, bounded in number."""

from __future__ import annotations

import functools
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

_NETWORK_BITS: Final = 64
"""Prefix of an IPv6 address: the owner of one has the whole /64 (RFC 6177 section 2)."""
_SITE_BITS: Final = {4: 24, 6: 48}
"""Prefixes of a network: the longest IPv4 prefix that is routed by itself, and the most that RFC 6177 gives to one site."""


class TokenBuckets:
    """One bucket per key: `burst` requests at once, then `rate` a second. For the event loop's thread only.

    At most `entries` keys are remembered. Beyond that the longest unused is forgotten with its debt: buckets do not stop a
    client with that many keys, but memory stays bounded.
    """

    def __init__(self, *, rate: float, burst: int, entries: int, clock: Callable[[], float] = time.monotonic) -> None:
        if rate <= 0 or burst < 1 or entries < 1:
            raise ValueError("the rate must be over 0, with at least one request and one entry")
        self._rate: Final = rate
        self._burst: Final = float(burst)
        self._entries: Final = entries
        self._clock: Final = clock
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, key: Hashable, cost: float = 1.0) -> float:
        """Take `cost` requests from the bucket of `key`; return 0, or the seconds until there are enough.

        A cost of more than a whole bucket is taken from a full one.
        """
        cost = min(cost, self._burst)
        now = self._clock()
        level, since = self._levels.pop(key, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._rate)
        allowed = level >= cost
        self._levels[key] = (level - cost if allowed else level, now)
        if len(self._levels) > self._entries:
            self._levels.popitem(last=False)
        return 0.0 if allowed else (cost - level) / self._rate


@functools.lru_cache(maxsize=1_024)
def address_key(host: str) -> str:
    """Return the part of a peer's address that is counted: an IPv4 address, or an IPv6 address's /64."""
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _NETWORK_BITS), strict=False))
    return str(address)


@functools.lru_cache(maxsize=1_024)
def network_key(host: str) -> str:
    """Return the network of a peer's address: an IPv4 address's /24, or an IPv6 address's /48."""
    address = _address(host)
    return (
        address
        if isinstance(address, str)
        else str(ipaddress.ip_network((address, _SITE_BITS[address.version]), strict=False))
    )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | str:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address

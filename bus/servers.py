"""Which servers a connection knows, and whose turn it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from sealbus.envelopes.errors import ConfigurationError

__all__ = ["Servers"]

TOLD = 64
"""Servers of the cluster that we remember beside the configured ones."""


class Servers:
    """The configured `tls://host:port` and what the cluster tells of itself, in turn from a random one on.

    What a server tells needs no trust: whoever answers there must prove to be one of the expected SPIFFE IDs.
    """

    def __init__(self, urls: Sequence[str], random: Callable[[], float]) -> None:
        self.configured = tuple(_checked(url) for url in urls)
        if not self.configured:
            raise ConfigurationError("nats: name at least one server, for instance tls://localhost:4222")
        self._told: tuple[str, ...] = ()
        self._turn = int(random() * len(self.configured))

    def next(self) -> str:
        """Return the address to try now."""
        known = (*self.configured, *(url for url in self._told if url not in self.configured))
        self._turn += 1
        return known[(self._turn - 1) % len(known)]

    def told(self, urls: Sequence[str]) -> None:
        """Remember what a server said of its cluster, instead of what was said before."""
        self._told = tuple(urls[:TOLD])


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port or 4222
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != "tls" or not parts.hostname or parts.username or parts.path or parts.query:
        raise ConfigurationError(f"nats server {url!r}: write tls://host:port; there is no connection without TLS")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"tls://{host}:{port}"

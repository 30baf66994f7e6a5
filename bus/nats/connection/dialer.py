"""Makes links for one workload: with its current certificate, to the next server in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from sealbus.bus.clocks import HostClock
from sealbus.bus.nats.connection.link import Link, fingerprint
from sealbus.bus.nats.connection.options import ConnectionOptions
from sealbus.bus.nats.connection.rotation import seconds_left
from sealbus.bus.ports import Identity, NotLetIn
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, IdentityUnavailable
from sealbus.envelopes.trust.spiffe_id import SpiffeId

MOST_ANNOUNCED = 64
"""Servers of the cluster that are remembered besides the configured ones."""


class Dialer:
    """Makes links, one attempt at a time, given the servers, their expected IDs, and our identity."""

    def __init__(
        self,
        servers: Sequence[str],
        *,
        identity: Identity,
        server_ids: frozenset[SpiffeId],
        inbox_prefix: str,
        options: ConnectionOptions,
        counters: Counters,
        clock: HostClock,
        random: Callable[[], float],
    ) -> None:
        if not inbox_prefix.startswith("_INBOX.") or not inbox_prefix.endswith("."):
            raise ConfigurationError(f"inbox prefix {inbox_prefix!r}: must be _INBOX.<token>.")
        self._servers = Servers(servers, random)
        self._identity = identity
        self._server_ids = server_ids
        self._inbox_prefix = inbox_prefix
        self._options = options
        self._counters = counters
        self._clock = clock

    async def dial_any(self, on_lost: Callable[[Link], None], on_lame_duck: Callable[[Link], None]) -> Link:
        """Try each configured server once. Raises `BusUnavailable`, with the reason of each failure in one line.

        It is `NotLetIn` if every server refuses this workload.
        """
        errors = []
        for _ in self._servers.configured:
            try:
                return await self.dial(on_lost, on_lame_duck)
            except BusUnavailable as error:
                errors.append(error)
        refused = NotLetIn if all(isinstance(error, NotLetIn) for error in errors) else BusUnavailable
        raise refused("; ".join(error.detail for error in errors))

    async def dial(self, on_lost: Callable[[Link], None], on_lame_duck: Callable[[Link], None]) -> Link:
        """Try the next server. Raises `BusUnavailable`, or `IdentityUnavailable` without a valid certificate."""
        material = self._identity.x509()
        if material.spiffe_id != self._identity.spiffe_id:
            raise IdentityUnavailable(f"the X.509-SVID is {material.spiffe_id}, not {self._identity.spiffe_id}")
        link = Link(
            url=self._servers.next(),
            material=material,
            expected=self._server_ids,
            inbox_prefix=self._inbox_prefix,
            options=self._options,
            on_lost=on_lost,
            on_dropped=lambda kind: self._counters.add("sealbus_bus_dropped_total", 1, reason=kind),
            on_lame_duck=on_lame_duck,
        )
        if seconds_left(link, self._options, self._clock()) <= 0:
            raise IdentityUnavailable(f"the X.509-SVID of {material.spiffe_id} has expired")
        await link.open()
        self._servers.announce(link.known_servers)
        self._counters.add("sealbus_bus_connections_total")
        return link

    def newer_than(self, link: Link) -> bool:
        """Return whether a link made now would use another certificate or bundle."""
        try:
            return fingerprint(self._identity.x509(), self._server_ids) != link.fingerprint
        except IdentityUnavailable:
            return False


class Servers:
    """The configured `tls://host:port` and the addresses that the cluster announces, in turn, from a random one.

    Announced addresses need no trust: each server must prove one of the expected SPIFFE IDs.
    """

    def __init__(self, urls: Sequence[str], random: Callable[[], float]) -> None:
        self.configured = tuple(_checked(url) for url in urls)
        if not self.configured:
            raise ConfigurationError("nats: name at least one server, for instance tls://localhost:4222")
        self._announced: tuple[str, ...] = ()
        self._turn = int(random() * len(self.configured))

    def next(self) -> str:
        """Return the next address to try."""
        servers = (*self.configured, *(url for url in self._announced if url not in self.configured))
        self._turn += 1
        return servers[(self._turn - 1) % len(servers)]

    def announce(self, urls: Sequence[str]) -> None:
        """Replace the announced addresses."""
        self._announced = tuple(urls[:MOST_ANNOUNCED])


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port or 4222
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != "tls" or not parts.hostname or parts.username or parts.path or parts.query:
        raise ConfigurationError(f"nats server {url!r}: write tls://host:port; connections without TLS are not made")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"tls://{host}:{port}"

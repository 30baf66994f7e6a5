"""Making links for one workload: with the certificate of the moment, to the next server in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sealbus.bus.clock import Clock
from sealbus.bus.counters import Counters
from sealbus.bus.link import Link, fingerprint
from sealbus.bus.login import NkeyLogin
from sealbus.bus.ports import Identity
from sealbus.bus.rotation import ConnectionOptions, seconds_left
from sealbus.bus.servers import Servers
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, IdentityUnavailable
from sealbus.envelopes.spiffe_id import SpiffeId

__all__ = ["Dialer"]


class Dialer:
    """Knows the servers, who they may be, and who we are; makes one attempt at a time."""

    def __init__(
        self,
        servers: Sequence[str],
        *,
        identity: Identity,
        server_ids: frozenset[SpiffeId],
        inbox_prefix: str,
        name: str,
        options: ConnectionOptions,
        counters: Counters,
        clock: Clock,
        random: Callable[[], float],
        login: NkeyLogin | None = None,
    ) -> None:
        if not inbox_prefix.startswith("_INBOX.") or not inbox_prefix.endswith("."):
            raise ConfigurationError(f"inbox prefix {inbox_prefix!r}: must be _INBOX.<token>.")
        self._servers = Servers(servers, random)
        self._identity = identity
        self._server_ids = server_ids
        self._inbox_prefix = inbox_prefix
        self._name = name
        self._options = options
        self._counters = counters
        self._clock = clock
        self._login = login

    async def dial_any(self, on_lost: Callable[[Link], None], on_lame_duck: Callable[[Link], None]) -> Link:
        """Try each configured server once. Raises `BusUnavailable` that says in one line why each failed."""
        reasons = []
        for _ in self._servers.configured:
            try:
                return await self.dial(on_lost, on_lame_duck)
            except BusUnavailable as error:
                reasons.append(error.detail)
        raise BusUnavailable("; ".join(reasons))

    async def dial(self, on_lost: Callable[[Link], None], on_lame_duck: Callable[[Link], None]) -> Link:
        """Try the next server. Raises `BusUnavailable`, `IdentityUnavailable` without a certificate that is valid."""
        material = self._identity.x509()
        if material.spiffe_id != self._identity.spiffe_id:
            raise IdentityUnavailable(f"the X.509-SVID is {material.spiffe_id}, not {self._identity.spiffe_id}")
        link = Link(
            url=self._servers.next(),
            material=material,
            expected=self._server_ids,
            inbox_prefix=self._inbox_prefix,
            connect_seconds=self._options.connect,
            on_lost=on_lost,
            on_dropped=lambda kind: self._counters.add("sealbus_bus_dropped_total", 1, reason=kind),
            on_lame_duck=on_lame_duck,
            login=self._login,
        )
        if seconds_left(link, self._options, self._clock()) <= 0:
            raise IdentityUnavailable(f"the X.509-SVID of {material.spiffe_id} has expired")
        await link.open(name=self._name, seconds=self._options.connect, ping_seconds=self._options.ping)
        self._servers.told(link.known_servers)
        self._counters.add("sealbus_bus_connections_total")
        return link

    def newer_than(self, link: Link) -> bool:
        """Say whether a link made now would stand on another certificate or bundle."""
        try:
            return fingerprint(self._identity.x509(), self._server_ids) != link.fingerprint
        except IdentityUnavailable:
            return False

"""Limits on connections to one listener: for an address, for its network, and for all together.

Connections count from the moment they are accepted, before the TLS handshake, so that nobody can take all places by opening
connections, whether or not anything is sent on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sealbus.agents.edge.http.rate_limits import address_key, network_key
from sealbus.bus.telemetry import Counters

_ACCEPTED: Final = "sealbus_edge_connections_total"
_REFUSED: Final = "sealbus_edge_connections_refused_total"


class Admission:
    """Places for connections. For the event loop's thread only; a key is remembered only while it has connections."""

    def __init__(self, *, whole: int, of_network: int, of_address: int, counters: Counters, listener: str) -> None:
        self._bounds: Final = {"whole": whole, "network": of_network, "address": of_address}
        self._taken: Final[dict[tuple[str, str], int]] = {}
        self._counters: Final = counters
        self._listener: Final = listener
        counters.describe(
            {
                _ACCEPTED: "Connections that the edge took, by listener.",
                _REFUSED: "Connections closed at once, by listener and by the bound that was reached.",
            }
        )
        counters.add(_ACCEPTED, 0, listener=listener)
        for bound in self._bounds:
            counters.add(_REFUSED, 0, listener=listener, bound=bound)

    def enter(self, host: str) -> Callable[[], None] | None:
        """Take a place for a connection from `host` and return the function that gives it back, once; None if full."""
        keys = (("address", address_key(host)), ("network", network_key(host)), ("whole", ""))
        for key in keys:
            if self._taken.get(key, 0) >= self._bounds[key[0]]:
                self._counters.add(_REFUSED, listener=self._listener, bound=key[0])
                return None
        for key in keys:
            self._taken[key] = self._taken.get(key, 0) + 1
        self._counters.add(_ACCEPTED, listener=self._listener)
        held = True

        def leave() -> None:
            nonlocal held
            if held:
                held = False
                for key in keys:
                    remaining = self._taken.pop(key) - 1
                    if remaining:
                        self._taken[key] = remaining

        return leave

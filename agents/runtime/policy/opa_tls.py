"""TLS to central OPAs: shows our X.509-SVID, and completes the handshake only with an expected server."""

from __future__ import annotations

import asyncio
from typing import Final

from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.connection.tls import client_context
from sealbus.bus.ports import Identity, X509Material
from sealbus.envelopes.errors import IdentityUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.engines.svid_sessions import ClientTls

MARGIN: Final = 1.0
"""Seconds before the certificate's `notAfter` at which a connection must have ended, as for connections to NATS."""


class OpaTls:
    """The central engine's `TlsSource`, on a workload's identity. `expected` are the SPIFFE IDs of OPA's servers."""

    def __init__(self, identity: Identity, *, expected: frozenset[SpiffeId]) -> None:
        self._identity: Final = identity
        self._expected: Final = expected
        self._current: tuple[X509Material, ClientTls] | None = None

    def current(self) -> ClientTls:
        """Return the TLS context of the current X.509-SVID, the same one until it or a trust bundle changes.

        Raises `IdentityUnavailable` without an X.509-SVID that has over a second of life left, `ConfigurationError` if
        `expected` are not of one trust domain or the Workload API gave no bundle for it.
        """
        material = self._identity.x509()
        if self._current is None or self._current[0] is not material:
            context = client_context(material, expected=self._expected)
            seconds = (material.not_after - wall_clock()) / SECOND
            ends = asyncio.get_running_loop().time() + seconds - MARGIN
            self._current = (material, ClientTls(context=context, ends=ends))
        tls = self._current[1]
        if tls.ends <= asyncio.get_running_loop().time():
            raise IdentityUnavailable(
                f"the X.509-SVID of {material.spiffe_id} is about to expire, and there is no newer one"
            )
        return tls

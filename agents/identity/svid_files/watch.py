"""Watches the X.509-SVID alone, for identities that seal nothing: a server needs no JWT-SVID."""

from __future__ import annotations

import logging
import random as random_module
from collections.abc import Callable, Mapping

from spiffe._proto import workload_pb2 as proto

from sealbus.agents.identity.upkeep import Watch
from sealbus.agents.identity.workload_api import Endpoint, RawClient, explain, is_withdrawal
from sealbus.agents.identity.x509_svid import X509Reading, read_x509
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock, X509Material
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

_logger = logging.getLogger(__name__)


class X509Watch:
    """A watch on the X.509-SVID of `wanted`, or of the default identity, verified as `read_x509` does.

    `changed` is called on the event loop with each new X.509-SVID, and with None when the Workload API withdraws it. `failed`
    is called with one line about each failure and the failure itself; then the stream is opened again. The SPIFFE ID does not
    change later.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        changed: Callable[[X509Material | None], None],
        failed: Callable[[str, Exception], None],
        wanted: SpiffeId | None = None,
        clock: Clock = wall_clock,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._endpoint = endpoint
        self._changed = changed
        self._report = failed
        self._wanted = wanted
        self._clock = clock
        self._material: X509Material | None = None
        self._bundles: Mapping[TrustDomain, tuple[bytes, ...]] = {}
        self._watch = Watch[proto.X509SVIDResponse, X509Reading](
            endpoint,
            name="workload-api-x509",
            open_stream=RawClient.watch_x509,
            read=self._read,
            apply=self._apply,
            failed=self._failed,
            random=random,
        )

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._watch.run()

    def _read(self, response: proto.X509SVIDResponse) -> X509Reading:
        # This runs in the stream's thread, which alone uses the bundles; the first response fixes the SPIFFE ID.
        reading = read_x509(response, wanted=self._wanted, before=self._bundles, now=self._clock())
        self._bundles = reading.material.bundles
        return reading

    def _apply(self, reading: X509Reading) -> None:
        self._wanted = reading.material.spiffe_id
        for reason in reading.refused:
            _logger.warning("X.509-SVID: refused, the one before stays in force: %s", reason)
        if reading.material != self._material:
            self._material = reading.material
            self._changed(reading.material)

    def _failed(self, error: Exception) -> None:
        self._report(explain(error, self._endpoint), error)
        if is_withdrawal(error):
            self._bundles = {}
            if self._material is not None:
                self._material = None
                self._changed(None)

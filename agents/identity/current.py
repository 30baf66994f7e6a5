"""The current state of a workload's identity, and the listeners to its changes. For the event loop's thread only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from sealbus.agents.identity.jwt_svid import BundlesReading, KeyCredential
from sealbus.agents.identity.workload_api import Endpoint, explain, is_final, is_momentary, is_withdrawal, status_of
from sealbus.agents.identity.x509_svid import X509Reading
from sealbus.bus.ports import X509Material
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.bundles import TrustBundles
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_logger = logging.getLogger(__name__)

X509_SVID = "x509_svid"
JWT_BUNDLES = "jwt_bundles"
JWT_SVID = "jwt_svid"
"""The three sources of an identity, by their names in counters and logs."""


class CurrentIdentity:
    """The current X.509-SVID, JWT bundles and credential; `apply_*` and `failed` change them."""

    def __init__(
        self, endpoint: Endpoint, *, wanted: SpiffeId | None, counters: Counters, patient: bool = False
    ) -> None:
        self.endpoint = endpoint
        self.spiffe_id = wanted
        self.material: X509Material | None = None
        self.jwt_bundles = TrustBundles()
        self.credential = KeyCredential()
        self.failures: dict[str, str] = {}
        """The last failure of each source that fails now."""
        self.settled = asyncio.Event()
        """Set once there is a whole identity, or a `final_failure` that does not end without help."""
        self.final_failure = ""
        self._patient = patient
        self._counters = counters
        self._listeners: dict[int, Callable[[], None]] = {}
        self._registered = 0
        self._wake = asyncio.Event()
        self._whole = False
        counters.describe(
            {
                "sealbus_identity_failures_total": "Failures of the Workload API, by source and gRPC status.",
                "sealbus_identity_refused_total": "Refused bundles; the one before stays in force.",
                "sealbus_identity_updates_total": "Changes of X.509-SVID, JWT bundles and JWT-SVID.",
            }
        )
        counters.gauges("sealbus_svid_expiry_timestamp_seconds", ("workload", "source"), lambda: self._times(end=True))
        counters.gauges("sealbus_svid_issued_timestamp_seconds", ("workload", "source"), lambda: self._times(end=False))

    def apply_x509(self, reading: X509Reading) -> None:
        """Put an X.509-SVID in force; the first one fixes the SPIFFE ID."""
        self._worked(X509_SVID, reading.refused)
        material = reading.material
        if material == self.material:
            return
        self.spiffe_id = material.spiffe_id
        self.material = material
        self._changed(X509_SVID)

    def apply_jwt_bundles(self, reading: BundlesReading) -> None:
        """Put JWT bundles in force."""
        self._worked(JWT_BUNDLES, reading.refused)
        if reading.bundles == self.jwt_bundles:
            return
        self.jwt_bundles = reading.bundles
        self._changed(JWT_BUNDLES)

    def apply_token(self, token: str, spiffe_id: SpiffeId, now: int) -> None:
        """Put a JWT-SVID in force; raise `EnvelopeError` if it does not verify: then the JWT-SVID before stays in force."""
        before = self.credential.verified
        self.credential.accept(token, spiffe_id, self.jwt_bundles, now)
        self._worked(JWT_SVID, ())
        if self.credential.verified != before:
            self._counters.add("sealbus_identity_updates_total", 1, source=JWT_SVID)
            self._wake.set()
        self._whole = True
        self.settled.set()

    def failed(self, source: str, error: Exception) -> None:
        """Record a failure of `source`; `PermissionDenied` withdraws its values: both SVIDs, or the JWT bundles."""
        status, text = status_of(error), explain(error, self.endpoint)
        self._counters.add("sealbus_identity_failures_total", 1, source=source, status=status)
        # Each new reason is logged once: a source that is down for an hour fails a thousand times. An impatient caller
        # that is still connecting gets the error instead of a log line.
        known = text in self.failures.values() or not (self._whole or self._patient)
        level = logging.DEBUG if known else logging.WARNING
        _logger.log(level, "workload identity: %s %s: %s", source, "failed" if self._whole else "is waited for", text)
        self.failures[source] = text
        if not self.settled.is_set() and (is_final(error) if self._patient else not is_momentary(error, self.endpoint)):
            self.final_failure = text
            self.settled.set()
        if is_withdrawal(error):
            self.withdraw(source)
        self._wake.set()

    def withdraw(self, source: str) -> None:
        """Use no value of `source` any more: both SVIDs, or the JWT bundles."""
        if source == JWT_BUNDLES:
            if self.jwt_bundles:
                self.jwt_bundles = TrustBundles()
                self._changed(JWT_BUNDLES)
            return
        self.credential.withdraw()
        if self.material is not None:
            self.material = None
            self._changed(X509_SVID)

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after each change of the X.509-SVID or of bundles; return the unsubscriber."""
        self._registered += 1
        number = self._registered
        self._listeners[number] = listener

        def unsubscribe() -> None:
            self._listeners.pop(number, None)

        return unsubscribe

    def trouble(self) -> str:
        """Return in one line why sources fail, or that none has failed."""
        return "; ".join(dict.fromkeys(self.failures.values())) or f"{self.endpoint} has given nothing newer"

    async def wait_for_news(self, seconds: float | None = None) -> None:
        """Wait for any change or failure since the last call, at most `seconds`. For one caller only."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def _times(self, *, end: bool) -> dict[tuple[str, ...], float]:
        """Return the end or begin of each SVID, by workload and source, in seconds since the Unix epoch."""
        times: dict[tuple[str, ...], float] = {}
        workload = str(self.spiffe_id)
        if (x509 := self.material) is not None:
            times[workload, X509_SVID] = (x509.not_after if end else x509.not_before) / SECOND
        if (jwt := self.credential.verified) is not None:
            times[workload, JWT_SVID] = (jwt.exp if end else jwt.iat) / SECOND
        return times

    def _worked(self, source: str, refused: tuple[str, ...]) -> None:
        if self.failures.pop(source, ""):
            _logger.info("workload identity: %s works again", source)
        for reason in refused:
            self._counters.add("sealbus_identity_refused_total", 1, source=source)
            _logger.warning("workload identity: refused, the one before stays in force: %s", reason)

    def _changed(self, source: str) -> None:
        self._counters.add("sealbus_identity_updates_total", 1, source=source)
        self._wake.set()
        for listener in tuple(self._listeners.values()):
            try:
                listener()
            except Exception:
                # A failing listener must neither stop the calls of the others nor end the source.
                _logger.exception("workload identity: a rotation callback failed")

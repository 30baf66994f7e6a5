"""A workload's identity from any SPIFFE Workload API: the `Identity` port of the bus, kept current.

Operators see neither keys nor tokens of it, only its SPIFFE ID, its source, and the end of its validity.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as random_module
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Self

from sealbus.agents.identity.current import CurrentIdentity
from sealbus.agents.identity.jwt_svid import LEAST_LIFE
from sealbus.agents.identity.shared_api import SharedUpkeep, SharedWorkloadApi
from sealbus.agents.identity.threads import run_in_thread
from sealbus.agents.identity.upkeep import Upkeep
from sealbus.agents.identity.workload_api import Endpoint, RawClient, WorkloadApiError
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock, X509Material
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import IdentityUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.trust.bundles import TrustBundles
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

_ASSERTION_SECONDS = 5.0
"""Seconds to fetch a JWT-SVID for another service."""


class WorkloadIdentity:
    """The identity of this process, always current. Made by `connect`; every value is read without waiting.

    Two streams and a refresh loop keep it current, in threads and tasks that end with the context. A source that dies is
    rebuilt with backoff (0.1 to 5 s); its last values stay in force until they expire. An identity that the Workload API
    withdraws (`PermissionDenied`) is not used from that moment on (SPIFFE_Workload_API.md section 5.2.1). Do not use it after
    a fork: connect in the child instead.
    """

    def __init__(self, current: CurrentIdentity, clock: Clock) -> None:
        """Do not call this, use `connect`: no task keeps an object made here current."""
        self._current = current
        self._clock = clock
        self._closed = False

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls,
        socket: str | SharedWorkloadApi | None = None,
        *,
        spiffe_id: SpiffeId | None = None,
        deadline: float = 5.0,
        patient: bool = False,
        clock: Clock = wall_clock,
        counters: Counters | None = None,
        random: Callable[[], float] = random_module.random,
    ) -> AsyncIterator[Self]:
        """Connect to the Workload API at `socket` (default `SPIFFE_ENDPOINT_SOCKET`) and wait for a whole identity.

        A Workload API that several identities of this process share needs the `spiffe_id` of this one.

        A whole identity is an X.509-SVID, the JWT bundles, and a JWT-SVID for this process's key, all verified. `spiffe_id`
        chooses among several identities; without it the Workload API's default is used. The SPIFFE ID does not change later.
        Failures are retried, with backoff and jitter, for `deadline` seconds. If `patient`, this includes a Workload API that
        is not started and an entry that does not exist yet; otherwise these end the wait at once, and only an overloaded
        Workload API is asked again. Raises `IdentityUnavailable`, and `ConfigurationError` for an invalid address: each with
        one line that names the socket, the cause and the remedy.
        """
        endpoint = socket.endpoint if isinstance(socket, SharedWorkloadApi) else Endpoint.find(socket)
        if not patient:
            endpoint.check()
        current = CurrentIdentity(endpoint, wanted=spiffe_id, counters=counters or Counters(), patient=patient)
        identity = cls(current, clock)
        keeper = (
            SharedUpkeep(current, socket, clock=clock, random=random)
            if isinstance(socket, SharedWorkloadApi)
            else Upkeep(current, clock=clock, random=random)
        )
        upkeep = asyncio.create_task(keeper.keep_current(), name="workload identity")
        try:
            await identity._wait_until_whole(deadline)
            yield identity
        finally:
            identity._closed = True
            upkeep.cancel()
            await asyncio.wait({upkeep})
            if not upkeep.cancelled():
                upkeep.result()

    @property
    def spiffe_id(self) -> SpiffeId:
        """The workload's own SPIFFE ID."""
        if self._current.spiffe_id is None:
            raise IdentityUnavailable("the Workload API has not given this workload an identity yet")
        return self._current.spiffe_id

    def sealer(self) -> Sealer:
        """Return the signing key with its JWT-SVID; raise `IdentityUnavailable` with under 20 s of life left."""
        self._check_open()
        if self._current.credential.verified is None:
            raise IdentityUnavailable(f"no JWT-SVID: {self._current.trouble()}")
        return self._current.credential.sealer(self._clock())

    def bundles(self) -> TrustBundles:
        """Return the JWT bundles from the Workload API, each for its own trust domain."""
        return self._current.jwt_bundles

    async def assertion(self, url: str) -> str:
        """Return a JWT-SVID to show at `url` alone, an http or https URL, such as an authorization server's issuer.

        Each call asks the Workload API, which answers at once if it has such a JWT-SVID. Verifies nothing. Raises
        `IdentityUnavailable` if there is none, `ValueError` for any other text.
        """
        self._check_open()
        own = self.spiffe_id
        try:
            with contextlib.closing(RawClient(self._current.endpoint)) as client:
                return await run_in_thread(
                    lambda: client.fetch_assertion(own, url, timeout=_ASSERTION_SECONDS),
                    name="workload-api-assertion",
                    stop=client.close,
                )
        except WorkloadApiError as error:
            raise IdentityUnavailable(f"no JWT-SVID for another service: {error}") from error

    def x509(self) -> X509Material:
        """Return the current X.509-SVID; raise `IdentityUnavailable` if there is none or it has expired."""
        self._check_open()
        material = self._current.material
        if material is None:
            raise IdentityUnavailable(f"no X.509-SVID: {self._current.trouble()}")
        if material.not_after <= self._clock():
            raise IdentityUnavailable(f"the X.509-SVID has expired and there is no new one: {self._current.trouble()}")
        return material

    def on_rotation(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` on the event loop after each change of the X.509-SVID or of bundles; return the unsubscriber.

        It is also called after a withdrawal; then `x509` raises. It must not block; its exceptions are logged.
        """
        return self._current.subscribe(callback)

    def status(self) -> IdentityStatus:
        """Return the status of this identity for operators."""
        material, svid = self._current.material, self._current.credential.verified
        return IdentityStatus(
            endpoint=str(self._current.endpoint),
            spiffe_id=self.spiffe_id,
            thumbprint=self._current.credential.key.thumbprint,
            x509_not_before=material.not_before if material else 0,
            x509_not_after=material.not_after if material else 0,
            jwt_issued=svid.iat if svid else 0,
            jwt_expires=svid.exp if svid else 0,
            x509_trust=tuple(sorted(material.bundles)) if material else (),
            jwt_trust=tuple(sorted(self._current.jwt_bundles)),
            failure=self._current.trouble() if self._current.failures else "",
        )

    def _silence(self) -> str:
        endpoint = self._current.endpoint
        busy = "listens but has not answered: it is overloaded or hangs, look at its log"
        return endpoint.absence() or f"the Workload API at {endpoint} {busy}"

    def _check_open(self) -> None:
        if self._closed:
            raise IdentityUnavailable("the workload identity is closed")

    async def _wait_until_whole(self, deadline: float) -> None:
        """Wait for the first whole identity, or raise `IdentityUnavailable` with the reason in one line."""
        current = self._current
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                await current.settled.wait()
                while current.credential.is_old(self._clock()) and not current.final_failure:
                    current.settled.clear()
                    await current.settled.wait()
        svid, now = current.credential.verified, self._clock()
        if svid is None:
            late = f"no identity within {deadline:g} s: {current.trouble() if current.failures else self._silence()}"
            raise IdentityUnavailable(current.final_failure or late)
        if current.credential.is_old(now):
            late = (
                f"no identity within {deadline:g} s: the JWT-SVID has {(svid.exp - now) // SECOND} s left of "
                f"{(svid.exp - svid.iat) // SECOND}, sealing needs {LEAST_LIFE // SECOND}: check this host's clock"
            )
            raise IdentityUnavailable(current.final_failure or late)
        if svid.exp - now < LEAST_LIFE:
            raise IdentityUnavailable(
                f"JWT-SVIDs of {self.spiffe_id} from the Workload API at {current.endpoint} live "
                f"{(svid.exp - svid.iat) // SECOND} s, sealing needs {LEAST_LIFE // SECOND}: raise their TTL"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityStatus:
    """The state of a workload's identity at one moment. Times are microseconds, 0 if there is no such SVID.

    `thumbprint` is the signing key's URN, the audience of its JWT-SVIDs. `x509_trust` and `jwt_trust` are the trust domains
    whose bundles are in force. `failure` is the last failure of a source that has not recovered, or empty.
    """

    endpoint: str
    spiffe_id: SpiffeId
    thumbprint: str
    x509_not_before: int
    x509_not_after: int
    jwt_issued: int
    jwt_expires: int
    x509_trust: tuple[TrustDomain, ...]
    jwt_trust: tuple[TrustDomain, ...]
    failure: str

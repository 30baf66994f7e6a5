"""Keeps an identity current: two streams, and the refresh of the JWT-SVID (SPEC.md section 5).

A stream that ends is opened again, whatever the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

from spiffe._proto import workload_pb2 as proto
from spiffe.workloadapi.workload_api_client import StreamCancelHandler

from sealbus.agents.identity.current import JWT_BUNDLES, JWT_SVID, X509_SVID, CurrentIdentity
from sealbus.agents.identity.jwt_svid import BundlesReading, read_jwt_bundles
from sealbus.agents.identity.threads import run_in_thread
from sealbus.agents.identity.workload_api import (
    Endpoint,
    RawClient,
    WorkloadApiError,
    is_withdrawal,
)
from sealbus.agents.identity.x509_svid import X509Reading, read_x509
from sealbus.bus.ports import Clock
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.bundles import TrustBundles
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

FETCH_SECONDS: Final = 5.0
"""Seconds for one `FetchJWTSVID`; SPIRE's agent answers in 1 to 15 ms."""

_LOOK_AGAIN = 10.0
"""Most seconds between two looks at the clock: after a suspend, the host notices a late refresh within this time."""

R = TypeVar("R")
V = TypeVar("V")

BACKOFF: Final = Backoff(initial_interval=0.1, maximum_interval=5.0, jitter=0.5)
"""The backoff of `spiffe` and of SPIRE's own clients."""

_APPLY_SECONDS = 5.0


class Upkeep:
    """The tasks that keep `current` up to date. All tasks and threads belong to `keep_current`."""

    def __init__(self, current: CurrentIdentity, *, clock: Clock, random: Callable[[], float]) -> None:
        self._current = current
        self._clock = clock
        self._random = random
        self._x509_bundles: Mapping[TrustDomain, tuple[bytes, ...]] = {}
        self._jwt_bundles = TrustBundles()

    async def keep_current(self) -> None:
        """Watch X.509-SVID and JWT bundles, refresh the JWT-SVID; never returns, ends when cancelled."""
        current = self._current
        x509 = Watch[proto.X509SVIDResponse, X509Reading](
            current.endpoint,
            name="workload-api-x509",
            open_stream=RawClient.watch_x509,
            read=self._read_x509,
            apply=current.apply_x509,
            failed=lambda error: self._failed(X509_SVID, error),
            random=self._random,
        )
        bundles = Watch[proto.JWTBundlesResponse, BundlesReading](
            current.endpoint,
            name="workload-api-jwt-bundles",
            open_stream=RawClient.watch_jwt_bundles,
            read=self._read_jwt_bundles,
            apply=current.apply_jwt_bundles,
            failed=lambda error: self._failed(JWT_BUNDLES, error),
            random=self._random,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(x509.watch(), name="workload-api-x509")
            group.create_task(bundles.watch(), name="workload-api-jwt-bundles")
            group.create_task(self._refresh(), name="workload-api-jwt-svid")

    # Each reader runs in the thread of its stream and keeps the previous values itself: `current` belongs to the event
    # loop's thread. From it, readers take only the SPIFFE ID, which is fixed once.

    def _read_x509(self, response: proto.X509SVIDResponse) -> X509Reading:
        reading = read_x509(response, wanted=self._current.spiffe_id, before=self._x509_bundles, now=self._clock())
        self._x509_bundles = reading.material.bundles
        return reading

    def _read_jwt_bundles(self, response: proto.JWTBundlesResponse) -> BundlesReading:
        reading = read_jwt_bundles(response.bundles, self._jwt_bundles)
        self._jwt_bundles = reading.bundles
        return reading

    def _failed(self, source: str, error: Exception) -> None:
        # This runs on the event loop between two attempts, when no reader runs.
        if is_withdrawal(error) and source == JWT_BUNDLES:
            self._jwt_bundles = TrustBundles()
        elif is_withdrawal(error):
            self._x509_bundles = {}
        self._current.failed(source, error)

    async def _refresh(self) -> None:
        attempt = 0
        while True:
            spiffe_id = await self._wait_until_ready()
            try:
                token = await self._fetch(spiffe_id)
                self._current.apply_token(token, spiffe_id, self._clock())
            except Exception as error:  # noqa: BLE001  after any error the only remedy is the next request
                attempt += 1
                self._current.failed(JWT_SVID, error)
                await asyncio.sleep(BACKOFF.interval(attempt, self._random()))
            else:
                attempt = 0
                await self._wait_until_due()

    async def _wait_until_ready(self) -> SpiffeId:
        """Wait until the SPIFFE ID is known and there are bundles that can verify the JWT-SVID."""
        current = self._current
        while current.material is None or not current.jwt_bundles:
            await current.wait_for_news()
        return current.material.spiffe_id

    async def _wait_until_due(self) -> None:
        """Wait until half life, or until the bundles no longer have the key that signed the JWT-SVID."""
        holding: TrustBundles | None = None
        while True:
            now, bundles = self._clock(), self._current.jwt_bundles
            seconds = (self._current.credential.due() - now) / SECOND
            # The same bundles give the same answer; a signature takes longer than the rest of the look.
            if seconds <= 0 or (bundles is not holding and not self._current.credential.holds(bundles, now)):
                return
            holding = bundles
            await self._current.wait_for_news(min(seconds, _LOOK_AGAIN))

    async def _fetch(self, spiffe_id: SpiffeId) -> str:
        with contextlib.closing(RawClient(self._current.endpoint)) as client:
            return await run_in_thread(
                lambda: client.fetch_token(spiffe_id, self._current.credential.key, timeout=FETCH_SECONDS),
                name="workload-api-jwt-svid",
                stop=client.close,
            )


class Watch(Generic[R, V]):
    """A stream's responses of type R, read in the stream's thread into values of type V, applied on the event loop.

    `open_stream` blocks and delivers. `read` checks a response; if it raises, the stream ends as a failure. `apply` runs on
    the event loop and must not raise. `failed` is called at each end. Every attempt has its own client and needs nothing of
    the attempts before, as each response holds all values.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        name: str,
        open_stream: Callable[[RawClient, Callable[[R], None], StreamCancelHandler], None],
        read: Callable[[R], V],
        apply: Callable[[V], None],
        failed: Callable[[Exception], None],
        random: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._name = name
        self._open_stream = open_stream
        self._read = read
        self._apply = apply
        self._failed = failed
        self._random = random
        self._delivered = False

    async def watch(self) -> None:
        """Watch until cancelled; then the stream's thread has ended."""
        attempt = 0
        while True:
            cancel = StreamCancelHandler()
            self._delivered = False
            error: Exception
            try:
                await self._attempt(cancel)
                error = WorkloadApiError("UNAVAILABLE", "the stream ended")
            except Exception as raised:  # noqa: BLE001  after any error the only remedy is the next attempt
                error = raised
            attempt = 1 if self._delivered else attempt + 1
            self._failed(error)
            await asyncio.sleep(BACKOFF.interval(attempt, self._random()))

    async def _attempt(self, cancel: StreamCancelHandler) -> None:
        loop = asyncio.get_running_loop()

        def deliver(response: R) -> None:
            value = self._read(response)
            applied = threading.Event()

            def on_loop() -> None:
                self._delivered = True
                try:
                    self._apply(value)
                finally:
                    applied.set()

            # The wait keeps at most one update of this stream in memory; gRPC holds back the others.
            loop.call_soon_threadsafe(on_loop)
            applied.wait(_APPLY_SECONDS)

        def stream() -> None:
            with contextlib.closing(RawClient(self._endpoint)) as client:
                self._open_stream(client, deliver, cancel)

        await run_in_thread(stream, name=self._name, stop=cancel.cancel)

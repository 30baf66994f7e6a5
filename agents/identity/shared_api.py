"""One Workload API for all identities of a process: one stream of X.509-SVIDs, one of JWT bundles, one channel for JWT-SVIDs.

A response holds the SVIDs of all entries that match the process. Each identity takes its own SVID from it, and reads no other
key. With a stream for each identity, N identities would get N copies of N SVIDs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as random_module
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from spiffe._proto import workload_pb2 as proto

from sealbus.agents.identity.current import JWT_BUNDLES, X509_SVID, CurrentIdentity
from sealbus.agents.identity.threads import run_in_thread
from sealbus.agents.identity.upkeep import FETCH_SECONDS, Upkeep, Watch
from sealbus.agents.identity.workload_api import Endpoint, RawClient
from sealbus.agents.identity.x509_svid import SvidMissing
from sealbus.bus.ports import Clock
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.envelopes.trust.spiffe_id import SpiffeId

FETCHES: Final = 8
"""JWT-SVIDs that are fetched at a time, each in a thread."""


class ResponseTaker(Protocol):
    """Takes the responses and failures of the streams, on the event loop. No method raises."""

    def take_x509(self, response: proto.X509SVIDResponse) -> None:
        """Take a response with the X.509-SVIDs of all identities."""

    def take_jwt_bundles(self, response: proto.JWTBundlesResponse) -> None:
        """Take a response with all JWT bundles."""

    def take_failure(self, source: str, error: Exception) -> None:
        """Take note that the stream of `source` has ended."""


class SharedWorkloadApi:
    """The streams and the channel of one process to the Workload API at `endpoint`. Await `run` while it is used."""

    def __init__(self, endpoint: Endpoint, *, random: Callable[[], float] = random_module.random) -> None:
        self.endpoint = endpoint
        self._random = random
        self._takers: list[ResponseTaker] = []
        self._x509: proto.X509SVIDResponse | None = None
        self._jwt_bundles: proto.JWTBundlesResponse | None = None
        self._errors: dict[str, Exception] = {}
        """The last failure of each stream that fails now."""
        self._client: RawClient | None = None
        self._fetches = asyncio.Semaphore(FETCHES)

    async def run(self) -> None:
        """Keep the streams open until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                x509 = Watch[proto.X509SVIDResponse, proto.X509SVIDResponse](
                    self.endpoint,
                    name="workload-api-x509",
                    open_stream=RawClient.watch_x509,
                    read=lambda response: response,
                    apply=self._take_x509,
                    failed=lambda error: self._failed(X509_SVID, error),
                    random=self._random,
                )
                bundles = Watch[proto.JWTBundlesResponse, proto.JWTBundlesResponse](
                    self.endpoint,
                    name="workload-api-jwt-bundles",
                    open_stream=RawClient.watch_jwt_bundles,
                    read=lambda response: response,
                    apply=self._take_jwt_bundles,
                    failed=lambda error: self._failed(JWT_BUNDLES, error),
                    random=self._random,
                )
                group.create_task(x509.watch(), name="workload-api-x509")
                group.create_task(bundles.watch(), name="workload-api-jwt-bundles")
        finally:
            self._close_client()

    @contextlib.asynccontextmanager
    async def taken_by(self, taker: ResponseTaker) -> AsyncIterator[None]:
        """Hand to `taker` what the streams gave last, and each response and failure while entered."""
        if self._x509 is not None:
            taker.take_x509(self._x509)
        if self._jwt_bundles is not None:
            taker.take_jwt_bundles(self._jwt_bundles)
        for source, error in self._errors.items():
            taker.take_failure(source, error)
        self._takers.append(taker)
        try:
            yield
        finally:
            self._takers.remove(taker)

    async def fetch_token(self, spiffe_id: SpiffeId, key: PublicKey, *, timeout: float) -> str:
        """Return a JWT-SVID (`RawClient.fetch_token`), over one channel for all identities. Raises as that does."""
        async with self._fetches:
            client = self._client = self._client or RawClient(self.endpoint)
            try:
                return await run_in_thread(
                    lambda: client.fetch_token(spiffe_id, key, timeout=timeout),
                    name="workload-api-jwt-svid",
                    # It also ends the fetches of others, which are tried again.
                    stop=self._close_client,
                )
            except Exception:
                # A channel that has failed may be in backoff: the next fetch has its own.
                if client is self._client:
                    self._close_client()
                raise

    def _take_x509(self, response: proto.X509SVIDResponse) -> None:
        self._x509 = response
        self._errors.pop(X509_SVID, None)
        for taker in tuple(self._takers):
            taker.take_x509(response)

    def _take_jwt_bundles(self, response: proto.JWTBundlesResponse) -> None:
        self._jwt_bundles = response
        self._errors.pop(JWT_BUNDLES, None)
        for taker in tuple(self._takers):
            taker.take_jwt_bundles(response)

    def _failed(self, source: str, error: Exception) -> None:
        self._errors[source] = error
        for taker in tuple(self._takers):
            taker.take_failure(source, error)

    def _close_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


class SharedUpkeep(Upkeep):
    """Keeps one identity up to date from the streams of `api`, which gives it the SVIDs of others, too."""

    def __init__(
        self, current: CurrentIdentity, api: SharedWorkloadApi, *, clock: Clock, random: Callable[[], float]
    ) -> None:
        super().__init__(current, clock=clock, random=random)
        self._api = api
        self._own: bytes | None = None
        """The last response, as far as it concerns this identity."""

    async def keep_current(self) -> None:
        """Take the responses of the shared streams, refresh the JWT-SVID; never returns, ends when cancelled."""
        async with self._api.taken_by(self):
            await self._refresh()

    def take_x509(self, response: proto.X509SVIDResponse) -> None:
        """Put the X.509-SVID of this identity in force, if it has changed."""
        own = self._own_part(response)
        if own is not None and own == self._own:
            return
        self._own = own
        try:
            reading = self._read_x509(response)
        except SvidMissing as error:
            # A response has all SVIDs. An identity alone gets `PermissionDenied` in this case.
            self._x509_bundles = {}
            self._failed(X509_SVID, error)
            self._current.withdraw(X509_SVID)
        except Exception as error:  # noqa: BLE001  a response is refused for this identity alone
            self._failed(X509_SVID, error)
        else:
            self._current.apply_x509(reading)

    def take_jwt_bundles(self, response: proto.JWTBundlesResponse) -> None:
        """Put the JWT bundles in force."""
        try:
            reading = self._read_jwt_bundles(response)
        except Exception as error:  # noqa: BLE001  as above
            self._failed(JWT_BUNDLES, error)
        else:
            self._current.apply_jwt_bundles(reading)

    def take_failure(self, source: str, error: Exception) -> None:
        """Record that a stream has ended; it is opened again for all identities."""
        if source == X509_SVID:
            # A failure that passes is forgotten with the next response, also if that is the same.
            self._own = None
        self._failed(source, error)

    def _own_part(self, response: proto.X509SVIDResponse) -> bytes | None:
        """Return what a response says of this identity: its SVID, and the bundles of other trust domains."""
        wanted = str(self._current.spiffe_id)
        for svid in response.svids:
            if svid.spiffe_id == wanted:
                bundles = (
                    f"{name}={len(der)}=".encode() + der for name, der in sorted(response.federated_bundles.items())
                )
                return svid.SerializeToString(deterministic=True) + b"".join(bundles)
        return None

    async def _fetch(self, spiffe_id: SpiffeId) -> str:
        return await self._api.fetch_token(spiffe_id, self._current.credential.key, timeout=FETCH_SECONDS)

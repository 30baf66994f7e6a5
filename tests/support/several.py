"""A deployment for several agents in one process: one Workload API with their SVIDs, the auth callout, a policy bucket."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc  # type: ignore[import-untyped]  # grpc has no types
import grpc.aio  # type: ignore[import-untyped]  # grpc has no types
from spiffe._proto import workload_pb2 as proto
from spiffe._proto import workload_pb2_grpc
from support.callout import CONTROL, DOMAIN, NAMES, SERVER_ID, CalloutSite, policy_folder
from support.lab import until
from support.policy_bus import ANCHORS, ROOT
from support.ports import held_port
from support.x509 import ThrowawayCa

from sealbus.agents.control.callout.key_files import write_keys
from sealbus.agents.control.callout.responder import RefusedConnection
from sealbus.agents.control.callout.role import open_callout
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.declared import DeclaredIdentity
from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi, ServiceContext, WorkloadServicer
from sealbus.agents.dev.workload_api.server_svid import write_server_svid
from sealbus.agents.identity import WorkloadIdentity
from sealbus.agents.runtime.open import open_connection, streams_of
from sealbus.agents.runtime.policy.push import content_of, push_content
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.bus.streams.plan import apply
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.trust.keys import public_pem
from sealbus.policies.bundle.files import build_bundle, write_bundle
from sealbus.policies.engines.embedded import EmbeddedEngine

__all__ = ["SeveralSite", "SeveralSvids", "WorkerCommand", "several_agents", "several_svids", "worker_command"]

WITHIN = 120.0
"""Seconds after which a wait has hung; no measure of speed."""
ALONE = ("control", "operator", "shop-web")
"""Workloads with a socket of their own."""


class SeveralSvids(WorkloadServicer):
    """Gives a workload all of `identities`, as SPIRE does where several entries match: one response has every SVID.

    `streams` counts the open streams of X.509-SVIDs, `fetched` the JWT-SVIDs.
    """

    def __init__(self, identities: Sequence[DeclaredIdentity]) -> None:
        super().__init__(identities[0])
        self.identities = {str(identity.spiffe_id): identity for identity in identities}
        self.address = ""
        self.streams = 0
        self.fetched = 0
        self._authority = identities[0].authority
        self._changed = asyncio.Event()

    def remove(self, name: str) -> None:
        """Give the agent `name` no SVID any more, as when its entry is deleted."""
        removed = self.identities.pop(str(NAMES.id_of(name)))
        for other in self.identities.values():
            # Bundles are given as long as there is an identity.
            self.assign(other)
        removed.remove()
        self._notify()

    def add(self, identity: DeclaredIdentity) -> None:
        """Give one identity more."""
        self.identities[str(identity.spiffe_id)] = identity
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def FetchX509SVID(  # noqa: N802
        self, request: proto.X509SVIDRequest, context: ServiceContext
    ) -> AsyncIterator[proto.X509SVIDResponse]:
        self.streams += 1
        try:
            while True:
                if not self.identities:
                    await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
                changed, identities = self._changed, tuple(self.identities.values())
                versions = [identity.version for identity in identities]
                own = b"".join(self._authority.x509_bundles()[DOMAIN])
                svids = [identity.svid() for identity in identities]
                yield proto.X509SVIDResponse(
                    svids=[
                        proto.X509SVID(
                            spiffe_id=str(svid.spiffe_id),
                            x509_svid=b"".join(svid.chain),
                            x509_svid_key=svid.key,
                            bundle=own,
                        )
                        for svid in svids
                    ]
                )
                waits: list[asyncio.Future[object]] = [asyncio.ensure_future(changed.wait())]
                waits += [
                    asyncio.ensure_future(identity.next_svid(version))
                    for identity, version in zip(identities, versions, strict=True)
                ]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for wait in waits:
                        wait.cancel()
        finally:
            self.streams -= 1

    async def FetchJWTSVID(  # noqa: N802
        self, request: proto.JWTSVIDRequest, context: ServiceContext
    ) -> proto.JWTSVIDResponse:
        identity = self.identities.get(request.spiffe_id)
        if identity is None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        self.fetched += 1
        token = identity.token(list(request.audience)).token
        return proto.JWTSVIDResponse(svids=[proto.JWTSVID(spiffe_id=request.spiffe_id, svid=token)])


@asynccontextmanager
async def several_svids(
    folder: Path, authority: DevelopmentAuthority, *names: str, x509_ttl: int = 3_600, jwt_ttl: int = 300
) -> AsyncIterator[SeveralSvids]:
    """Serve a Workload API in `folder` that gives its caller the SVIDs of all of `names`."""
    servicer = SeveralSvids(
        [DeclaredIdentity(authority, NAMES.id_of(name), x509_ttl=x509_ttl, jwt_ttl=jwt_ttl) for name in names]
    )
    server = grpc.aio.server(options=(("grpc.max_concurrent_streams", 10_000),))
    workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"unix:{folder}/several.sock")
    await server.start()
    servicer.address = f"unix://{folder}/several.sock"
    try:
        yield servicer
    finally:
        await server.stop(None)


@dataclass(kw_only=True)
class SeveralSite:
    """What runs around the process: settings of that process, and what a test changes meanwhile."""

    folder: Path
    settings_file: Path
    settings: Settings
    """Of the workloads of `ALONE`, which have sockets of their own."""
    server: CalloutSite
    api: SeveralSvids
    authority: DevelopmentAuthority
    policy: Path
    refused: list[RefusedConnection]
    engine: EmbeddedEngine

    async def revoke(self, *names: str) -> None:
        """Have the callout refuse these agents, and no others, from now on."""
        file = self.policy / "sealbus" / "registry" / "revoked" / "data.json"
        revoked = {str(NAMES.id_of(name)): True for name in names}
        file.write_text(json.dumps({**json.loads(file.read_text()), "agents": revoked}))
        before = (await self.engine.status()).revision
        write_bundle(await asyncio.to_thread(build_bundle, self.policy), self.folder / "bundle.tar.gz")
        async with asyncio.timeout(WITHIN):
            while (await self.engine.status()).revision == before:  # noqa: ASYNC110  the engine says no more
                await asyncio.sleep(0.05)


def _settings(folder: Path, port: int, api: str, policy: str) -> str:
    keys = folder / "keys"
    return f"""
trust_domain = "{DOMAIN}"
nats = ["tls://127.0.0.1:{port}"]
nats_ids = ["{SERVER_ID}"]
workload_api = "{api}"
[policy]
engine = "embedded"
{policy}
[agents]
edge = "{NAMES.id_of("edge")}"
control = "{CONTROL}"
[context]
minters = ["{NAMES.id_of("edge")}"]
[streams.max_bytes]
tasks = "64MiB"
audit = "64MiB"
[control.callout]
issuer = "{keys / "issuer.seed"}"
xkey = "{keys / "xkey.seed"}"
nkey = "{keys / "user.seed"}"
"""


@asynccontextmanager
async def several_agents(
    folder: Path, *names: str, policy: Path | None = None, x509_ttl: int = 3_600, jwt_ttl: int = 300, revoked: str = ""
) -> AsyncIterator[SeveralSite]:
    """Run all that a process with the agents `names` needs; `folder` has a short path, for sockets.

    Agents decide by the policy in a bucket, the callout by a file. `revoked` is refused by the callout from the start.
    """
    port, keys = held_port(), write_keys(folder / "keys")
    workloads: Json = {str(NAMES.id_of(name)): {"role": "agent", "tenant": "default"} for name in names}
    names_of_actions = [f"{name}.{verb}" for name in names for verb in ("quote", "read")]
    actions: Json = {
        f"{action}{answer}": {"user": "none", "resource": "any", "limits": {}, "hours": False}
        for action in names_of_actions
        for answer in ("", ".reply")
    }
    agents: dict[str, Json] = {str(NAMES.id_of("shop-web")): {"actions": dict.fromkeys(names_of_actions, True)}}
    for name in names:
        agents[str(NAMES.id_of(name))] = {"actions": {f"{name}.{verb}.reply": True for verb in ("quote", "read")}}
    revoked_agents: Json = {str(NAMES.id_of(name)): True for name in filter(None, (revoked,))}
    own = policy or policy_folder(
        folder / "policy",
        workloads=workloads,
        actions=actions,
        agents=agents,
        revoked={"agents": revoked_agents},
    )
    await asyncio.to_thread(lambda: write_bundle(build_bundle(own), folder / "bundle.tar.gz"))
    (folder / "policy.pem").write_text(public_pem(ROOT.public))
    alone = folder / "alone.toml"
    alone.write_text(_settings(folder, port, f"unix://{folder / 'api'}/{{name}}.sock", 'bundle = "bundle.tar.gz"'))
    settings = load_settings(alone, environment={})
    async with AsyncExitStack() as stack:
        authority = DevelopmentAuthority(DOMAIN)
        sockets = await stack.enter_async_context(EmbeddedWorkloadApi(folder / "api", authority, x509_ttl=3_600))
        for name in ALONE:
            path = Path((await sockets.add_identity(NAMES.id_of(name))).removeprefix("unix://"))
            link = folder / "api" / f"{name}.sock"
            if path != link:
                link.symlink_to(path)
        api = await stack.enter_async_context(
            several_svids(folder, authority, *names, x509_ttl=x509_ttl, jwt_ttl=jwt_ttl)
        )
        nats = folder / "nats"
        server = CalloutSite(folder=nats, ca=ThrowawayCa(DOMAIN.name), trusted=(), keys=keys, port=port, stack=stack)
        files = write_server_svid(nats, authority, SERVER_ID, ttl=12 * 3_600)
        stack.push_async_callback(server.stop)
        await server.run(certificate=files.certificate, key=files.key, bundle=files.bundle)
        engine = await stack.enter_async_context(EmbeddedEngine(folder / "bundle.tar.gz"))
        identity = await stack.enter_async_context(WorkloadIdentity.connect(sockets.address(CONTROL), deadline=60))
        refused: list[RefusedConnection] = []
        callout = await stack.enter_async_context(
            open_callout(settings, identity=identity, engine=engine, on_refused=refused.append)
        )
        running = asyncio.create_task(callout.run())
        stack.callback(running.cancel)
        await until(lambda: not callout.problem)
        async with open_connection("operator", settings) as (_, connection):
            await apply(streams_of(settings), connection.jetstream)
            store = PolicyStore(connection, "policies")
            await store.create()
            await push_content(store, ANCHORS, "platform", content_of(own), ROOT)
        bucket = f'bundle = "nats://policies"\ncache = "{folder / "cache"}"\nkeys = ["{folder / "policy.pem"}"]'
        several = folder / "several.toml"
        several.write_text(_settings(folder, port, api.address, bucket))
        yield SeveralSite(
            folder=folder,
            settings_file=several,
            settings=settings,
            server=server,
            api=api,
            authority=authority,
            policy=own,
            refused=refused,
            engine=engine,
        )


@dataclass(kw_only=True)
class WorkerCommand:
    """A running `sealbus worker run`, and what it has said."""

    process: asyncio.subprocess.Process
    said: list[str] = field(default_factory=list)
    reading: asyncio.Task[None] | None = None
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def read_lines(self) -> None:
        """Read what it says to its end."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self.news:
                self.said.append(line.decode())
                self.news.notify_all()
        async with self.news:
            self.news.notify_all()

    async def says(self, *texts: str, count: int = 1) -> None:
        """Wait until `count` lines have all of `texts`."""
        async with asyncio.timeout(WITHIN), self.news:
            while sum(all(text in line for text in texts) for line in self.said) < count:
                assert self.reading is not None and not self.reading.done(), "".join(self.said)  # noqa: PT018
                await self.news.wait()

    async def stop(self) -> int:
        """Send SIGTERM and return the exit code, once all of it is read."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        async with asyncio.timeout(WITHIN):
            assert self.reading is not None
            await self.reading
            return await self.process.wait()


@asynccontextmanager
async def worker_command(site: SeveralSite, *arguments: str) -> AsyncIterator[WorkerCommand]:
    """Run `sealbus worker run` with these arguments in the site's folder; it is killed at the end if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "sealbus",
        *("worker", "run", "--config", str(site.settings_file), *arguments),
        cwd=site.folder,
        stderr=asyncio.subprocess.PIPE,
    )
    command = WorkerCommand(process=process)
    command.reading = asyncio.create_task(command.read_lines())
    try:
        yield command
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await command.reading

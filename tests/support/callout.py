"""A real nats-server on deploy/local/nats/nats.conf, with responders of the auth callout that decide by a real policy."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from support.identity import StaticIdentity
from support.lab import QUICK, until
from support.nats_server import find_nats_server
from support.ports import held_port
from support.raw_nats import RawNats
from support.x509 import IssuedSvid, ThrowawayCa

from sealbus.agents.control.callout.key_files import CalloutKeys, write_keys
from sealbus.agents.control.callout.responder import Callout, ConnectRules, RefusedConnection
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.options import ConnectionOptions, NkeyLogin
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.plan import apply
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.bundle.files import STARTER
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.engines.embedded import EmbeddedEngine

__all__ = [
    "ACCOUNTS",
    "CONF",
    "CONTROL",
    "DOMAIN",
    "NAMES",
    "REFUSED",
    "SERVER_ID",
    "CalloutSite",
    "Responder",
    "callout_site",
    "impatient",
    "let_in",
    "policy_folder",
    "waiting",
    "with_own",
]

ROOT = Path(__file__).parents[2]
CONF = ROOT / "deploy" / "local" / "nats" / "nats.conf"
DOMAIN = TrustDomain("example.org")
NAMES = Names(DOMAIN, table={"edge": DOMAIN.id("/edge"), "control": DOMAIN.id("/control")})
SERVER_ID = DOMAIN.id("/nats")
CONTROL = DOMAIN.id("/control")
ACCOUNTS = ("APP", "APP_AGENTS", "ACME", "ACME_AGENTS")
_READY_SECONDS = 60.0

REFUSED = (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError, AssertionError)
"""How a connection that the server refuses ends: before, in or after the handshake."""


def policy_folder(path: Path, **registry: Json) -> Path:
    """Write a copy of the starter policy whose registry documents of these names are merged with what is given."""
    shutil.copytree(STARTER, path)
    for name, content in registry.items():
        file = path / "sealbus" / "registry" / name / "data.json"
        kept = json.loads(file.read_text())
        assert isinstance(content, dict)
        file.write_text(json.dumps({**kept, **content}))
    return path


@dataclass(kw_only=True)
class Responder:
    """One running responder, and what it refused."""

    callout: Callout
    connection: Connection
    task: asyncio.Task[None]
    identity: StaticIdentity
    counters: Counters
    refused: list[RefusedConnection]

    @property
    def codes(self) -> list[str]:
        return [str(one.code) for one in self.refused]

    async def stop(self) -> None:
        """End it, as a process that stops would."""
        self.task.cancel()
        await asyncio.wait({self.task})


@dataclass(kw_only=True)
class CalloutSite:
    """The server, its CAs, and what connects to it. `trusted` are the CAs in the server's own bundle."""

    folder: Path
    ca: ThrowawayCa
    trusted: tuple[ThrowawayCa, ...]
    keys: CalloutKeys
    port: int
    stack: AsyncExitStack
    policy: Path = STARTER
    own: tuple[OwnSubject, ...] = ()
    conf: Path = CONF
    name: str = "site"
    process: asyncio.subprocess.Process | None = None
    responders: list[Responder] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"tls://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        return (self.folder / "server.log").read_text()

    def identity(self, spiffe_id: SpiffeId | str, *, life: float = 3600.0) -> StaticIdentity:
        return StaticIdentity(
            self.ca, str(spiffe_id), life=life, federated=tuple(c for c in self.trusted if c is not self.ca)
        )

    def connection(
        self, name: str, *, identity: StaticIdentity | None = None, options: ConnectionOptions = QUICK
    ) -> Connection:
        """Return a connection of the workload `name` to enter."""
        identity = identity or self.identity(NAMES.id_of(name))
        return Connection(
            [self.url],
            identity=identity,
            server_ids=frozenset({SERVER_ID}),
            inbox_prefix=NAMES.inbox_prefix(identity.spiffe_id),
            options=replace(options, name=name),
        )

    def raw(
        self, name: str, *, svid: IssuedSvid | None = None, says: Mapping[str, object] = MappingProxyType({})
    ) -> RawNats:
        """Return a bare client with the workload's certificate, or with `svid`."""
        spiffe_id = NAMES.id_of(name)
        svid = svid or self.ca.issue(str(spiffe_id))
        return RawNats(self.port, self.ca, svid, self.folder, inbox=NAMES.inbox_prefix(spiffe_id), says=says)

    async def respond(
        self,
        *,
        engine: PolicyEngine | None = None,
        servers: Sequence[str] = (),
        longest: float = 0.0,
        accounts: Sequence[str] = ACCOUNTS,
        previous: CalloutKeys | None = None,
    ) -> Responder:
        """Start one more responder, and return once the server asks it."""
        if engine is None:
            engine = await self.stack.enter_async_context(EmbeddedEngine.of_folder(self.policy))
        identity, counters = self.identity(CONTROL), Counters()
        connection = await self.stack.enter_async_context(
            Connection(
                [self.url],
                identity=identity,
                server_ids=frozenset({SERVER_ID}),
                inbox_prefix="_INBOX.callout.",
                options=replace(
                    QUICK,
                    name="callout",
                    overlap=0.25,
                    login=NkeyLogin(public=self.keys.user.public, sign=self.keys.user.sign),
                ),
                counters=counters,
            )
        )
        refused: list[RefusedConnection] = []
        callout = Callout(
            ConnectRules(names=NAMES, accounts=accounts, own=self.own, servers=servers, longest=longest),
            connection=connection,
            identity=identity,
            engine=engine,
            keys=(self.keys, previous) if previous is not None else (self.keys,),
            counters=counters,
            on_refused=refused.append,
        )
        task = asyncio.create_task(callout.run())
        responder = Responder(
            callout=callout, connection=connection, task=task, identity=identity, counters=counters, refused=refused
        )
        self.stack.push_async_callback(responder.stop)
        await until(lambda: not callout.problem or task.done())
        assert not task.done(), task
        self.responders.append(responder)
        return responder

    async def second_server(self, conf: Path) -> CalloutSite:
        """Start another server with the same keys and authorities, and return it as a site of its own."""
        other = replace(
            self, folder=self.folder.with_name("second"), port=held_port(), conf=conf, name="second", responders=[]
        )
        other.process = None
        other.folder.mkdir()
        self.stack.push_async_callback(other.stop)
        await other.start()
        return other

    async def apply_streams(self, *, max_bytes: int = 1 << 26) -> None:
        """Create the streams as the operator."""
        async with self.connection("operator") as connection:
            sizes = {"TASKS": max_bytes, "AUDIT": max_bytes, "PEOPLE": 1 << 20}
            await apply(declared_streams(sizes, own=self.own), connection.jetstream)

    async def reload(self) -> None:
        """Have the server read its configuration again, and return once it has."""
        assert self.process is not None
        before = self.log.count("Reloaded server configuration")
        self.process.send_signal(signal.SIGHUP)
        await until(lambda: self.log.count("Reloaded server configuration") > before)

    async def start(self) -> None:
        """Start the server with a certificate of `ca`, and return once it listens."""
        svid = self.ca.issue(str(SERVER_ID), life=12 * 3600, addresses=("127.0.0.1",))
        certificate, key, bundle = (self.folder / name for name in ("server.pem", "server.key", "bundle.pem"))
        certificate.write_bytes(svid.cert_pem)
        key.write_bytes(svid.key_pem)
        bundle.write_bytes(b"".join(one.cert_pem for one in self.trusted))
        await self.run(certificate=certificate, key=key, bundle=bundle)

    async def run(self, *, certificate: Path, key: Path, bundle: Path) -> None:
        """Start the server with these files, and return once it listens."""
        environment = {
            "NATS_LISTEN": f"127.0.0.1:{self.port}",
            "NATS_NAME": self.name,
            "NATS_STORE": str(self.folder / "store"),
            "NATS_CERT": str(certificate),
            "NATS_KEY": str(key),
            "NATS_BUNDLE": str(bundle),
            **self.keys.public(),
        }
        self.process = await asyncio.create_subprocess_exec(
            find_nats_server(),
            "-c",
            str(self.conf),
            "-l",
            str(self.folder / "server.log"),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(_READY_SECONDS):
            while not await self._listens():
                assert self.process.returncode is None, f"nats-server ended at once:\n{self.log[-2000:]}"
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End the server."""
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


async def let_in(site: CalloutSite, svid: IssuedSvid | None = None, name: str = "inventory") -> bool:
    """Say whether the server lets a bare client with this certificate in, or with one of `name`."""
    try:
        async with site.raw(name, svid=svid) as client:
            return await client.may_publish(f"audit.{name}")
    except REFUSED:
        return False


def waiting(seconds: int, text: str | None = None) -> str:
    """Return the configuration by which a server waits so many seconds for a responder, and needs no PONG meanwhile."""
    text = CONF.read_text() if text is None else text
    for own, other in (("  timeout: 11\n", f"  timeout: {seconds}\n"), ('"5s"', f'"{max(5, seconds)}s"')):
        assert text.count(own) == 1
        text = text.replace(own, other)
    return text


def impatient(folder: Path) -> Path:
    """Write the configuration of a server that waits 2 s for a responder."""
    folder.mkdir(exist_ok=True)
    conf = folder / "impatient.conf"
    conf.write_text(waiting(2))
    return conf


def with_own(folder: Path, own: Sequence[OwnSubject]) -> Path:
    """Return a copy of the configuration to which own tasks and events were added, as its comment says."""
    text = CONF.read_text()
    place = re.search(r"# Every subject that a stream listens to\..*\n", text)
    assert place is not None
    stored = [one.subject for one in own if one.kind is not Kind.CALL]
    lines = [f'      {{ service: {{ account: APP, subject: "{subject}" }} }}\n' for subject in stored]
    conf = folder / "own.conf"
    conf.write_text(text[: place.end()] + "".join(lines) + text[place.end() :])
    return conf


@asynccontextmanager
async def callout_site(
    folder: Path,
    *,
    responders: int = 1,
    federated: Sequence[ThrowawayCa] = (),
    policy: Path = STARTER,
    own: tuple[OwnSubject, ...] = (),
    conf: Path = CONF,
    ca: ThrowawayCa | None = None,
) -> AsyncIterator[CalloutSite]:
    """Start a server and so many responders; `federated` are CAs of other trust domains that the server trusts as well."""
    ca = ca or ThrowawayCa(DOMAIN.name)
    async with AsyncExitStack() as stack:
        site = CalloutSite(
            folder=folder,
            ca=ca,
            trusted=(ca, *federated),
            keys=write_keys(folder / "keys"),
            port=held_port(),
            stack=stack,
            policy=policy,
            own=own,
            conf=with_own(folder, own) if own and conf is CONF else conf,
        )
        stack.push_async_callback(site.stop)
        await site.start()
        for _ in range(responders):
            await site.respond()
        yield site

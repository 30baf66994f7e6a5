"""The development environment: Workload API, NATS, policy, identity provider, edge and, if chosen, OPA; in one folder.

Everything but its scale is real: SVIDs come over the Workload API and rotate, NATS speaks mTLS, streams are declared and
checked, the policy is a bundle that is published again when its folder changes; a bad change leaves the old one in force. The
authority is for development only.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sealbus.agents.control.control import CONTROL
from sealbus.agents.dev.held_port import held_port
from sealbus.agents.dev.nats.config import BrokerRole
from sealbus.agents.dev.nats.server import EmbeddedNatsServer
from sealbus.agents.dev.settings_file import CONSOLE, NOTARY, Declared, DevLog, write_settings
from sealbus.agents.dev.workload_api import DevelopmentAuthority, EmbeddedWorkloadApi
from sealbus.agents.dev.workload_api.state import PRIVATE, replace_file
from sealbus.agents.runtime.open import open_connection, streams_of
from sealbus.agents.runtime.policy.revocation import REVOKER
from sealbus.agents.runtime.settings.schema import IssuerTable
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.agents.runtime.settings.state_folder import DEV_LOCK, lock_folder
from sealbus.bus.background import Background
from sealbus.bus.stream_names import AUDIT, TASKS
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.plan import apply
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.files import build_bundle, write_bundle

if TYPE_CHECKING:
    from sealbus.agents.dev.idp import DevelopmentIdp
    from sealbus.agents.edge.edge import RunningEdge
    from sealbus.policies.opa.process import OpaProcess

__all__ = ["DevOptions", "Environment", "open_environment", "republish"]

STREAM_BYTES = 1 << 30
"""Most that TASKS and AUDIT may each hold in `sealbus dev`: 1 GiB."""

STORE_SPARE = 1 << 26
"""Most that JetStream may hold beyond the streams' own limits: 64 MiB."""

LOCK_TRIES = 10
"""A command that checks whether `sealbus dev` runs holds the lock for microseconds; another environment holds it for good."""

ALWAYS = ("operator", "backup", "cli")
"""Names in addition to the declared agents: who manages streams and reads the audit, who backs up, who runs commands."""

_ROLES = {
    "edge": BrokerRole.EDGE,
    "operator": BrokerRole.OPERATOR,
    "backup": BrokerRole.BACKUP,
    CONSOLE: BrokerRole.CONSOLE,
    NOTARY: BrokerRole.NOTARY,
    CONTROL: BrokerRole.CONTROL,
    REVOKER: BrokerRole.REVOKER,
}

_log = logging.getLogger(__name__)

LOOK_EVERY = 0.1
"""Seconds between looks at the folder; half of what a change may take to reach every process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """The options of `sealbus dev`. `policy` is a folder of Rego and data; by default the starter policy.

    Ports of the edge and of the identity provider are any free ones by default. With `notary` a log of the audit stream is
    kept. The edge takes tokens of the development IdP and of `issuers`.
    """

    folder: Path
    agents: Sequence[str]
    declared: Declared = field(default_factory=Declared)
    port: int = 4222
    edge_port: int = 0
    idp_port: int = 0
    engine: str = "embedded"
    opa: Path | None = None
    policy: Path | None = None
    notary: bool = False
    console_port: int | None = None
    """Of the console; 0 for any free port, None for no console."""
    issuers: Sequence[IssuerTable] = ()
    x509_ttl: int = 600
    jwt_ttl: int = 300
    max_bytes: int = STREAM_BYTES
    development: bool = False
    """Whether requesters are told the texts behind errors."""
    sync: bool = True
    """Whether NATS acknowledges only what is on the disk; without it a power failure loses up to two minutes of work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The running environment: the settings file that other commands use, and the parts that the demo changes."""

    settings_file: Path
    settings: Settings
    authority: DevelopmentAuthority
    api: EmbeddedWorkloadApi
    nats: EmbeddedNatsServer
    idp: DevelopmentIdp
    edge: RunningEdge
    opa: OpaProcess | None
    policy: Path
    bundle: Path
    names: Names
    log: DevLog | None
    console: str = ""
    """Where the console is, if there is one."""

    def publish_policy(self, folder: Path | None = None) -> str:
        """Build the policy folder (or another) into the bundle in force, by rename; return the revision."""
        bundle = build_bundle(folder or self.policy)
        write_bundle(bundle, self.bundle)
        return bundle.revision


@asynccontextmanager
async def open_environment(options: DevOptions) -> AsyncGenerator[Environment, None]:
    """Start everything, apply the streams, write the settings file, and stop everything in reverse order at the end."""
    async with AsyncExitStack() as stack:
        # First what takes no time: a port in use is the most common mistake.
        edge_port = _hold_port(stack, "--edge-port", options.edge_port)
        idp_port = _hold_port(stack, "--idp-port", options.idp_port)
        token_port = stack.enter_context(held_port())
        console = ""
        if options.console_port is not None:
            console = f"127.0.0.1:{_hold_port(stack, '--console-port', options.console_port)}"
        folder = options.folder.absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = options.declared.names()
        domain = names.trust_domain
        policy = options.policy or starter_policy()
        workloads = _workloads(options, names)
        own = options.declared.own
        sizes = {TASKS: options.max_bytes, AUDIT: options.max_bytes, **options.declared.max_bytes}
        bundle = folder / "policy" / "bundle.tar.gz"
        await _hold(folder, stack)
        bundle.parent.mkdir(mode=0o700, exist_ok=True)
        write_bundle(build_bundle(policy), bundle)
        authority = DevelopmentAuthority.open(folder / "authority.json", domain)
        api = await stack.enter_async_context(
            EmbeddedWorkloadApi(folder / "api", authority, x509_ttl=options.x509_ttl, jwt_ttl=options.jwt_ttl)
        )
        for name, spiffe_id in workloads.items():
            address = await api.add_identity(spiffe_id)
            _link(folder / "api", name, address)
        group = await stack.enter_async_context(Background())
        server_id = SpiffeId(f"spiffe://{domain.name}/nats")
        nats = await stack.enter_async_context(
            EmbeddedNatsServer(
                folder / "nats",
                tasks=group,
                names=names,
                write_svid=lambda where: api.write_server_svid(where, server_id, dns=("localhost",)),
                workloads={spiffe_id: _role(name, options.declared) for name, spiffe_id in workloads.items()},
                own=own,
                port=options.port,
                sync=options.sync,
                max_store_bytes=STORE_SPARE + sum(one.max_bytes for one in declared_streams(sizes, own=own)),
            )
        )
        # The server must get a rotated CA, or it refuses the SVIDs of the new one.
        stack.callback(authority.on_change(nats.renew))
        opa, process = "", None
        if options.engine == "sidecar":
            from sealbus.policies.opa.process import OpaProcess

            socket = folder / "opa" / "opa.sock"
            process = await stack.enter_async_context(OpaProcess(_opa(options), socket=socket, bundle=bundle))
            opa = str(socket)
        # Imported here: building a bundle (`sealbus policy test`) needs no web framework.
        from sealbus.agents.dev.idp import DevelopmentIdp

        edge_address = f"127.0.0.1:{edge_port}"
        access = folder / "idp.json"
        idp = await stack.enter_async_context(
            DevelopmentIdp(
                audience=f"http://{edge_address}",
                port=idp_port,
                users=options.declared.users,
                access=access,
            )
        )
        settings_file = folder / "dev.toml"
        log: DevLog | None = None
        if options.notary:
            log = await asyncio.to_thread(DevLog.prepared, folder, domain)
        write_settings(
            settings_file,
            declared=options.declared,
            issuer=idp.issuer,
            issuers=options.issuers,
            access=access,
            nats=nats.url,
            server_id=server_id,
            workload_api=f"unix://{folder / 'api'}/{{name}}.sock",
            engine=options.engine,
            bundle=bundle,
            opa=opa,
            edge_id=names.id_of("edge"),
            edge_address=edge_address,
            token_service=f"127.0.0.1:{token_port}",
            # Every agent; its policy decides what may be done with it.
            actions=tuple(
                f"{name}.*" for name in workloads if name not in (*ALWAYS, NOTARY, "edge", options.declared.exit)
            ),
            max_bytes=options.max_bytes,
            policy=policy.absolute(),
            token_key=await asyncio.to_thread(_key, folder / "tokens.key") if options.declared.exchanges else None,
            state_key=await asyncio.to_thread(_key, folder / "mcp.key") if options.declared.mcp else None,
            log=log,
            console=console,
            development=options.development,
        )
        stack.callback(settings_file.unlink, missing_ok=True)
        settings = load_settings(settings_file)
        async with open_connection("operator", settings) as (_, connection):
            await apply(streams_of(settings), connection.jetstream)
        if log is not None:
            from sealbus.agents.dev.settings_file import running_notary

            await stack.enter_async_context(running_notary(settings))
        from sealbus.agents.edge.edge import open_edge

        edge = await stack.enter_async_context(open_edge(settings))
        if options.declared.exit:
            from sealbus.agents.dev.settings_file import running_exit

            await stack.enter_async_context(running_exit(settings))
        if console:
            from sealbus.agents.dev.settings_file import running_console

            await stack.enter_async_context(running_console(settings))
        yield Environment(
            settings_file=settings_file,
            settings=settings,
            authority=authority,
            api=api,
            nats=nats,
            idp=idp,
            edge=edge,
            opa=process,
            policy=policy,
            bundle=bundle,
            names=names,
            log=log,
            console=f"http://{console}" if console else "",
        )


def _key(file: Path) -> Path:
    from sealbus.agents.edge.oauth.private_file import write_key

    if not file.exists():
        write_key(file)
    return file


def starter_policy() -> Path:
    """Return the folder of the starter policy that is installed with sealbus."""
    import sealbus.policies

    return Path(sealbus.policies.__path__[0]) / "rego"


def _role(name: str, declared: Declared) -> BrokerRole:
    return BrokerRole.EXIT if name == declared.exit else _ROLES.get(name, BrokerRole.AGENT)


def _workloads(options: DevOptions, names: Names) -> dict[str, SpiffeId]:
    more = [NOTARY] if options.notary else []
    more += [options.declared.exit] if options.declared.exit else []
    more += [CONSOLE] if options.console_port is not None else []
    wanted = dict.fromkeys((*ALWAYS, *more, *options.agents, *options.declared.agents, "edge"))
    return {name: names.id_of(name) for name in wanted}


async def _hold(folder: Path, stack: AsyncExitStack) -> None:
    """Lock the folder until the end, so that files in it count exactly as long as this process lives."""
    for left in range(LOCK_TRIES, 0, -1):
        try:
            stack.callback(os.close, lock_folder(folder, DEV_LOCK))
            break
        except ConfigurationError:
            if left == 1:
                raise
            await asyncio.sleep(0.02)
    process = folder / f"{DEV_LOCK}.pid"
    replace_file(process, f"{os.getpid()}\n".encode(), mode=PRIVATE)
    stack.callback(process.unlink, missing_ok=True)


def _hold_port(stack: AsyncExitStack, option: str, port: int) -> int:
    """Hold `port`, or any for 0, until `stack` ends, and return its number."""
    try:
        return stack.enter_context(held_port(port))
    except OSError as error:
        raise ConfigurationError(
            f"port {port} of 127.0.0.1 cannot be used: {error.strerror}; choose another by {option}, 0: any"
        ) from error


def _link(folder: Path, name: str, address: str) -> None:
    """Link the socket of a workload under its name, so that settings can name `{name}.sock`."""
    target = Path(address.removeprefix("unix://"))
    link = folder / f"{name}.sock"
    if target == link:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target.name)


def _opa(options: DevOptions) -> Path:
    found = options.opa or os.environ.get("SEALBUS_OPA") or shutil.which("opa")
    if found is None:
        raise ConfigurationError("opa is not on PATH: install it, give --opa FILE, or use --engine embedded")
    return Path(found)


async def republish(environment: Environment) -> None:
    """Watch the folder until cancelled, and publish changes."""
    seen = _stamp(environment)
    while True:
        await asyncio.sleep(LOOK_EVERY)
        stamp = _stamp(environment)
        if stamp == seen:
            continue
        seen = stamp
        try:
            revision = environment.publish_policy()
        except ConfigurationError as error:
            _log.warning("policy not published, the old one stays in force: %s", error.detail)
        else:
            _log.warning("policy published: revision %s", revision)


def _stamp(environment: Environment) -> frozenset[tuple[str, int, int]]:
    found = set()
    for path in environment.policy.rglob("*"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            found.add((str(path), stat.st_mtime_ns, stat.st_size))
    return frozenset(found)

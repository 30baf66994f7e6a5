"""The development environment: Workload API, NATS, policy, identity provider, edge and, if chosen, OPA; in one folder.

All of it but the scale is real: SVIDs come over the Workload API and rotate, NATS speaks mTLS, streams are declared and
checked. The policy is a bundle that is published again when its folder changes; a bad change leaves the old policy in force.
The authority is for development only.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sealbus.agents.control.control import CONTROL
from sealbus.agents.dev.held_port import held_port
from sealbus.agents.dev.nats.config import BrokerRole
from sealbus.agents.dev.nats.server import EmbeddedNatsServer, StoreOptions
from sealbus.agents.dev.settings_file import (
    CONSOLE,
    NOTARY,
    Declared,
    DevLog,
    DevSettings,
    running_console,
    running_exit,
    running_notary,
)
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi
from sealbus.agents.dev.workload_api.server_svid import write_server_svid
from sealbus.agents.files import PRIVATE, replace_file
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
    from sealbus.agents.dev.idp.server import DevelopmentIdp
    from sealbus.agents.edge.edge import RunningEdge
    from sealbus.policies.opa.process import OpaProcess

STREAM_BYTES = 1 << 30
"""Most that TASKS and AUDIT may each hold in `sealbus dev`: 1 GiB."""

STORE_SPARE = 1 << 26
"""Most that JetStream may hold beyond the streams' own limits: 64 MiB."""

LOCK_TRIES = 10
"""Tries to lock the folder: a command that checks whether `sealbus dev` runs holds the lock only for microseconds."""

ALWAYS = ("operator", "backup", "cli")
"""Workloads in addition to the declared agents: for streams and the audit, for backups, and for commands."""

_ROLES = {
    "edge": BrokerRole.EDGE,
    "operator": BrokerRole.OPERATOR,
    "backup": BrokerRole.BACKUP,
    CONSOLE: BrokerRole.CONSOLE,
    NOTARY: BrokerRole.NOTARY,
    CONTROL: BrokerRole.CONTROL,
    REVOKER: BrokerRole.REVOKER,
}

_logger = logging.getLogger(__name__)

LOOK_EVERY = 0.1
"""Seconds between two reads of the folder; half of what a change may take to reach every process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """The options of `sealbus dev`. `policy` is a folder of Rego and data; by default the starter policy.

    The ports of the edge and of the identity provider are free ports by default. With `notary` a notary keeps a log of the
    audit stream. The edge accepts tokens of the development IdP and of `issuers`.
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
    """The port of the console; 0 for any free port, None for no console."""
    issuers: Sequence[IssuerTable] = ()
    x509_ttl: int = 600
    jwt_ttl: int = 300
    max_bytes: int = STREAM_BYTES
    development: bool = False
    """Whether requesters get the texts of errors."""
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
    """The URL of the console; empty without a console."""

    def publish_policy(self, folder: Path | None = None) -> str:
        """Build `folder`, or the policy folder, into the bundle in force, by rename; return the revision."""
        bundle = build_bundle(folder or self.policy)
        write_bundle(bundle, self.bundle)
        return bundle.revision


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """The folder of one environment, the ports that it holds, its policy, and the identities of its workloads."""

    options: DevOptions
    folder: Path
    names: Names
    workloads: Mapping[str, SpiffeId]
    policy: Path
    edge_port: int
    idp_port: int
    token_port: int
    console: str
    """HOST:PORT of the console; empty without a console."""

    @property
    def bundle(self) -> Path:
        return self.folder / "policy" / "bundle.tar.gz"

    @property
    def edge_address(self) -> str:
        return f"127.0.0.1:{self.edge_port}"

    @property
    def access(self) -> Path:
        return self.folder / "idp.json"

    @property
    def server_id(self) -> SpiffeId:
        return SpiffeId(f"spiffe://{self.names.trust_domain.name}/nats")


@asynccontextmanager
async def open_environment(options: DevOptions) -> AsyncGenerator[Environment, None]:
    """Start all parts, apply the streams, write the settings file, and stop the parts in reverse order at the end."""
    async with AsyncExitStack() as stack:
        # Ports first, because it takes no time to find them in use, and this is the most common mistake.
        site = _hold_ports(options, stack)
        site.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        await _hold_folder(site.folder, stack)
        site.bundle.parent.mkdir(mode=0o700, exist_ok=True)
        write_bundle(build_bundle(site.policy), site.bundle)
        authority = DevelopmentAuthority.open(site.folder / "authority.json", site.names.trust_domain)
        api = await _start_workload_api(site, authority, stack)
        nats = await _start_nats(site, authority, stack)
        opa = await _start_opa(site, stack) if options.engine == "sidecar" else None
        idp = await _start_idp(site, stack)
        log = await asyncio.to_thread(DevLog.prepared, site.folder, site.names.trust_domain) if options.notary else None
        settings_file = site.folder / "dev.toml"
        written = await asyncio.to_thread(_settings, site, nats_url=nats.url, issuer=idp.issuer, log=log)
        written.write(settings_file)
        stack.callback(settings_file.unlink, missing_ok=True)
        settings = load_settings(settings_file)
        async with open_connection("operator", settings) as (_, connection):
            await apply(streams_of(settings), connection.jetstream)
        if log is not None:
            await stack.enter_async_context(running_notary(settings))
        from sealbus.agents.edge.edge import open_edge

        edge = await stack.enter_async_context(open_edge(settings, recorded=False))
        if options.declared.exit:
            await stack.enter_async_context(running_exit(settings))
        if site.console:
            await stack.enter_async_context(running_console(settings))
        yield Environment(
            settings_file=settings_file,
            settings=settings,
            authority=authority,
            api=api,
            nats=nats,
            idp=idp,
            edge=edge,
            opa=opa,
            policy=site.policy,
            bundle=site.bundle,
            names=site.names,
            log=log,
            console=f"http://{site.console}" if site.console else "",
        )


def _hold_ports(options: DevOptions, stack: AsyncExitStack) -> _Site:
    """Return the site of the environment, whose ports are held until `stack` ends."""
    edge_port = _hold_port(stack, "--edge-port", options.edge_port)
    idp_port = _hold_port(stack, "--idp-port", options.idp_port)
    token_port = stack.enter_context(held_port())
    console = ""
    if options.console_port is not None:
        console = f"127.0.0.1:{_hold_port(stack, '--console-port', options.console_port)}"
    names = options.declared.names()
    return _Site(
        options=options,
        folder=options.folder.absolute(),
        names=names,
        workloads=_workloads(options, names),
        policy=options.policy or starter_policy(),
        edge_port=edge_port,
        idp_port=idp_port,
        token_port=token_port,
        console=console,
    )


async def _start_workload_api(
    site: _Site, authority: DevelopmentAuthority, stack: AsyncExitStack
) -> EmbeddedWorkloadApi:
    options = site.options
    api = await stack.enter_async_context(
        EmbeddedWorkloadApi(site.folder / "api", authority, x509_ttl=options.x509_ttl, jwt_ttl=options.jwt_ttl)
    )
    for name, spiffe_id in site.workloads.items():
        address = await api.add_identity(spiffe_id)
        _link(site.folder / "api", name, address)
    return api


async def _start_nats(site: _Site, authority: DevelopmentAuthority, stack: AsyncExitStack) -> EmbeddedNatsServer:
    options, own = site.options, site.options.declared.own
    sizes = {TASKS: options.max_bytes, AUDIT: options.max_bytes, **options.declared.max_bytes}
    max_bytes = STORE_SPARE + sum(stream.max_bytes for stream in declared_streams(sizes, own=own))
    nats = await stack.enter_async_context(
        EmbeddedNatsServer(
            site.folder / "nats",
            tasks=await stack.enter_async_context(Background()),
            names=site.names,
            write_svid=lambda folder: write_server_svid(folder, authority, site.server_id),
            workloads={spiffe_id: _role(name, options.declared) for name, spiffe_id in site.workloads.items()},
            own=own,
            port=options.port,
            store=StoreOptions(max_bytes=max_bytes, sync=options.sync),
        )
    )
    # The server must get a rotated CA, or it refuses the SVIDs that the new CA signs.
    stack.callback(authority.on_change(nats.renew))
    return nats


async def _start_opa(site: _Site, stack: AsyncExitStack) -> OpaProcess:
    from sealbus.policies.opa.process import OpaProcess

    opa = OpaProcess(_opa(site.options), socket=_opa_socket(site), bundle=site.bundle)
    return await stack.enter_async_context(opa)


async def _start_idp(site: _Site, stack: AsyncExitStack) -> DevelopmentIdp:
    # Imported here: building a bundle (`sealbus policy test`) needs no web framework.
    from sealbus.agents.dev.idp.server import DevelopmentIdp

    idp = DevelopmentIdp(
        audience=f"http://{site.edge_address}",
        port=site.idp_port,
        users=site.options.declared.users,
        access=site.access,
    )
    return await stack.enter_async_context(idp)


def _settings(site: _Site, *, nats_url: str, issuer: str, log: DevLog | None) -> DevSettings:
    """Return the settings of the environment; make the edge's keys that they name. Blocks."""
    options, declared = site.options, site.options.declared
    without_actions = (*ALWAYS, NOTARY, "edge", declared.exit)
    return DevSettings(
        declared=declared,
        issuer=issuer,
        issuers=options.issuers,
        access=site.access,
        nats=nats_url,
        server_id=site.server_id,
        workload_api=f"unix://{site.folder / 'api'}/{{name}}.sock",
        engine=options.engine,
        bundle=site.bundle,
        opa=str(_opa_socket(site)) if options.engine == "sidecar" else "",
        edge_address=site.edge_address,
        token_service=f"127.0.0.1:{site.token_port}",
        # All agents: the policy of each decides which actions are allowed.
        actions=tuple(f"{name}.*" for name in site.workloads if name not in without_actions),
        max_bytes=options.max_bytes,
        policy=site.policy.absolute(),
        token_key=_key(site.folder / "tokens.key") if declared.exchanges else None,
        state_key=_key(site.folder / "mcp.key") if declared.mcp else None,
        log=log,
        console=site.console,
        development=options.development,
    )


def _opa_socket(site: _Site) -> Path:
    return site.folder / "opa" / "opa.sock"


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
    workloads = dict.fromkeys((*ALWAYS, *more, *options.agents, *options.declared.agents, "edge"))
    return {name: names.id_of(name) for name in workloads}


async def _hold_folder(folder: Path, stack: AsyncExitStack) -> None:
    """Lock the folder until `stack` ends: the files in it are valid exactly as long as this process lives."""
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
    """Hold `port`, or any free port for 0, until `stack` ends, and return its number."""
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
    opa = options.opa or os.environ.get("SEALBUS_OPA") or shutil.which("opa")
    if opa is None:
        raise ConfigurationError("opa is not on PATH: install it, give --opa FILE, or use --engine embedded")
    return Path(opa)


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
            _logger.warning("policy not published, the old policy stays in force: %s", error.detail)
        else:
            _logger.warning("policy published: revision %s", revision)


def _stamp(environment: Environment) -> frozenset[tuple[str, int, int]]:
    files = set()
    for path in environment.policy.rglob("*"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            files.add((str(path), stat.st_mtime_ns, stat.st_size))
    return frozenset(files)

"""The development environment: Workload API, NATS, policy and, where asked for, OPA; on this machine, in one folder.

Everything is real but its scale: SVIDs come over the Workload API and rotate, NATS speaks mTLS, streams are declared and
checked, the policy is a bundle that can be replaced while all runs. The authority is for development only.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sealbus.agents.dev.nats_server import EmbeddedNatsServer
from sealbus.agents.dev.permissions import Role
from sealbus.agents.dev.settings_file import write_settings
from sealbus.agents.dev.users import EDGE_PATH
from sealbus.agents.dev.workload_api import DevelopmentAuthority, EmbeddedWorkloadApi
from sealbus.agents.runtime import open_connection, streams_of
from sealbus.agents.settings import Settings, load_settings
from sealbus.bus.stream_plan import apply
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.names import Names
from sealbus.envelopes.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.bundle import build_bundle, write_bundle

__all__ = ["DevOptions", "Environment", "open_environment"]

STREAM_BYTES = 1 << 30
"""What TASKS and AUDIT may hold each in `sealbus dev`: 1 GiB."""

ALWAYS = ("operator", "cli")
"""Names that exist beside the declared agents: who manages streams and reads the audit, and who types commands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """What `sealbus dev` is asked for. `policy` is a folder of Rego and data; absent, the starter policy."""

    folder: Path
    agents: Sequence[str]
    trust_domain: str = "example.org"
    port: int = 4222
    engine: str = "embedded"
    opa: Path | None = None
    policy: Path | None = None
    x509_ttl: int = 600
    jwt_ttl: int = 300
    max_bytes: int = STREAM_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What runs: the settings file that other commands use, and what the demo reaches into."""

    settings_file: Path
    settings: Settings
    authority: DevelopmentAuthority
    api: EmbeddedWorkloadApi
    nats: EmbeddedNatsServer
    policy: Path
    bundle: Path
    names: Names

    def publish_policy(self, folder: Path | None = None) -> str:
        """Build the policy folder (or another) into the bundle in force, by rename; return the revision."""
        bundle = build_bundle(folder or self.policy)
        write_bundle(bundle, self.bundle)
        return bundle.revision


@asynccontextmanager
async def open_environment(options: DevOptions) -> AsyncGenerator[Environment, None]:
    """Start everything, apply the streams, write the settings file, and stop all of it in reverse order at the end."""
    folder = options.folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    domain = TrustDomain(options.trust_domain)
    names = Names(domain)
    policy = options.policy or starter_policy()
    workloads = _workloads(options, names, domain)
    bundle = folder / "policy" / "bundle.tar.gz"
    bundle.parent.mkdir(mode=0o700, exist_ok=True)
    write_bundle(build_bundle(policy), bundle)
    async with AsyncExitStack() as stack:
        authority = DevelopmentAuthority.open(folder / "authority.json", domain)
        api = await stack.enter_async_context(
            EmbeddedWorkloadApi(folder / "api", authority, x509_ttl=options.x509_ttl, jwt_ttl=options.jwt_ttl)
        )
        for name, spiffe_id in workloads.items():
            address = await api.add_identity(spiffe_id)
            _link(folder / "api", name, address)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        server_id = SpiffeId(f"spiffe://{domain.name}/nats")
        nats = await stack.enter_async_context(
            EmbeddedNatsServer(
                folder / "nats",
                tasks=group,
                names=names,
                write_svid=lambda where: api.write_server_svid(where, server_id, dns=("localhost",)),
                workloads={
                    spiffe_id: Role.OPERATOR if name == "operator" else Role.AGENT
                    for name, spiffe_id in workloads.items()
                },
                port=options.port,
                max_store_bytes=8 * options.max_bytes,
            )
        )
        # A CA that was rotated must reach the server, or it refuses the SVIDs of the new one.
        stack.callback(authority.on_change(nats.renew))
        opa = ""
        if options.engine == "sidecar":
            from sealbus.policies.opa_process import OpaProcess

            socket = folder / "opa" / "opa.sock"
            await stack.enter_async_context(OpaProcess(_opa(options), socket=socket, bundle=bundle))
            opa = str(socket)
        settings_file = folder / "dev.toml"
        write_settings(
            settings_file,
            trust_domain=domain,
            nats=nats.url,
            server_id=server_id,
            workload_api=f"unix://{folder / 'api'}/{{name}}.sock",
            engine=options.engine,
            bundle=bundle,
            opa=opa,
            minter=SpiffeId(f"spiffe://{domain.name}{EDGE_PATH}"),
            max_bytes=options.max_bytes,
        )
        stack.callback(settings_file.unlink, missing_ok=True)
        settings = load_settings(settings_file)
        async with open_connection("operator", settings) as (_, connection):
            await apply(streams_of(settings), connection.jetstream)
        yield Environment(
            settings_file=settings_file,
            settings=settings,
            authority=authority,
            api=api,
            nats=nats,
            policy=policy,
            bundle=bundle,
            names=names,
        )


def starter_policy() -> Path:
    """Return the folder of the starter policy that comes with sealbus."""
    import sealbus.policies

    return Path(sealbus.policies.__path__[0]) / "rego"


def _workloads(options: DevOptions, names: Names, domain: TrustDomain) -> dict[str, SpiffeId]:
    workloads = {name: names.id_of(name) for name in (*ALWAYS, *options.agents)}
    workloads["edge"] = SpiffeId(f"spiffe://{domain.name}{EDGE_PATH}")
    return workloads


def _link(folder: Path, name: str, address: str) -> None:
    """Give the socket of a workload its name, so that settings can say `{name}.sock`."""
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

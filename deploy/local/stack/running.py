"""The whole stack: started in the order of what needs what, and stopped in the reverse order."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sealbus.agents.dev.environment import starter_policy
from sealbus.agents.dev.idp.server import DevelopmentIdp
from sealbus.agents.edge.oauth.private_file import write_key
from sealbus.agents.examples import inventory
from sealbus.agents.sdk.schema import AgentSchema
from sealbus.envelopes.trust.keys import PublicKey, read_signing_key
from sealbus.policies.bundle.files import build_bundle, write_bundle
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.bundle.signing import sign_bundle
from stack.broker import nats_server, pid_file
from stack.fence import open_fence
from stack.identity_writer import IdentityWriter
from stack.keys import write_new_key
from stack.opa_server import central_opa, sidecar_opa
from stack.probes import is_there
from stack.program import READY_SECONDS, Program, output_of
from stack.roster import AGENTS, CONTROL, EDGE, NATS, NOTARY, OPA, PEOPLE, TRUST_DOMAIN, Workload, entries
from stack.run_as import as_user
from stack.site import SCHEMA, SEALBUS, STATE_KEY, Site
from stack.spire import Spire, open_spire

__all__ = [
    "LOG_ORIGIN",
    "Lives",
    "Stack",
    "empty_site",
    "make_notary",
    "make_worker",
    "open_stack",
    "push_policy",
]

LOG_ORIGIN: Final = "log.example.org/audit"
"""The name of the log, as in sealbus.toml."""

_LOOK_AGAIN: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Lives:
    """How long SVIDs live, in seconds: of agents, and the X.509-SVIDs of servers."""

    x509: int = 600
    jwt: int = 300
    server: int = 3_600
    refresh: int = 2
    """How often the SPIRE agent asks its server what is new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What runs: programs by name, each of which may be stopped and started again."""

    site: Site
    spire: Spire
    idp: DevelopmentIdp
    programs: dict[str, Program]


@asynccontextmanager
async def open_stack(
    site: Site, *, lives: Lives | None = None, audit: int | None = None
) -> AsyncGenerator[Stack, None]:
    """Start everything in the folder of `site`, which is emptied first, and yield once all of it is well.

    `audit` is how many bytes the audit stream may take, in place of what sealbus.toml says.

    Needs root, the programs of `make tools`, and free ports. Raises `ConfigurationError`, one line that names what did
    not start and where its log is.
    """
    lives = lives or Lives()
    ports = site.ports
    await asyncio.to_thread(empty_site, site)
    programs: dict[str, Program] = {}
    async with AsyncExitStack() as stack:

        async def start(program: Program) -> Program:
            stack.push_async_callback(program.stop)
            await program.start()
            programs[program.name] = program
            return program

        spire = await stack.enter_async_context(
            open_spire(
                site.folder / "spire",
                trust_domain=TRUST_DOMAIN,
                port=ports.spire,
                entries=entries(x509_ttl=lives.x509, jwt_ttl=lives.jwt, server_ttl=lives.server),
                refresh=lives.refresh,
            )
        )
        site = replace(site, workload_api=spire.agent.address)
        operator = PEOPLE[0]
        responder = f"http://127.0.0.1:{ports.control_health}/readyz"
        await stack.enter_async_context(_svid(site, NATS, pid_file=pid_file(site), callout_health=(responder,)))
        keys = site.own_folder(CONTROL) / "keys"
        await start(nats_server(site, await _keys(site, keys)))
        await start(_callout(site, keys))
        sizes = {"SEALBUS_STREAMS__MAX_BYTES__AUDIT": str(audit)} if audit else {}
        declare = [SEALBUS, "streams", "apply", "--as", operator.name]
        await output_of(declare, environment=_whole(site, operator) | sizes)
        await push_policy(site)
        await start(await make_notary(site))
        await start(site.sealbus(CONTROL, ["control", "run", "--roles", "streams"], name="streams"))
        policy_server, signer = _policy_server(site)
        await start(policy_server)
        await stack.enter_async_context(_svid(site, OPA))
        await start(central_opa(site, signer))
        idp = await stack.enter_async_context(
            DevelopmentIdp(audience=site.resource, port=ports.idp, access=site.access)
        )
        await asyncio.to_thread(_tools, site)
        await start(site.sealbus(EDGE, ["edge", "serve"], environment=site.edge_environment(idp.issuer)))
        async with asyncio.TaskGroup() as group:
            for agent in AGENTS:
                group.create_task(start(make_worker(site, agent)))
                if agent.engine == "sidecar":
                    # The worker puts the policy there, and is well once its OPA is.
                    group.create_task(_start_after(site.composed(agent), partial(start, sidecar_opa(site, agent))))
        yield Stack(site=site, spire=spire, idp=idp, programs=programs)


def _tools(site: Site) -> None:
    """Give the edge what its MCP server needs."""
    folder = site.own_folder(EDGE)
    (folder / SCHEMA).write_text(AgentSchema.of(inventory.agent).text(), encoding="utf-8")
    write_key(folder / STATE_KEY)
    for name in (SCHEMA, STATE_KEY):
        shutil.chown(folder / name, EDGE.uid, EDGE.gid)


def empty_site(site: Site) -> None:
    """Empty the folder and put a policy in it that may be changed, with the key that signs it."""
    shutil.rmtree(site.folder, ignore_errors=True)
    site.prepare()
    shutil.copytree(starter_policy(), site.policy)
    open_fence(site.policy)
    write_new_key(private=site.signing_key, public=site.public_key)


async def push_policy(site: Site, *, environment: Mapping[str, str] | None = None) -> str:
    """Push the policy folder as its owner would, and return the revision that every process comes to."""
    command = [SEALBUS, "policy", "push", str(site.policy), "--key", str(site.signing_key), "--json"]
    variables = environment or _whole(site, PEOPLE[0])
    said: str = json.loads(await output_of(command, environment=variables))["composed"]
    return said


async def _keys(site: Site, folder: Path) -> dict[str, str]:
    """Make the keys of the auth callout as the user of control, and return the public ones, which the server is told."""
    command = [*as_user(CONTROL.uid, CONTROL.gid), SEALBUS, "control", "keygen", str(folder)]
    await output_of(command, environment=_whole(site, CONTROL))
    lines = await asyncio.to_thread((folder / "public.env").read_text)
    return dict(line.split("=", 1) for line in lines.splitlines() if line)


def _svid(
    site: Site, workload: Workload, *, pid_file: Path | None = None, callout_health: Sequence[str] = ()
) -> IdentityWriter:
    site.own_folder(workload)
    return IdentityWriter(
        site.svid(workload),
        address=site.workload_api,
        spiffe_id=workload.spiffe_id,
        pid_file=pid_file,
        callout_health=callout_health,
        uid=workload.uid,
    )


def _callout(site: Site, keys: Path) -> Program:
    """Return the control process that the server asks about every connection, from a bundle of the operator's on."""
    bootstrap = site.own_folder(CONTROL) / "bootstrap.tar.gz"
    key = read_signing_key(site.signing_key.read_bytes(), name=str(site.signing_key))
    write_bundle(sign_bundle(build_bundle(site.policy, serial=1), key, scope=PLATFORM), bootstrap)
    bootstrap.chmod(0o644)
    return site.sealbus(
        CONTROL,
        ["control", "run", "--roles", "callout"],
        environment={
            "SEALBUS_CONTROL__CALLOUT__ISSUER": str(keys / "issuer.seed"),
            "SEALBUS_CONTROL__CALLOUT__XKEY": str(keys / "xkey.seed"),
            "SEALBUS_CONTROL__CALLOUT__NKEY": str(keys / "user.seed"),
            "SEALBUS_CONTROL__CALLOUT__BOOTSTRAP": str(bootstrap),
        },
    )


def _policy_server(site: Site) -> tuple[Program, PublicKey]:
    """Return the control process that serves what was pushed to OPA, and the key by which it signs."""
    folder = site.own_folder(CONTROL)
    signer = write_new_key(private=folder / "serve.pem", public=folder / "serve.pub")
    shutil.chown(folder / "serve.pem", CONTROL.uid, CONTROL.gid)
    program = site.sealbus(
        CONTROL,
        ["control", "run", "--roles", "policy"],
        name="policy",
        environment={
            "SEALBUS_POLICY__SERVE": f"127.0.0.1:{site.ports.policy}",
            "SEALBUS_POLICY__SERVE_KEY": str(folder / "serve.pem"),
        },
    )
    return program, signer


async def make_notary(site: Site, *, environment: Mapping[str, str] = MappingProxyType({})) -> Program:
    """Make a key for the log, and return the control process that keeps it."""
    key = site.own_folder(NOTARY) / "log.key"
    command = [*as_user(NOTARY.uid, NOTARY.gid), SEALBUS, "notary", "keygen", LOG_ORIGIN, str(key)]
    made = await output_of(command, environment=_whole(site, NOTARY))
    await asyncio.to_thread(site.log_key.write_bytes, made)
    return site.sealbus(
        NOTARY,
        ["control", "run", "--roles", "notary"],
        environment={
            "SEALBUS_CONTROL__NOTARY__KEYS": str(key),
            "SEALBUS_CONTROL__NOTARY__FOLDER": str(site.log),
            **environment,
        },
    )


def make_worker(site: Site, agent: Workload, *, environment: Mapping[str, str] = MappingProxyType({})) -> Program:
    """Return the worker of an example agent; `environment` is what differs from the site's."""
    site.own_folder(agent)
    return site.sealbus(
        agent,
        ["worker", "run", f"sealbus.agents.examples.{agent.name}:agent"],
        environment={"SEALBUS_EXAMPLES_DB": str(site.database), **environment},
    )


async def _start_after(file: Path, start: Callable[[], Awaitable[Program]]) -> None:
    """Start a program once there is `file`."""
    there = is_there(file)
    async with asyncio.timeout(READY_SECONDS):
        while not await there():  # noqa: ASYNC110  a file that is not there yet has no event
            await asyncio.sleep(_LOOK_AGAIN)
    await start()


def _whole(site: Site, workload: Workload) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), **site.environment(workload)}

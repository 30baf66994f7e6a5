"""Opens a node from the settings: identity from the Workload API, a connection to NATS, a policy engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from sealbus.agents.identity import WorkloadIdentity
from sealbus.agents.runtime.node import AuditOptions, Deployment, Feeds, Host, Node
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.bus.audit.mirror import MirrorPlan
from sealbus.bus.audit.redaction import Recording
from sealbus.bus.audit.spool import SpoolOptions
from sealbus.bus.audit.trail import AuditTrail
from sealbus.bus.audit.writer import AuditLimits
from sealbus.bus.background import Background
from sealbus.bus.cells import CellTransport, follow_cells, placed_by
from sealbus.bus.loop_turns import LoopTurns
from sealbus.bus.nats.api import StreamState
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.options import ConnectionOptions
from sealbus.bus.nats.reach import refuse_cells
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Identity, Transport
from sealbus.bus.stream_names import AUDIT
from sealbus.bus.streams.check import StreamGuard, check_streams
from sealbus.bus.streams.declared import Stream, declared_streams, stream_named
from sealbus.bus.streams.durability import acknowledged_means
from sealbus.bus.streams.held import current_only
from sealbus.bus.streams.key_book import KeyBook
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.accept.live import LiveProfile
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import own_subjects
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.decision.placement import Placement

if TYPE_CHECKING:
    from sealbus.agents.identity.shared_api import SharedWorkloadApi
    from sealbus.agents.runtime.policy.source import PolicySource
    from sealbus.policies.bundle.in_force import InForce

_logger = logging.getLogger(__name__)

_AGAIN: Final = Backoff(initial_interval=0.5, maximum_interval=5.0)
"""Pauses between two checks of the streams at the start."""


def deployment_of(settings: Settings) -> Deployment:
    """Return the settings that all nodes of the deployment must agree on."""
    return Deployment(
        names=settings.names,
        minters=settings.minters,
        notaries=settings.notaries,
        lifetimes=settings.lifetimes,
        own_subjects=own_subjects(*settings.own_subjects),
        development=settings.development,
        replicated_consumers=settings.streams.replicated_consumers,
    )


def reading_profile(settings: Settings, own: SpiffeId) -> LiveProfile:
    """Return the profile by which the deployment's agents accept messages, for the reader `own` of others' messages."""
    return LiveProfile(
        own=own,
        names=settings.names,
        kinds=frozenset({Kind.TASK, Kind.EVENT}),
        own_subjects=own_subjects(*settings.own_subjects),
        minters=settings.minters,
        lifetimes=settings.lifetimes,
    )


def streams_of(settings: Settings) -> tuple[Stream, ...]:
    """Return the streams as the settings declare them."""
    return declared_streams(settings.max_bytes, own=settings.own_subjects, replicas=settings.streams.replicas)


def mirror_of(settings: Settings) -> MirrorPlan:
    """Return the mirror of AUDIT as the settings declare it; raise `ConfigurationError` if they declare none."""
    table = settings.streams.mirror
    if table.domain is None:
        raise ConfigurationError("streams.mirror.domain is not set: it names the JetStream domain that has AUDIT")
    return MirrorPlan(
        stream=table.stream,
        domain=table.domain,
        deliver=table.deliver,
        max_bytes=stream_named(streams_of(settings), AUDIT).max_bytes,
        replicas=settings.streams.replicas,
    )


def spool_of(settings: Settings, own: SpiffeId) -> SpoolOptions | None:
    """Return the options of the spool for records of the identity `own`; `None` if the stream must acknowledge them."""
    if settings.audit.spool is None:
        return None
    return SpoolOptions(
        folder=settings.audit.spool / settings.names.token(own),
        max_bytes=settings.audit.spool_max,
        within=settings.audit.within,
    )


def workload_api_of(settings: Settings, name: str) -> str | None:
    """Return the Workload API's address for the workload `name`, which replaces `{name}` in the setting."""
    address = settings.workload_api
    return address.replace("{name}", name) if address is not None else None


class PolicyParts(NamedTuple):
    """The policy of a process, and the engine that decides by it."""

    source: PolicySource
    engine: PolicyEngine


class Shared(Protocol):
    """What several agents of one process share (`agents.runtime.process.shared_parts`)."""

    @property
    def turns(self) -> LoopTurns:
        """The turns of the process's event loop."""
        ...

    def workload_api(self, name: str) -> SharedWorkloadApi:
        """Return the Workload API of the agent `name`."""
        ...

    def policy(self, connection: Connection, identity: Identity) -> AbstractAsyncContextManager[PolicyParts]:
        """Return the policy for the agent with this `connection` and `identity`, to be entered."""
        ...


@asynccontextmanager
async def open_identity(
    name: str, settings: Settings, *, counters: Counters | None = None, shared: Shared | None = None
) -> AsyncGenerator[WorkloadIdentity, None]:
    """Open the identity of the workload `name`, which must be of the settings' trust domain.

    A workload may have several identities (SPIRE gives all that its selectors match): this requests one by its name.
    """
    own = settings.names.id_of(name)
    async with WorkloadIdentity.connect(
        shared.workload_api(name) if shared is not None else workload_api_of(settings, name),
        spiffe_id=own,
        deadline=settings.identity_within,
        patient=settings.identity_patient,
        counters=counters,
    ) as identity:
        if identity.spiffe_id.trust_domain != settings.trust_domain:
            raise ConfigurationError(
                f"this workload is {identity.spiffe_id}, but the settings' trust domain is {settings.trust_domain}"
            )
        yield identity


@asynccontextmanager
async def open_connection(
    name: str, settings: Settings, *, counters: Counters | None = None
) -> AsyncGenerator[tuple[WorkloadIdentity, Connection], None]:
    """Open the identity of the workload `name` and its connection to NATS; the error of each failure is one line."""
    async with (
        open_identity(name, settings, counters=counters) as identity,
        connection_of(name, settings, identity, counters) as connection,
    ):
        yield identity, connection


def connection_of(name: str, settings: Settings, identity: WorkloadIdentity, counters: Counters | None) -> Connection:
    """Return the connection of the workload `name` with its open `identity`, to be entered."""
    return Connection(
        settings.nats,
        identity=identity,
        server_ids=frozenset(settings.nats_ids),
        inbox_prefix=settings.names.inbox_prefix(identity.spiffe_id),
        options=ConnectionOptions(name=name),
        counters=counters,
    )


@asynccontextmanager
async def open_engine(
    policy: PolicyTable, identity: Identity | None = None, in_force: InForce | None = None
) -> AsyncGenerator[PolicyEngine, None]:
    """Open the policy engine that the settings name; the central engine uses `identity` for its requests.

    The embedded engines decide by the bundle `in_force`, or without it by the settings' file.
    """
    if policy.in_process:
        from sealbus.agents.runtime.policy.source import file_verifier
        from sealbus.policies.engines.embedded import EmbeddedEngine
        from sealbus.policies.engines.native import NativeEngine

        engine_class = NativeEngine if policy.engine == "native" else EmbeddedEngine
        if in_force is None or in_force.bundle is None:
            if policy.file is None:
                raise ConfigurationError(
                    f"policy.bundle is not set: the {policy.engine} engine reads its bundle from this file"
                )
            embedded = engine_class(policy.file, verifier=file_verifier(policy))
        else:
            embedded = engine_class(in_force)
        async with embedded:
            yield embedded
    elif policy.engine == "sidecar":
        from sealbus.policies.engines.sidecar import SidecarEngine

        if len(policy.opa) != 1:
            how = "names several" if policy.opa else "is not set"
            raise ConfigurationError(f"policy.opa {how}: the sidecar engine asks OPA on this one unix socket")
        async with SidecarEngine(Path(policy.opa[0].removeprefix("unix:")), deadline=policy.deadline) as sidecar:
            yield sidecar
    else:
        from sealbus.agents.runtime.policy.opa_tls import OpaTls
        from sealbus.policies.engines.central import CentralEngine

        if not policy.opa:
            raise ConfigurationError("policy.opa is not set: the central engine asks OPA at these https URLs")
        if len({server.trust_domain for server in policy.opa_ids}) != 1:
            raise ConfigurationError("policy.opa_ids must all be of one trust domain: one bundle vouches for them")
        if identity is None:
            raise ConfigurationError("the central engine needs an identity, to ask OPA with")
        tls = OpaTls(identity, expected=frozenset(policy.opa_ids))
        async with CentralEngine(policy.opa, tls=tls, deadline=policy.deadline) as central:
            yield central


@asynccontextmanager
async def open_node(
    name: str, settings: Settings | None = None, *, shared: Shared | None = None
) -> AsyncGenerator[Node, None]:
    """Open all that the workload `name` needs on the bus, check its streams, and close it in reverse order.

    What is `shared` with other workloads of this process outlives it.
    """
    async with open_connected_node(name, settings or load_settings(), shared=shared) as (node, _):
        yield node


@asynccontextmanager
async def open_connected_node(
    name: str, settings: Settings, *, counters: Counters | None = None, shared: Shared | None = None
) -> AsyncGenerator[tuple[Node, Connection], None]:
    """Open a node as `open_node` does; yield it with its connection to NATS."""
    counters = counters or Counters()
    async with AsyncExitStack() as stack:
        identity = await stack.enter_async_context(open_identity(name, settings, counters=counters, shared=shared))
        connection = connection_of(name, settings, identity, counters)
        if settings.policy.bucket is not None:
            await stack.enter_async_context(connection)
        policy = (
            shared.policy(connection, identity)
            if shared is not None
            else _own_policy(name, settings.policy, connection, identity, counters)
        )
        source, engine = await stack.enter_async_context(policy)
        if settings.policy.bucket is None:
            # Last: problems with files are reported before anything is connected.
            await stack.enter_async_context(connection)
        group = await stack.enter_async_context(Background())
        streams = streams_of(settings)
        # The policy of an OPA elsewhere is not known here, nor are its cells.
        also = None if settings.policy.bundle is not None else partial(refuse_cells, connection)
        checked = await wait_for_streams(
            streams, connection, within=settings.identity_within * settings.identity_patient, also=also
        )
        if not settings.development:
            _logger.info("%s", acknowledged_means(checked))
        guard = StreamGuard(streams, connection, also=also)
        checking = group.create_task(guard.check_links(), name="stream-guard")
        following = group.create_task(follow_cells(lambda: source.in_force.cells, connection.rotate), name="cells")
        await connection.attach(guard)
        async with Node(
            deployment=deployment_of(settings),
            identity=identity,
            transport=transport_of(settings, connection, identity.spiffe_id, lambda: source.in_force.cells),
            engine=engine,
            counters=counters,
            audit=AuditOptions(
                limits=AuditLimits(within=settings.audit.within, denials=settings.audit.denials),
                recording=Recording(settings.audit.redact, settings.audit.bodies),
                spool=spool_of(settings, identity.spiffe_id),
            ),
            feeds=Feeds(
                connected=lambda: connection.connected,
                refused=lambda: connection.refused,
                revoked_before=lambda: source.in_force.revoked_before,
                revocations=lambda: source.in_force.revocations,
                policy_problem=source.problem,
            ),
            host=Host(turns=shared.turns if shared is not None else None),
        ) as node:
            yield node, connection
        checking.cancel()
        following.cancel()


def transport_of(
    settings: Settings, connection: Connection, own: SpiffeId, cells: Callable[[], Mapping[str, Placement]]
) -> Transport:
    """Return a transport that finds the streams of each cell by `cells`, which has the placement of each token."""
    owners = {one.subject: settings.names.token(one.owner) for one in settings.own_subjects}
    return CellTransport(
        NatsTransport(connection),
        placed_by(cells, settings.names.token(own)),
        reach=lambda cell: NatsTransport(connection, cell),
        owners=owners,
    )


@asynccontextmanager
async def _own_policy(
    name: str, policy: PolicyTable, connection: Connection, identity: Identity, counters: Counters
) -> AsyncGenerator[PolicyParts, None]:
    # Imported here: a command that only reads a stream needs no policy, whose checks are a tenth of its imports.
    from sealbus.agents.runtime.policy.source import open_source

    async with (
        open_source(name, policy, connection, counters=counters) as source,
        open_engine(policy, identity, source.in_force) as engine,
    ):
        yield PolicyParts(source, engine)


async def wait_for_streams(
    streams: Sequence[Stream],
    connection: Connection,
    *,
    within: float,
    also: Callable[[], Awaitable[None]] | None = None,
) -> dict[str, StreamState]:
    """Check the streams (`check_streams`) and what is `also` to be checked; repeat this for `within` seconds without answer.

    Servers that elect a leader do not answer for some seconds.
    """
    loop = asyncio.get_running_loop()
    end, failures = loop.time() + within, 0
    while True:
        try:
            states = await check_streams(streams, connection.jetstream)
            if also is not None:
                await also()
        except BusUnavailable as error:
            failures += 1
            pause = _AGAIN.interval(failures)
            if loop.time() + pause >= end:
                raise
            _logger.warning("%s: asked again in %.1f s", error.detail, pause)
        else:
            return states
        await asyncio.sleep(pause)


@asynccontextmanager
async def open_audit_trail(
    name: str, settings: Settings, *, stream: str | None = None, after: int = 0
) -> AsyncGenerator[AuditTrail, None]:
    """Open the audit stream for reading under the identity `name`, which needs the permission.

    `stream` is the stream of a former period, by default the current stream. Reading begins behind the sequence `after`.
    """
    async with open_audit_reading(name, settings, stream=stream, after=after) as (_, trail):
        yield trail


def open_key_book(settings: Settings, identity: Identity, transport: Transport) -> KeyBook | None:
    """Return the key book of the deployment's notaries; None if the settings name no notary."""
    if not settings.notaries:
        return None
    return KeyBook(
        transport,
        notaries=settings.notaries,
        trust=lambda: Trust(bundles=identity.bundles()),
        names=settings.names,
        caches=Caches(),
    )


@asynccontextmanager
async def open_audit_reading(
    name: str, settings: Settings, *, stream: str | None = None, after: int = 0
) -> AsyncGenerator[tuple[Transport, AuditTrail], None]:
    """Open the audit stream as `open_audit_trail` does, with the transport to read the other streams."""
    async with open_connection(name, settings) as (identity, connection):
        transport = NatsTransport(connection)
        yield transport, audit_trail(settings, identity, transport, stream=stream, after=after)


def audit_trail(
    settings: Settings, identity: Identity, transport: Transport, *, stream: str | None = None, after: int = 0
) -> AuditTrail:
    """Return a reader of the audit stream, as `open_audit_trail` opens it, on a transport that is open."""
    return AuditTrail(
        transport=transport,
        profile=ArchiveProfile(names=settings.names, minters=settings.minters),
        bundles=identity.bundles,
        past=open_key_book(settings, identity, transport) or current_only,
        stream=stream,
        after=after,
    )

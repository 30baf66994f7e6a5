"""Open a whole edge from the settings: its node, keys, public listener and token service."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from starlette.routing import BaseRoute

from sealbus.agents.edge.actions import Actions
from sealbus.agents.edge.app import edge_app
from sealbus.agents.edge.described_actions import described_actions
from sealbus.agents.edge.front import Exposed, Front
from sealbus.agents.edge.http.cors import Cors
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.peer import ClientProtocol, PeerProtocol
from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.http.reachable import network_of
from sealbus.agents.edge.http.server import listening
from sealbus.agents.edge.http.tls import RotatingContext, check_plain, listener_tls, svid_context
from sealbus.agents.edge.oauth.bound.dpop import Nonces
from sealbus.agents.edge.oauth.bound.possession import Possession
from sealbus.agents.edge.oauth.client_authentication import client_authentication
from sealbus.agents.edge.oauth.issuers import IntrospectionEndpoint, Issuer, is_secure_url
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.private_file import read_key
from sealbus.agents.edge.oauth.tokens.access_token import AccessTokenVerifier
from sealbus.agents.edge.oauth.tokens.assertion import Assertions
from sealbus.agents.edge.oauth.tokens.introspection import Introspection
from sealbus.agents.edge.oauth.tokens.kept_tokens import KeptTokens
from sealbus.agents.edge.oauth.tokens.pseudonyms import DerivedPseudonyms, PseudonymKey, Pseudonyms, RandomPseudonyms
from sealbus.agents.edge.oauth.tokens.security_events import SecurityEventVerifier
from sealbus.agents.edge.v1.openapi import openapi_document, read_schemas
from sealbus.agents.edge.v1.standing_grants import EdgeGrants
from sealbus.agents.edge.v1.task_owners import TaskOwners
from sealbus.agents.edge.v1.token_service import token_app
from sealbus.agents.runtime.health import parse_address
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.process.process_record import recorded_process
from sealbus.agents.runtime.settings.schema import A2aTable, EdgeTable, IssuerTable, McpTable
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.agent import Agent
from sealbus.agents.sdk.messages import NO_SUBJECTS
from sealbus.bus.background import Background
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.telemetry import Counters
from sealbus.bus.work.idempotency.replay_guard import ReplayGuard
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.lifetimes import Lifetimes
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.subjects import OwnSubjects
from sealbus.envelopes.trust.names import Names

MCP_PATH: Final = "/mcp"
EDGE: Final = "edge"
"""Name of the edge among the agents: the settings' [agents] table gives its SPIFFE ID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEdge:
    """A listening edge with its node and ports; `token_port` is None without a token service."""

    node: Node
    front: Front
    port: int
    token_port: int | None
    scheduling: Worker | None = None
    """The worker that accepts and runs the schedules of users, if they may have schedules."""


@asynccontextmanager
async def open_edge(settings: Settings, *, recorded: bool = True) -> AsyncGenerator[RunningEdge, None]:
    """Open the edge that the settings describe; leaving stops listening, finishes open requests, and closes everything.

    With `recorded` the audit stream has records of its start and end.
    Raises `ConfigurationError`, one line that names the setting, for a value that is missing or cannot be used.
    """
    table = settings.edge
    # Report errors in the settings before anything is opened.
    _resource(table)
    issuers_of(table)
    Exposed(table.actions, settings.names)
    _public_tls(table, Counters())
    _pseudonym_key(table)
    if table.pseudonyms == "random" and settings.streams.max_bytes.people is None:
        raise ConfigurationError('streams.max_bytes.people is not set: edge.pseudonyms = "random" keeps rows in PEOPLE')
    _nonces(table, DEFAULT_EDGE_LIMITS)
    if table.token_key is not None:
        read_key(table.token_key)
    minting_limits(table, settings.lifetimes)
    openapi_of(table, settings.names)
    _cors(table)
    async with open_node(EDGE, settings) as node:
        if node.own not in settings.minters:
            raise ConfigurationError(
                f"context.minters does not name {node.own}: no agent would accept a context of this edge"
            )
        async with recorded_process(node) if recorded else nullcontext(), serve_edge(table, node) as edge:
            yield edge


@asynccontextmanager
async def serve_edge(
    table: EdgeTable,
    node: Node,
    *,
    limits: EdgeLimits = DEFAULT_EDGE_LIMITS,
    connections: ConnectionLimits | None = None,
    issuer_tls: ssl.SSLContext | None = None,
) -> AsyncGenerator[RunningEdge, None]:
    """Serve an edge on an entered node, which outlives it; raises as `open_edge` does.

    `issuer_tls` verifies the issuers' servers; by default with the system's authorities.
    """
    connections = connections or connection_limits(table)
    limits = replace(
        minting_limits(table, node.deployment.lifetimes, limits),
        event_streams=table.event_streams,
        approval_wait_seconds=table.approval_wait,
        schedule_login_seconds=table.schedule_login,
    )
    issuers = issuers_of(table)
    names, own = node.deployment.names, node.deployment.own_subjects
    async with AsyncExitStack() as stack:
        # Before the first request: no token is judged until the broker's time is known.
        await node.clocks.settle()
        await stack.enter_async_context(node.status_reader.together())
        measuring = (await stack.enter_async_context(Background())).create_task(node.clocks.run(), name="clocks")
        stack.callback(measuring.cancel)
        keys = await stack.enter_async_context(KeySource(limits, tls=issuer_tls, counters=node.counters))
        introspection = await stack.enter_async_context(Introspection(limits, tls=issuer_tls))
        front = Front(
            node=node,
            verifier=AccessTokenVerifier(issuers, keys, limits, introspection=introspection),
            assertions=Assertions(issuers, keys, ReplayGuard("assertion", node.site), limits),
            events=SecurityEventVerifier(issuers, keys, ReplayGuard("event", node.site), limits),
            issuers=issuers,
            resource=_resource(table),
            exposed=Exposed(table.actions, names, own),
            shows_certificates=table.client_authorities is not None,
            possession=Possession(
                _resource(table), ReplayGuard("proof", node.site), nonces=_nonces(table, limits), limits=limits
            ),
            pseudonyms=_pseudonyms(table, node),
            kept_tokens=_kept_tokens(table, node),
            limits=limits,
        )
        owners = TaskOwners(node, pseudonymous=front.pseudonyms is not None)
        grants = EdgeGrants(front, owners) if table.schedules else None
        actions = Actions(front)
        scheduling = await stack.enter_async_context(_scheduling(node, grants)) if grants is not None else None
        port = await stack.enter_async_context(
            listening(
                edge_app(
                    actions,
                    grants=grants,
                    document=openapi_of(table, names, own),
                    cors=_cors(table),
                    proxies=table.proxies,
                    doors=await _doors(stack, table, actions, connections),
                ),
                table.address,
                setting="edge.address",
                limits=connections,
                counters=node.counters,
                tls=_public_tls(table, node.counters),
                protocol=ClientProtocol,
            )
        )
        token_port = None
        if table.token_service is not None:
            token_port = await stack.enter_async_context(
                listening(
                    token_app(front),
                    table.token_service,
                    setting="edge.token_service",
                    limits=connections,
                    counters=node.counters,
                    tls=svid_context(node.identity, node.own.trust_domain),
                    protocol=partial(PeerProtocol, trust_domain=node.own.trust_domain),
                )
            )
        # Runs first at the end, which would otherwise wait for streams of states.
        stack.callback(front.stopping.set)
        yield RunningEdge(node=node, front=front, port=port, token_port=token_port, scheduling=scheduling)


async def _doors(
    stack: AsyncExitStack, table: EdgeTable, actions: Actions, connections: ConnectionLimits
) -> Sequence[BaseRoute]:
    """Open the servers of other protocols and return their routes; a protocol is imported only if the settings name it."""
    routes: list[BaseRoute] = []
    if table.mcp is not None:
        routes += await stack.enter_async_context(_mcp(table, table.mcp, actions))
    if table.a2a is not None:
        routes += await stack.enter_async_context(_a2a(table, table.a2a, actions, connections))
    return routes


def _mcp(table: EdgeTable, mcp: McpTable, actions: Actions) -> AbstractAsyncContextManager[Sequence[BaseRoute]]:
    if not mcp.state_keys:
        raise ConfigurationError("edge.mcp.state_keys names no key: `sealbus edge key FILE` makes one")
    try:
        from sealbus.agents.edge.mcp.server import open_mcp
    except ModuleNotFoundError as error:
        raise _no_extra("mcp") from error
    return open_mcp(
        actions,
        described_actions(
            mcp.actions,
            read_schemas(table.schemas),
            actions.front.exposed,
            scopes=mcp.scopes,
            setting="edge.mcp.actions",
        ),
        url=_mcp_url(table),
        state_keys=[read_key(path) for path in mcp.state_keys],
        sessions=mcp.sessions,
        page=mcp.approvals,
        origins=frozenset(table.cors),
    )


def _a2a(
    table: EdgeTable, a2a: A2aTable, actions: Actions, connections: ConnectionLimits
) -> AbstractAsyncContextManager[Sequence[BaseRoute]]:
    try:
        from sealbus.agents.edge.a2a.cards import CardKey
        from sealbus.agents.edge.a2a.grpc_server import Certificate, Grpc
        from sealbus.agents.edge.a2a.server import Push, open_a2a
        from sealbus.agents.edge.a2a.webhook import Webhooks
    except ModuleNotFoundError as error:
        raise _no_extra("a2a") from error
    described = described_actions(
        [f"{agent}.*" for agent in a2a.agents],
        read_schemas(table.schemas),
        actions.front.exposed,
        scopes=a2a.scopes,
        setting="edge.a2a.agents",
    )
    grpc = None
    if a2a.grpc is not None:
        host, port = parse_address(a2a.grpc, "edge.a2a.grpc")
        check_plain("edge", table, host, "edge.a2a.grpc")
        grpc = Grpc(
            a2a.grpc,
            f"{urlsplit(_resource(table)).hostname}:{port}",
            Certificate(table.certificate, table.key) if table.certificate and table.key else None,
            connections.connections,
            connections.write_seconds,
        )
    push = None
    if a2a.push_key is not None:
        webhooks = Webhooks(networks=tuple(map(network_of, a2a.push_networks)), tls=ssl.create_default_context())
        push = Push(read_key(a2a.push_key), webhooks)
    return open_a2a(
        actions,
        {agent: [action for action in described if action.agent == agent] for agent in a2a.agents},
        origin=_origin(table),
        key=CardKey.read(a2a.card_key) if a2a.card_key is not None else None,
        page=a2a.approvals,
        grpc=grpc,
        push=push,
    )


def _no_extra(name: str) -> ConfigurationError:
    return ConfigurationError(f"edge.{name} needs packages that are not installed: pip install 'sealbus[{name}]'")


def _mcp_url(table: EdgeTable) -> str:
    return _origin(table) + MCP_PATH


def _origin(table: EdgeTable) -> str:
    parts = urlsplit(_resource(table))
    return f"{parts.scheme}://{parts.netloc}"


@asynccontextmanager
async def _scheduling(node: Node, grants: EdgeGrants) -> AsyncGenerator[Worker, None]:
    """Run the worker that accepts and sends users' schedules: an agent without handlers of its own."""
    agent, stop = Agent(EDGE), asyncio.Event()
    async with Worker(agent, node, standing=grants) as worker, Background() as group:
        running = group.create_task(worker.run(stop), name="scheduling")
        try:
            await worker.ready.wait()
            yield worker
        finally:
            stop.set()
            await asyncio.wait([running])


def connection_limits(table: EdgeTable) -> ConnectionLimits:
    """Return the bounds of connections. Behind proxies all come from the last proxy, which has to bound clients."""
    most, fronted = table.connections, table.plaintext or table.proxies > 0
    of_address = table.connections_of_address or (most if fronted else max(1, most // 8))
    of_network = max(of_address, most if fronted else most // 2)
    return ConnectionLimits(
        connections=most, connections_of_address=min(of_address, most), connections_of_network=min(of_network, most)
    )


def issuers_of(table: EdgeTable) -> tuple[Issuer, ...]:
    """Return the rows of the table of issuers; raise `ConfigurationError` for an invalid row, or an empty table."""
    if not table.issuers:
        raise ConfigurationError("edge.issuers is empty: name the issuers whose access tokens the edge accepts")
    if table.token_key is None and any(row.keep_tokens for row in table.issuers):
        raise ConfigurationError("keep_tokens needs edge.token_key: tokens are kept under it")
    issuers = []
    for row in table.issuers:
        own = (_resource(table), *((_mcp_url(table),) if table.mcp is not None else ()))
        audiences = row.audiences if row.audiences is not None else own
        sets = {"audiences": audiences, "algorithms": row.algorithms, "types": row.types}
        sets |= {"event_audiences": row.event_audiences, "logout_audiences": row.logout_audiences}
        fields = row.model_dump(
            exclude={"introspection", "client", "client_key", "client_secret", "scopes", "domain", "subjects"}
        )
        fields |= {name: frozenset(values) for name, values in sets.items()}
        scopes = frozenset(row.scopes) if row.scopes is not None else None
        fields |= {"domain": row.domain, "workloads": row.subjects == "workloads"}
        issuers.append(Issuer(**fields, scopes=scopes, introspection=_introspection(row)))
    return tuple(issuers)


def _introspection(row: IssuerTable) -> IntrospectionEndpoint | None:
    if row.introspection is None and row.client is None:
        return None
    if row.introspection is None or row.client is None:
        raise ConfigurationError(f"introspection and client of {row.issuer} go together")
    setting = f"client of {row.issuer}"
    client = client_authentication(row.client, key=row.client_key, secret=row.client_secret, setting=setting)
    return IntrospectionEndpoint(row.introspection, client)


def minting_limits(table: EdgeTable, lifetimes: Lifetimes, limits: EdgeLimits = DEFAULT_EDGE_LIMITS) -> EdgeLimits:
    """Return `limits` with the lifetimes of minted contexts: the configured lifetimes, else the longest that readers accept.

    Raises `ConfigurationError` for a configured lifetime that readers would refuse; this process has the readers' settings.
    """
    start, life = lifetimes.context_start // SECOND, lifetimes.context_life // SECOND
    for name, configured, most in (("start", table.context_start, start), ("life", table.context_life, life)):
        if configured is not None and configured > most:
            raise ConfigurationError(
                f"edge.context_{name} is {configured} s, but readers accept {most} s (context.{name}): "
                "no agent would accept a context of this edge"
            )
    life = table.context_life or min(limits.context_end_seconds, life)
    start = table.context_start or min(limits.context_start_seconds, start, life)
    if start > life:
        raise ConfigurationError(f"edge.context_start is {start} s, more than its contexts live ({life} s)")
    return replace(limits, context_start_seconds=start, context_end_seconds=life)


def openapi_of(table: EdgeTable, names: Names, own: OwnSubjects = NO_SUBJECTS) -> dict[str, object] | None:
    """Return the OpenAPI document of an edge with these settings; None if they name no schemas."""
    if not table.schemas:
        return None
    return openapi_document(
        read_schemas(table.schemas),
        Exposed(table.actions, names, own),
        resource=_resource(table),
        issuers=issuers_of(table),
        schedules=table.schedules,
    )


def _cors(table: EdgeTable) -> Cors | None:
    return Cors(frozenset(table.cors)) if table.cors else None


def _resource(table: EdgeTable) -> str:
    resource = table.resource
    if resource is None or not is_secure_url(resource) or "?" in resource:
        raise ConfigurationError(
            "edge.resource must be the URL by which tokens name this edge: https, or http on a loopback address"
        )
    return resource


def _pseudonym_key(table: EdgeTable) -> PseudonymKey | None:
    if table.pseudonym_key is not None:
        return PseudonymKey.read(table.pseudonym_key)
    if table.pseudonyms == "random":
        raise ConfigurationError('edge.pseudonym_key is not set: edge.pseudonyms = "random" finds rows by it')
    return None


def _pseudonyms(table: EdgeTable, node: Node) -> Pseudonyms | None:
    key = _pseudonym_key(table)
    if key is None or table.pseudonyms == "derived":
        return DerivedPseudonyms(key) if key is not None else None
    return RandomPseudonyms(key, node.transport, node.site.elapsed)


def _kept_tokens(table: EdgeTable, node: Node) -> KeptTokens | None:
    if table.token_key is None:
        return None
    return KeptTokens(read_key(table.token_key), KeyValue(node.transport), edge=node.token)


def _nonces(table: EdgeTable, limits: EdgeLimits) -> Nonces | None:
    return Nonces(read_key(table.nonce_key), limits.nonce_seconds) if table.nonce_key is not None else None


def _public_tls(table: EdgeTable, counters: Counters) -> RotatingContext | None:
    if table.client_authorities is not None and table.certificate is None:
        raise ConfigurationError(
            "edge.client_authorities needs edge.certificate: clients present theirs in the TLS handshake"
        )
    return listener_tls("edge", table, table.client_authorities, counters=counters)

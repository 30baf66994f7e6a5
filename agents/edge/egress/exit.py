"""The exit: the agent whose actions are the APIs outside. `sealbus edge exit` runs it.

A request is a call `call.<exit>.<api>`, or a task, and passes all acceptance steps. The exit's policy decides by method,
host, template and variables, user and chain. Decision and outcome are recorded. Only after the decision does the exit get a
token and call the API.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from sealbus.agents.edge.edge import EDGE
from sealbus.agents.edge.egress.api import Api, OpenApi
from sealbus.agents.edge.egress.credential import (
    ApiKey,
    AssertionGrant,
    AuthorizationServer,
    ClientGrant,
    Credential,
    ExchangeGrant,
    Grant,
    IssuedTokens,
    Target,
)
from sealbus.agents.edge.egress.operation import Operation
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.http.reachable import Resolve, network_of
from sealbus.agents.edge.oauth.client_authentication import (
    ClientAuthentication,
    JwtSvidClient,
    PrivateKeyJwt,
    client_authentication,
)
from sealbus.agents.edge.oauth.keys.discovery import Documents
from sealbus.agents.edge.oauth.private_file import read_key
from sealbus.agents.edge.oauth.tokens.kept_tokens import KeptTokens
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.process.process_record import recorded_process
from sealbus.agents.runtime.settings.schema import ApiTable
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.agent import Agent
from sealbus.agents.sdk.context import Context
from sealbus.agents.sdk.http import ApiAnswer, ApiRequest
from sealbus.agents.sdk.resource import Resource
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.errors import ConfigurationError, IdentityUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import RULES, Kind

_FACTS = ("method", "path", "query")
_HANDLED_SECONDS = 5.0
"""Added to the API's time: for the handler of its answer."""
_AT_A_TIME = 24
"""Most calls, and most tasks, of one API at a time. Together they leave a quarter of a worker's default of 64 to others."""


def exit_agent(name: str, apis: Sequence[Api], *, resolving: Resolve | None = None) -> Agent:
    """Return the agent `name` whose actions are `apis`, each as a call and as a task.

    A call takes at most the time of a call. A task is tried once, because without an answer it is not known whether the API
    did the work.
    """
    agent = Agent(name)
    opened: dict[str, OpenApi] = {}

    @agent.lifespan
    async def connections() -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for api in apis:
                opened[api.name] = await stack.enter_async_context(OpenApi(api, resolving=resolving))
            yield
            opened.clear()

    for api in apis:
        _declare(agent, api, partial(opened.__getitem__, api.name))
    return agent


def _declare(agent: Agent, api: Api, opened: Callable[[], OpenApi]) -> None:
    async def resource(request: ApiRequest) -> Resource:
        return opened().resource(request)

    async def request(body: ApiRequest, ctx: Context) -> ApiAnswer:
        return await opened().request(body, ctx.user)

    timeout = api.seconds + _HANDLED_SECONDS
    longest = RULES[Kind.CALL].life / SECOND
    agent.call(api.name, resource=resource, facts=_FACTS, timeout=min(timeout, longest), concurrency=_AT_A_TIME)(
        request
    )
    agent.task(api.name, resource=resource, facts=_FACTS, timeout=timeout, retry=0, once=True, concurrency=_AT_A_TIME)(
        request
    )


@asynccontextmanager
async def open_exit(
    settings: Settings, limits: WorkerLimits | None = None, *, recorded: bool = True
) -> AsyncGenerator[Worker, None]:
    """Open the exit that the settings describe: a worker, to be run; leaving closes everything.

    With `recorded` the audit stream has records of its start and end.
    Raises `ConfigurationError`, one line that names the setting, for a value that is missing or cannot be used.
    """
    table = settings.egress
    if not table.apis:
        raise ConfigurationError("egress.apis is empty: name the APIs that agents may reach")
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_node(table.agent, settings))
        if recorded:
            await stack.enter_async_context(recorded_process(node))
        apis = []
        for name, api in table.apis.items():
            # Connections for each API: an authorization server that hangs does not delay tokens for other APIs.
            documents = Documents(DEFAULT_EDGE_LIMITS, _trusting(table.authorities))
            apis.append(_api(name, api, node, settings, await stack.enter_async_context(documents)))
        yield await stack.enter_async_context(Worker(exit_agent(table.agent, apis), node, limits))


def _api(name: str, table: ApiTable, node: Node, settings: Settings, documents: Documents) -> Api:
    try:
        return Api(
            name=name,
            url=table.url,
            operations=tuple(map(Operation.parse, table.operations)),
            credential=_credential(table, node, settings, documents),
            networks=tuple(map(network_of, table.networks)),
            headers=frozenset(table.headers),
            tools=table.tools,
            card=table.card,
            seconds=table.seconds,
            tls=_trusting(table.authorities),
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"egress.apis.{name}: {error.detail}") from error


def _credential(table: ApiTable, node: Node, settings: Settings, documents: Documents) -> Credential:
    if table.grant == "key":
        if table.key is None:
            raise ConfigurationError("key is not set: it is the file with the API's key")
        return ApiKey(table.key_header, table.key)
    if table.issuer is None or table.client is None:
        raise ConfigurationError(f"grant {table.grant} needs issuer, and client with its key, its secret, or its SVID")
    client = _client(table, table.client, node)
    server = AuthorizationServer(table.issuer, client, documents, endpoint=table.token_endpoint)
    target = Target(audience=table.audience, resource=table.resource, scope=table.scope)
    return IssuedTokens(server, _grant(table, client, node, settings), target, clock=node.clock)


def _client(table: ApiTable, client_id: str, node: Node) -> ClientAuthentication:
    if not table.client_svid:
        return client_authentication(client_id, key=table.client_key, secret=table.client_secret, setting="client")
    if table.client_key is not None or table.client_secret is not None:
        raise ConfigurationError("client_svid takes the place of client_key and client_secret")
    assertion = getattr(node.identity, "assertion", None)
    if assertion is None:
        raise IdentityUnavailable("this identity has no JWT-SVIDs for other services")
    return JwtSvidClient(client_id, assertion)


def _grant(table: ApiTable, client: ClientAuthentication, node: Node, settings: Settings) -> Grant:
    users = frozenset(table.users)
    if table.grant == "client_credentials":
        return ClientGrant()
    if table.grant == "jwt_bearer":
        if not isinstance(client, PrivateKeyJwt):
            raise ConfigurationError("grant jwt_bearer needs client_key, which signs the assertions")
        return AssertionGrant(users, client)
    if settings.edge.token_key is None:
        raise ConfigurationError("grant token_exchange needs edge.token_key: the edge keeps users' tokens under it")
    edge = node.deployment.names.token(settings.names.id_of(EDGE))
    return ExchangeGrant(users, KeptTokens(read_key(settings.edge.token_key), KeyValue(node.transport), edge=edge))


def _trusting(authorities: Path | None) -> ssl.SSLContext:
    """Return a TLS context with the authorities in a PEM file, or with those of the system. Blocks."""
    try:
        return ssl.create_default_context(cafile=authorities)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"authorities: {authorities} holds no certificates that can be read") from error

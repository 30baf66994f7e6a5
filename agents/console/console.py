"""Open a whole console from the settings: its node, its agent, its readers, and the server for browsers."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from html import escape
from typing import Final

from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from sealbus.agents.console.agent import CONSOLE, console_agent
from sealbus.agents.console.api.edge_client import EdgeClient, EdgeRefused
from sealbus.agents.console.api.routes import ApiRoutes
from sealbus.agents.console.api.views import Views
from sealbus.agents.console.decisions.deciding_policies import DecidingPolicies
from sealbus.agents.console.decisions.feed import DecisionFeed
from sealbus.agents.console.decisions.search import DecisionSearch
from sealbus.agents.console.decisions.what_if import WhatIfRefused
from sealbus.agents.console.pages.login import BrowserLogin
from sealbus.agents.console.pages.page_files import PAGE_HEADERS, Pages
from sealbus.agents.console.pages.sessions import Sessions
from sealbus.agents.edge.http.application import Application, Methods
from sealbus.agents.edge.http.problem import STATUS, EdgeError, problem, problem_of
from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.http.rate_limits import TokenBuckets
from sealbus.agents.edge.http.server import listening
from sealbus.agents.edge.http.tls import listener_tls
from sealbus.agents.edge.oauth.issuers import is_secure_url
from sealbus.agents.login.provider import LoginFailed
from sealbus.agents.login.public_client import PublicClient
from sealbus.agents.runtime.open import audit_trail, open_connected_node
from sealbus.agents.runtime.process.process_record import recorded_process
from sealbus.agents.runtime.settings.schema import ConsoleTable
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.audit.trail import AuditTrail
from sealbus.bus.cells import own_cell
from sealbus.bus.nats.api import audit_stream
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import Code, ConfigurationError, SealbusError

RECENT: Final = 2_000
"""Messages of the audit stream that are read at the start, so that a page is not empty."""
_NOT_LOGGED_IN: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Not logged in</title></head>'
    '<body><p>Not logged in: {text}</p><p><a href="/">Back</a></p></body></html>'
)
LOOK_EVERY: Final = 5.0
"""Seconds between two reads of the list of agents."""


class RunningConsole:
    """A console that listens at `origin`; run it. `ready` is set while its agent takes calls."""

    def __init__(self, worker: Worker, feed: DecisionFeed, views: Views, origin: str) -> None:
        self.origin = origin
        self.feed = feed
        self.ready = worker.ready
        self._worker = worker
        self._views = views
        self._stream = ""

    @property
    def problem(self) -> str:
        """The reason why decisions are not shown now; empty if they are."""
        return self.feed.problem or "; ".join(self._worker.not_ready().values())

    async def run(self) -> None:
        """Run the agent, follow the audit stream and refresh the list of agents, until cancelled."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._worker.run(stop), name="console-worker")
            group.create_task(self.feed.run(), name="console-feed")
            group.create_task(self._look(), name="console-agents")

    async def _look(self) -> None:
        while True:
            with suppress(SealbusError):
                stream, _ = await self._worker.node.transport.audit_stream()
                if self._stream not in ("", stream):
                    self.feed.begin_again()
                self._stream = stream
                self.feed.recovered()
                self.feed.states = {agent.token: agent.state for agent in await self._views.seen()}
            await asyncio.sleep(LOOK_EVERY)


@asynccontextmanager
async def open_console(
    settings: Settings, *, counters: Counters, issuer_tls: ssl.SSLContext | None = None, recorded: bool = True
) -> AsyncGenerator[RunningConsole, None]:
    """Open the console under the identity `console`. Raises `ConfigurationError` with one line for a missing setting.

    `issuer_tls` verifies the provider's server; by default with the system's authorities. With `recorded` the audit
    stream has records of the console's start and end.
    """
    table = settings.console
    origin, edge_url = _origin(table), table.edge or settings.edge.resource
    if edge_url is None:
        raise ConfigurationError("console.edge is not set: the URL of the edge, through which the policy is asked")
    client, tls, names = _client(settings), listener_tls("console", table, counters=counters), settings.names
    async with AsyncExitStack() as stack:
        edge = await stack.enter_async_context(EdgeClient(edge_url))
        node, connection = await stack.enter_async_context(open_connected_node(CONSOLE, settings, counters=counters))
        if recorded:
            await stack.enter_async_context(recorded_process(node))
        worker = await stack.enter_async_context(Worker(console_agent(node.sending), node))
        policies = await stack.enter_async_context(DecidingPolicies(settings, connection))
        views = Views(settings, node, connection, policies)
        home = own_cell(node.transport)
        state = await audit_stream(connection.jetstream)

        def trail(after: int) -> AuditTrail:
            return audit_trail(settings, node.identity, home, after=max(0, after))

        feed = DecisionFeed(
            trail,
            names=names,
            edges=[names.token(minter) for minter in settings.minters],
            after=max(0, state.last - RECENT),
        )
        sessions = Sessions()
        login = BrowserLogin(client, sessions, origin=origin, clock=node.clock, tls=issuer_tls)
        api = ApiRoutes(
            login=login,
            edge=edge,
            feed=feed,
            search=DecisionSearch(feed, trail, transport=home, request=connection.jetstream, names=names),
            policies=policies,
            views=views,
            names=names,
            queues=table.queues,
        )
        app = Application(
            _routes(Pages(), login, api),
            answer_of=_answer,
            addresses=TokenBuckets(rate=200.0, burst=400, entries=4_096),
            secure=origin.startswith("https:"),
            counters=counters,
        )
        await stack.enter_async_context(
            listening(
                _OwnHostOnly(app, origin),
                table.address,
                setting="console.address",
                limits=ConnectionLimits(),
                counters=counters,
                tls=tls,
            )
        )
        stack.callback(feed.end)
        yield RunningConsole(worker, feed, views, origin)


def _routes(pages: Pages, login: BrowserLogin, api: ApiRoutes) -> list[BaseRoute]:
    index = Methods(GET=pages.index)
    areas = ("decisions", "tasks", "approvals", "dead", "schedules", "agents", "policy", "log", "what-if")
    return [
        Route("/", index),
        *(Route(f"/{area}", index) for area in areas),
        *(Route(f"/{area}/{{id}}", index) for area in ("decisions", "tasks", "approvals")),
        Route("/static/{name}", Methods(GET=pages.file)),
        Route("/favicon.ico", Methods(GET=pages.icon)),
        Route("/login", Methods(GET=login.begin)),
        Route("/callback", Methods(GET=login.end)),
        Route("/logout", Methods(POST=login.leave)),
        Route("/api/session", Methods(GET=api.session)),
        Route("/api/live", Methods(GET=api.live)),
        Route("/api/decisions", Methods(GET=api.decisions)),
        Route("/api/decisions/{id}", Methods(GET=api.decision)),
        Route("/api/decisions/{id}/receipt", Methods(GET=api.receipt)),
        Route("/api/tasks", Methods(GET=api.tasks)),
        Route("/api/tasks/cancel", Methods(POST=api.cancel)),
        Route("/api/approvals", Methods(GET=api.approvals)),
        Route("/api/approvals/{id}", Methods(GET=api.approval, POST=api.decide)),
        Route("/api/dead", Methods(GET=api.dead)),
        Route("/api/agents", Methods(GET=api.agents)),
        Route("/api/schedules", Methods(GET=api.schedules)),
        Route("/api/policy", Methods(GET=api.policy)),
        Route("/api/policy/source", Methods(GET=api.source)),
        Route("/api/what-if", Methods(POST=api.what_if)),
        Route("/api/log", Methods(GET=api.log)),
        Route("/api/log/verify", Methods(POST=api.verify)),
    ]


class _OwnHostOnly:
    """Refuses requests for another host name: a foreign page whose name resolves to this address could read the answers."""

    def __init__(self, app: Application, origin: str) -> None:
        self._app = app
        self._host = origin.partition("://")[2].encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if hosts != [self._host]:
            await problem(Code.NOT_FOUND, detail="This console goes by another name.")(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _answer(error: SealbusError, scope: Scope) -> Response:
    if isinstance(error, EdgeRefused):
        body = {**error.body, "message": error.request}
        answer = Response(json.dumps(body), error.status, media_type="application/problem+json")
    elif isinstance(error, LoginFailed) and scope["path"] in ("/login", "/callback"):
        text = escape(f"{error.detail or error.code}")
        page = _NOT_LOGGED_IN.format(text=text)
        answer = Response(page, 502, media_type="text/html; charset=utf-8")
    elif isinstance(error, EdgeError):
        answer = problem_of(error)
    elif isinstance(error, WhatIfRefused):
        answer = problem(error.code, detail=error.detail, status=422)
    else:
        # Readers are operators, who need the cause. Errors hold no contents of messages.
        answer = problem(error.code, detail=error.detail, status=STATUS.get(error.code, 503))
    answer.headers.update(PAGE_HEADERS)
    return answer


def _origin(table: ConsoleTable) -> str:
    origin = table.url or f"http://{table.address}"
    if not is_secure_url(origin) or "?" in origin or origin.count("/") != 2:
        raise ConfigurationError("console.url must be https://<host>, or http on a loopback address, without a path")
    return origin


def _client(settings: Settings) -> PublicClient:
    table, client = settings.console, settings.client
    issuer, client_id = table.issuer or client.issuer, table.client_id or client.client_id
    if issuer is None or client_id is None:
        raise ConfigurationError(
            "console.issuer and console.client_id are not set: they say where people log in, and as which client"
        )
    return PublicClient(
        issuer=issuer, client_id=client_id, scope=table.scope, resource=table.resource or client.resource
    )

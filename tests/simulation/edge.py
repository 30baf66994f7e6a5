"""The edge of a simulation: its real application, and the HTTP requests of its clients, without sockets."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from starlette.types import Message

from sealbus.agents.edge.actions import Actions
from sealbus.agents.edge.app import edge_app
from sealbus.agents.edge.front import Exposed, Front
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.oauth.bound.possession import Possession
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken, AccessTokenVerifier
from sealbus.agents.edge.oauth.tokens.assertion import Assertions
from sealbus.agents.edge.oauth.tokens.security_events import SecurityEventVerifier
from sealbus.agents.edge.v1.approval_routes import SCOPE
from sealbus.bus.work.idempotency.replay_guard import ReplayGuard
from sealbus.envelopes.limits import SECOND
from simulation.network import Link
from simulation.plan import LIFE
from simulation.site import Site

__all__ = ["Answer", "edge", "request"]

RESOURCE: Final = "https://edge.example.org"
ISSUER: Final = Issuer(issuer="https://login.example.org", audiences=frozenset({RESOURCE}))
NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Reading the system's authorities would take longer than a seed."""
TOKEN_SECONDS: Final = 3_600
ANSWERED_WITHIN: Final = 30.0
"""Seconds after which a client gives up a request."""
LIMITS: Final = replace(
    DEFAULT_EDGE_LIMITS, task_seconds=LIFE, context_start_seconds=LIFE, context_end_seconds=2 * LIFE
)


class StatedTokens(AccessTokenVerifier):
    """A verifier to which the name of a user is that user's token: identity providers are not simulated."""

    async def verify(self, token: str, *, now: int) -> AccessToken:
        """Return what a provider's token would say."""
        return AccessToken(
            issuer=ISSUER.issuer,
            subject=token,
            client="web",
            session=f"session of {token}",
            scope=(SCOPE,),
            claims={},
            tenant=None,
            acr=None,
            amr=None,
            auth_time=None,
            issued=now,
            expires=now + TOKEN_SECONDS * SECOND,
        )


async def edge(site: Site, link: Link) -> None:
    """Serve the public application of an edge on a host, until that is killed."""
    name = link.host.name
    async with site.node("edge", link) as node, node.status_reader.together():
        keys, issuers = KeySource(LIMITS, tls=NO_TLS), (ISSUER,)
        front = Front(
            node=node,
            verifier=StatedTokens(issuers, keys, LIMITS),
            assertions=Assertions(issuers, keys, ReplayGuard("assertion", node.site), LIMITS),
            events=SecurityEventVerifier(issuers, keys, ReplayGuard("event", node.site), LIMITS),
            issuers=issuers,
            resource=RESOURCE,
            exposed=Exposed(("bank.*",), site.names),
            possession=Possession(RESOURCE, ReplayGuard("proof", node.site), limits=LIMITS),
            limits=LIMITS,
        )
        await node.clocks.settle()
        site.listening[name] = edge_app(Actions(front))
        site.on_kill(link, lambda: site.listening.pop(name, None))
        await node.clocks.run()


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The body, which is a JSON object."""
        document: dict[str, Any] = json.loads(self.body)
        return document


async def request(
    site: Site,
    link: Link,
    method: str,
    target: str,
    *,
    user: str,
    body: object = None,
    fields: Mapping[str, str] | None = None,
) -> Answer:
    """Send a request of `user` from the host of `link` to the edge, and return the answer; raise `TimeoutError`."""
    answered: asyncio.Future[Answer] = site.loop.create_future()
    parts = urlsplit(target)
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {user}", "content-length": str(len(content)), **(fields or {})}
    if content:
        headers["content-type"] = "application/json"
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("198.51.100.7", 40_000),
        "server": ("edge.example.org", 443),
    }
    serving = site.links["edge"]

    def arrived() -> None:
        if "edge" in site.listening:
            site.loop.create_task(serve(), name=f"request {method}")

    async def serve() -> None:
        answer = await _served(site, scope, content)
        serving.send(partial(link.answer, partial(receive, answer)))

    def receive(answer: Answer) -> None:
        if not answered.done():
            answered.set_result(answer)

    link.send(partial(serving.answer, arrived))
    async with asyncio.timeout(ANSWERED_WITHIN):
        answer = await answered
    if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        site.crash(f"{method} {target}: {answer.body.decode()}")
    return answer


async def _served(site: Site, scope: dict[str, Any], content: bytes) -> Answer:
    """Return the answer of the application that listens."""
    status, body = 0, bytearray()
    unread = [content]

    async def receive() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            body.extend(message.get("body", b""))

    # The application answers every error itself; what it raises then is for the listener, which would close the connection.
    with suppress(asyncio.CancelledError):
        await site.listening["edge"](scope, receive, send)
    return Answer(status, bytes(body))

"""A server in OPA's place, for answers that a real OPA will not give on demand: on a unix socket, or over mutual TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from support.central_opa import OPA_ID
from support.identity import StaticIdentity
from support.policies import ALLOW
from support.x509 import ThrowawayCa

from sealbus.bus.nats.connection.tls import server_context
from sealbus.envelopes.errors import Code
from sealbus.envelopes.trust.spiffe_id import TrustDomain
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.engine import Answer

__all__ = [
    "BROKEN",
    "NONSENSE",
    "Handler",
    "always",
    "answer_well",
    "batch_of",
    "codes",
    "good",
    "serving_on_socket",
    "serving_tls",
]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving_on_socket(socket: Path, handler: Handler) -> AsyncGenerator[None, None]:
    """Serve `handler` on a unix socket."""
    async with _running(handler) as runner:
        await web.UnixSite(runner, str(socket)).start()
        yield


@asynccontextmanager
async def serving_tls(
    ca: ThrowawayCa, handler: Handler, *, spiffe_id: str = OPA_ID, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[str, None]:
    """Serve `handler` over mutual TLS as `spiffe_id`, or by another context, and yield the URL."""
    identity = StaticIdentity(ca, spiffe_id)
    context = tls or server_context(identity.x509(), trust_domain=TrustDomain(ca.trust_domain))
    async with _running(handler) as runner:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        [(_, port)] = runner.addresses
        yield f"https://127.0.0.1:{port}"


@asynccontextmanager
async def _running(handler: Handler) -> AsyncGenerator[web.AppRunner, None]:
    application = web.Application(client_max_size=2**24)
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


def good(count: int, revision: str = "r1") -> dict[str, Any]:
    """Return what OPA answers where it allows all of `count`."""
    return {"result": [ALLOW] * count, "provenance": {"bundles": {"b": {"revision": revision}}}}


async def batch_of(request: web.Request) -> list[Any]:
    """Return the documents that were asked about."""
    batch: list[Any] = json.loads(await request.read())["input"]["batch"]
    return batch


def codes(answers: Sequence[Answer]) -> list[str]:
    """Return `allow`, `deny` or the code of the error for each."""
    return [
        "allow" if isinstance(one, Decision) and one.allow else str(getattr(one, "code", "deny")) for one in answers
    ]


async def answer_well(request: web.Request) -> web.StreamResponse:
    """Allow everything."""
    return web.json_response(good(len(await batch_of(request))))


def always(body: bytes, status: int = 200) -> Handler:
    """Return a handler that answers nothing but this."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, content_type="application/json")

    return handler


NONSENSE: list[tuple[Handler, Code]] = [
    (always(b"{}"), Code.POLICY_ERROR),
    (always(b'"yes"'), Code.POLICY_UNAVAILABLE),
    (always(b"true"), Code.POLICY_UNAVAILABLE),
    (always(b'{"result": true}'), Code.POLICY_ERROR),
    (always(b'{"result": [true]}'), Code.POLICY_ERROR),
    (always(json.dumps({"result": [ALLOW]}).encode()), Code.POLICY_ERROR),
    (always(json.dumps({**good(1), "result": ["yes"]}).encode()), Code.POLICY_ERROR),
    (always(json.dumps({**good(1), "result": [{**ALLOW, "allow": "true"}]}).encode()), Code.POLICY_ERROR),
    (always(b"oops", 500), Code.POLICY_UNAVAILABLE),
    (always(json.dumps(good(1)).encode(), 500), Code.POLICY_UNAVAILABLE),
    (always(json.dumps(good(1)).encode(), 302), Code.POLICY_UNAVAILABLE),
    (always(json.dumps(good(1)).encode(), 401), Code.POLICY_UNAVAILABLE),
    (always(b'{"code": "internal_error", "errors": [{"code": "eval_conflict_error"}]}', 500), Code.POLICY_ERROR),
    (always(b'{"code": "undefined_document"}', 404), Code.POLICY_UNAVAILABLE),
]
"""Whole answers that are none, and the code that each question gets."""


async def half_a_body(request: web.Request) -> web.StreamResponse:
    """Promise a whole answer, and break off."""
    whole = json.dumps(good(len(await batch_of(request)))).encode()
    response = web.StreamResponse(headers={"Content-Length": str(len(whole)), "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(whole[: len(whole) // 2])
    assert request.transport is not None
    request.transport.abort()
    return response


async def no_body(request: web.Request) -> web.StreamResponse:
    """Break off at once."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def endless(request: web.Request) -> web.StreamResponse:
    """Write as long as somebody reads."""
    response = web.StreamResponse()
    await response.prepare(request)
    while request.transport is not None and not request.transport.is_closing():
        await response.write(b" " * 65_536)
        await asyncio.sleep(0)
    return response


BROKEN: list[Handler] = [half_a_body, no_body, endless]
"""Answers that are not whole: unavailable."""

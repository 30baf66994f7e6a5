"""A server that answers as an OPA might, for what a real one never says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

__all__ = ["answering", "served"]


@asynccontextmanager
async def served(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Yield the URL of a server on loopback that `handler` answers, whatever is asked."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    # A handler that never answers is not waited for.
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def answering(document: object) -> AsyncIterator[str]:
    """Yield the URL of a server that answers everything with `document` as JSON."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response(document)

    async with served(handler) as url:
        yield url

"""The parts of `make bench`, in the order in which they are measured."""

from __future__ import annotations

import asyncio
import importlib
import logging

from bench.report import Figure, show

__all__ = ["PARTS", "measure"]

PARTS = (
    "gate",
    "durability",
    "transport",
    "accounts",
    "sealing",
    "backtest",
    "processes",
    "audit",
    "growth",
    "witness",
    "several",
    "cluster",
    "regions",
    "policy_push",
    "denial",
    "cancel",
    "approvals",
    "edge",
    "mcp",
    "a2a",
    "streams",
    "callout",
    "opa",
    "tracing",
    "console",
)


def measure(part: str) -> list[Figure]:
    """Measure a part in this process, which did nothing else before: memory and the collector are as it leaves them."""
    # Whatever runs TLS over asyncio without being ours is told of each connection's end, and warned about it.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    return asyncio.run(_measured(part))


async def _measured(part: str) -> list[Figure]:
    """Print the figures of a part as they come."""
    show(part)
    found = []
    async for figure in importlib.import_module(f"bench.{part}").figures():
        show(part, [figure])
        found.append(figure)
    return found

"""`python -m bench` (`make bench`): every figure with its limit; exit code 1 if one exceeds it."""

from __future__ import annotations

import asyncio
import sys

from bench import (
    a2a,
    approvals,
    backtest,
    callout,
    cancel,
    console,
    durability,
    edge,
    gate,
    mcp,
    opa,
    processes,
    sealing,
    streams,
    tracing,
)
from bench.report import Figure, show


async def _gate() -> list[Figure]:
    return [figure async for figure in gate.figures()]


async def _durability() -> list[Figure]:
    return [figure async for figure in durability.figures()]


async def _cancel() -> list[Figure]:
    return [figure async for figure in cancel.figures()]


async def _approvals() -> list[Figure]:
    return [figure async for figure in approvals.figures()]


async def _edge() -> list[Figure]:
    return [figure async for figure in edge.figures()]


async def _mcp() -> list[Figure]:
    return [figure async for figure in mcp.figures()]


async def _a2a() -> list[Figure]:
    return [figure async for figure in a2a.figures()]


async def _streams() -> list[Figure]:
    return [figure async for figure in streams.figures()]


async def _tracing() -> list[Figure]:
    return [figure async for figure in tracing.figures()]


async def _callout() -> list[Figure]:
    return [figure async for figure in callout.figures()]


async def _console() -> list[Figure]:
    return [figure async for figure in console.figures()]


async def _opa() -> list[Figure]:
    return [figure async for figure in opa.figures()]


def main() -> int:
    """Print all figures."""
    found = []
    for figure in sealing.figures():
        show(figure)
        found.append(figure)
    for figure in backtest.figures():
        show(figure)
        found.append(figure)
    for figure in processes.figures():
        show(figure)
        found.append(figure)
    for part in (
        _gate,
        _durability,
        _cancel,
        _approvals,
        _edge,
        _mcp,
        _a2a,
        _streams,
        _callout,
        _opa,
        _tracing,
        _console,
    ):
        for figure in asyncio.run(part()):
            show(figure)
            found.append(figure)
    return 0 if all(figure.holds for figure in found) else 1


sys.exit(main())

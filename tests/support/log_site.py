"""A log in a folder, served by the settings' role `log` on a free port, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from support.settings import SMALLEST, load

from sealbus.agents.control.log_server import LogServer, open_log_server
from sealbus.bus.telemetry import Counters

__all__ = ["serving"]


@asynccontextmanager
async def serving(folder: Path, *lines: str) -> AsyncIterator[tuple[LogServer, httpx2.AsyncClient]]:
    """Serve the log in `folder` by settings with `lines`; yield the server and a client of it."""
    text = "\n".join([SMALLEST, "[control.log]", 'address = "127.0.0.1:0"', f'folder = "{folder}"', *lines])
    async with (
        open_log_server(load(folder.parent, text), counters=Counters()) as server,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60, trust_env=False) as client,
    ):
        yield server, client

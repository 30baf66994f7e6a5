"""One browser for a file of tests; each test has a context of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest_asyncio
from playwright.async_api import Browser
from support.browser import chromium


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncGenerator[tuple[Browser, str]]:
    """Start a browser; with it the flag that only its processes have."""
    async with chromium() as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(started: tuple[Browser, str]) -> Browser:
    return started[0]

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sealbus.agents.examples import inventory, planner, pricing
from sealbus.agents.examples.store import DATABASE_VARIABLE
from sealbus.testing import TestBus


@pytest.fixture
async def shop(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TestBus]:
    """All three agents, each with its own data in memory, under the starter policy."""
    monkeypatch.delenv(DATABASE_VARIABLE, raising=False)
    async with TestBus(inventory.agent, pricing.agent, planner.agent) as running:
        yield running


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file for all agents' data, which outlives them."""
    path = tmp_path / "shop.db"
    monkeypatch.setenv(DATABASE_VARIABLE, str(path))
    return path

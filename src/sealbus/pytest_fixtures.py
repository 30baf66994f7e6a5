"""The fixtures of `sealbus.pytest_plugin`, which are coroutines."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from sealbus.testing import LiveBus, TestBus

__all__ = ["bus", "live_bus"]


@pytest_asyncio.fixture
async def bus(pytestconfig: pytest.Config) -> AsyncGenerator[TestBus, None]:
    """Run the project's agents on a bus in memory, decided by its policy."""
    from sealbus.testing import TestBus

    async with TestBus.of_project(pytestconfig.rootpath) as made:
        yield made


@pytest_asyncio.fixture
async def live_bus(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[LiveBus, None]:
    """Run the project's agents as `sealbus dev` does, on a real NATS server: takes a second."""
    from sealbus.testing import LiveBus

    async with LiveBus.of_project(pytestconfig.rootpath, tmp_path_factory.mktemp("sealbus")) as made:
        yield made

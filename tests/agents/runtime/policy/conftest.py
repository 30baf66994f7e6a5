"""The store of policies of these tests, on a real server."""

from __future__ import annotations

import pytest

from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.bus.nats.connection.connection import Connection


@pytest.fixture
async def store(connection: Connection) -> PolicyStore:
    found = PolicyStore(connection, "policies")
    await found.create()
    return found

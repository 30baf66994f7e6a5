"""The policy server as a role of the control process, on the identity and a connection of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from sealbus.agents.control.policy_server.server import PolicyServer, open_policy_server
from sealbus.agents.runtime import open_connection
from sealbus.agents.settings import Settings
from sealbus.bus.counters import Counters

__all__ = ["CONTROL", "open_policy_role"]

CONTROL: Final = "control"
"""The name of the control process's workload."""


@asynccontextmanager
async def open_policy_role(settings: Settings, *, counters: Counters) -> AsyncGenerator[PolicyServer, None]:
    """Open identity, connection and the bucket. Raises `SealbusError` for what is missing, or before the first push."""
    async with (
        open_connection(CONTROL, settings, counters=counters) as (identity, connection),
        open_policy_server(settings, identity, connection, counters=counters) as server,
    ):
        yield server

"""A `TestBus` whose processes are new while the broker, the identities' authority and the edge are those of another."""

from __future__ import annotations

from sealbus import Agent
from sealbus.testing import TestBus

__all__ = ["restarted"]


def restarted(stopped: TestBus, *agents: Agent) -> TestBus:
    """Return a bus with the streams and consumers of `stopped`, and nothing that its processes had in memory."""
    again = TestBus(*agents)
    again.broker, again.authority, again.edge = stopped.broker, stopped.authority, stopped.edge
    return again

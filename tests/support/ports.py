"""A port for a server of a test, whatever other test processes do at the same time."""

from __future__ import annotations

from stack.ports import free_ports

__all__ = ["free_port"]


def free_port() -> int:
    """Return a port of loopback that nobody listens on now; it is not held."""
    return free_ports(1)[0]

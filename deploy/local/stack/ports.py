"""The ports of the stack, all on loopback."""

from __future__ import annotations

import socket
from dataclasses import dataclass, fields
from typing import Self

__all__ = ["Ports"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """One port for each thing that listens; the defaults are for people, `free` is for tests."""

    spire: int = 8081
    nats: int = 4222
    opa: int = 8181
    policy: int = 8182
    idp: int = 8090
    edge: int = 8080
    token_service: int = 8444
    control_health: int = 9100
    policy_health: int = 9102
    notary_health: int = 9103
    edge_health: int = 9101
    inventory_health: int = 9111
    pricing_health: int = 9112
    planner_health: int = 9113

    @classmethod
    def free(cls) -> Self:
        """Return ports that nobody uses at this moment, each a different one."""
        probes = [socket.socket() for _ in fields(cls)]
        try:
            for probe in probes:
                probe.bind(("127.0.0.1", 0))
            return cls(**{field.name: probe.getsockname()[1] for field, probe in zip(fields(cls), probes, strict=True)})
        finally:
            for probe in probes:
                probe.close()

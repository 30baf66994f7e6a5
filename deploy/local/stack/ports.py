"""The ports of the stack, all on loopback."""

from __future__ import annotations

import contextlib
import random
import socket
from dataclasses import dataclass, fields
from typing import Final, Self

__all__ = ["Ports", "free_ports"]

_NAMED: Final = range(20_000, 32_768)
"""Below what systems give to outgoing connections and to port 0 (from 32,768 on Linux, 49,152 elsewhere): what is free
here is not taken by chance before its server binds it."""


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
    streams_health: int = 9104
    edge_health: int = 9101
    inventory_health: int = 9111
    pricing_health: int = 9112
    planner_health: int = 9113
    payments_health: int = 9114

    @classmethod
    def free(cls) -> Self:
        """Return ports that nobody uses at this moment, each a different one."""
        return cls(**dict(zip((field.name for field in fields(cls)), free_ports(len(fields(cls))), strict=True)))


def free_ports(count: int) -> list[int]:
    """Return different ports of loopback that nobody listens on at this moment; they are not held."""
    # Not the seeded generator: processes that ask at the same time would get the same.
    tried = random.SystemRandom().sample(_NAMED, len(_NAMED))
    free: list[int] = []
    while len(free) < count:
        port = tried.pop()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
    return free

"""The ports of the stack, all on loopback."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Self

from sealbus.agents.dev.held_port import held_port

__all__ = ["Ports"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """One port for each thing that listens; the defaults are for people, `held` is for tests."""

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
    @contextmanager
    def held(cls) -> Generator[Self, None, None]:
        """Yield different ports that the system gives to nobody else until the end."""
        with ExitStack() as stack:
            yield cls(**{field.name: stack.enter_context(held_port()) for field in fields(cls)})

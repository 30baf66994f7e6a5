"""The engine protocol: documents in, decisions out, in order, all of one call under one policy revision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from sealbus.envelopes.errors import PolicyFailed, PolicyUnavailable
from sealbus.policies.decision import Decision

__all__ = ["EngineStatus", "PolicyEngine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """What an engine says of itself. `problem` is one line for operators: why the newest bundle is not in force, or empty."""

    engine: str
    revision: str
    problem: str = ""


class PolicyEngine(Protocol):
    """Decides. Enter it with `async with`."""

    @property
    def name(self) -> str:
        """The engine's name in decisions: `embedded`, `sidecar` or `central`."""

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Decision | PolicyUnavailable | PolicyFailed]:
        """Decide each input document; errors are returned in place, so that one does not end the others."""

    async def status(self) -> EngineStatus:
        """Return the revision in force."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

"""The engine protocol: documents in, decisions out, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from sealbus.envelopes.errors import PolicyFailed, PolicyUnavailable
from sealbus.policies.decision.connect import ConnectAnswer
from sealbus.policies.decision.decision import Decision

__all__ = ["Answer", "EngineStatus", "PolicyEngine"]

Answer: TypeAlias = Decision | PolicyUnavailable | PolicyFailed
"""What comes back for one document. Errors are values here, so that one does not end the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """What an engine says of itself.

    `revision` is the policy bundle's in force, empty where there is none. `problem` is for operators, with file and
    line where there are some: why the newest bundle is not in force, or why the engine does not answer; empty where all
    is well. `missed` are those of several OPAs that are not as they should be while another decides, each with why.
    """

    engine: str
    revision: str
    problem: str = ""
    missed: tuple[str, ...] = ()


class PolicyEngine(Protocol):
    """Decides. Entered with `async with`, once; used by the event loop that entered it."""

    @property
    def name(self) -> str:
        """The engine's name in decisions: `embedded`, `sidecar` or `central`."""

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Answer]:
        """Return one answer for each input document, in order, within the engine's deadline.

        Documents that `input_document` did not make are checked first (`checked_document`). Anything that goes wrong
        with one document is its own answer: `PolicyUnavailable` where the engine did not answer in time,
        `PolicyFailed` where it answered with anything but a decision. Nothing is raised but `CancelledError`.
        """

    async def connect(self, document: bytes) -> ConnectAnswer:
        """Return what the policy says to one connection to NATS (`connect_document`), within the engine's deadline.

        Asked at `data.sealbus.connect.decision`. Fails as `decide` does: nothing is raised but `CancelledError`.
        """

    async def status(self) -> EngineStatus:
        """Return what is in force now."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

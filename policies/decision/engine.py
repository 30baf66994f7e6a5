"""The engine protocol: documents in, decisions out, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeAlias, TypeVar

from sealbus.envelopes.errors import PolicyFailed, PolicyUnavailable
from sealbus.policies.decision.connect import ConnectAnswer
from sealbus.policies.decision.decision import Decision

T_co = TypeVar("T_co", covariant=True)

Answer: TypeAlias = Decision | PolicyUnavailable | PolicyFailed
"""The answer to one document. Errors are values, so that one failure does not affect the other answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """The status of an engine.

    `revision` is the revision of the policy bundle in force, empty if there is none. `problem` says why the newest bundle is
    not in force or why the engine does not answer, with file and line if possible; it is empty if all is well. `missed` has
    the problems of OPAs that do not decide while another one does.
    """

    engine: str
    revision: str
    problem: str = ""
    missed: tuple[str, ...] = ()


class Parse(Protocol[T_co]):
    """A reader of answers to one kind of question: `parse_decision`, `parse_connect`."""

    def __call__(self, answer: object, /, *, revision: str, engine: str, micros: int) -> T_co:
        """Return the decision in `answer`, decoded JSON; raise `PolicyFailed` for any other form."""


class PolicyEngine(Protocol):
    """A policy engine. It is entered once with `async with`, and used by the event loop that entered it."""

    @property
    def name(self) -> str:
        """The engine's name in decisions: `embedded`, `native`, `sidecar` or `central`."""

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Answer]:
        """Return one answer for each input document, in order, within the engine's deadline.

        Documents that are no `InputDocument` are checked first (`checked_document`). If a document fails, its answer is
        the failure: `PolicyUnavailable` if the engine did not answer in time, `PolicyFailed` if it answered with anything
        but a decision. Only `CancelledError` is raised.
        """

    async def connect(self, document: bytes) -> ConnectAnswer:
        """Return the decision on one connection to NATS (`connect_document`), within the engine's deadline.

        The policy is asked at `data.sealbus.connect.decision`. Failures are answers, as with `decide`.
        """

    async def approve(self, document: bytes) -> Answer:
        """Return the decision on who may approve (`approval_question`), within the engine's deadline.

        The policy is asked at `data.sealbus.approval.decision`; without that rule the answer is `PolicyFailed`, and nobody
        may approve. Failures are answers, as with `decide`.
        """

    async def status(self) -> EngineStatus:
        """Return the current status."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

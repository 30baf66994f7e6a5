"""A policy engine that says what a test tells it to: for faults and verdicts that a real one won't give on demand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from sealbus.envelopes.errors import PolicyFailed, PolicyUnavailable
from sealbus.policies.decision.connect import ConnectAnswer
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.engine import EngineStatus

__all__ = ["ScriptedEngine", "Verdict", "allow", "deny"]

Verdict = Decision | PolicyUnavailable | PolicyFailed


def allow(*, obligations: tuple[dict[str, object], ...] = ()) -> Decision:
    """Return a decision that allows."""
    return Decision(allow=True, obligations=obligations, policy="scripted", revision="1", engine="scripted", micros=1)


def deny(*reasons: str, obligations: tuple[dict[str, object], ...] = ()) -> Decision:
    """Return a decision that denies."""
    return Decision(
        allow=False,
        reasons=reasons,
        obligations=obligations,
        policy="scripted",
        revision="1",
        engine="scripted",
        micros=1,
    )


class ScriptedEngine:
    """Answers with `verdict(document)`; keeps every document that it was asked about."""

    name = "scripted"

    def __init__(self, verdict: Callable[[dict[str, Any]], Verdict] | None = None) -> None:
        self.verdict = verdict or (lambda _: allow())
        self.asked: list[dict[str, Any]] = []

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Verdict]:
        """Answer each document in turn."""
        documents = [json.loads(one) for one in inputs]
        self.asked += documents
        return [self.verdict(one) for one in documents]

    async def connect(self, document: bytes) -> ConnectAnswer:
        """Say that nothing is known of connections."""
        return PolicyFailed("this engine decides about messages")

    async def approve(self, document: bytes) -> Verdict:
        """Answer as about any other document; this one has `of` and `obligation`."""
        [answer] = await self.decide([document])
        return answer

    async def status(self) -> EngineStatus:
        """Return a fixed revision."""
        return EngineStatus(engine=self.name, revision="1")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

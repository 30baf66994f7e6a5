"""An engine that denies revoked users, and asks another engine about all other requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from sealbus.envelopes.errors import PolicyFailed
from sealbus.envelopes.limits import SECOND
from sealbus.policies.bundle.revocations import REVOCATIONS, Revocations
from sealbus.policies.decision.connect import ConnectAnswer
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.engine import Answer, EngineStatus, PolicyEngine


class RevokingEngine:
    """Denies by the `current` revocations, and lets `engine` decide all other requests. It enters and leaves `engine`."""

    def __init__(self, engine: PolicyEngine, current: Callable[[], Revocations]) -> None:
        self._engine: Final = engine
        self._current: Final = current

    @property
    def name(self) -> str:
        """The name of the other engine."""
        return self._engine.name

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Answer]:
        """Return one answer for each input document, in order.

        A denial by revocation has the policy `revocations`, the revision of the revocations, and one reason.
        """
        revocations = self._current()
        if not revocations:
            return await self._engine.decide(inputs)
        denied = [_denial(document, revocations) for document in inputs]
        others = [document for document, denial in zip(inputs, denied, strict=True) if denial is None]
        answers = await self._engine.decide(others) if others else ()
        if len(answers) != len(others):
            return [PolicyFailed("the engine's answers do not match the questions")] * len(inputs)
        rest = iter(answers)
        return [denial if denial is not None else next(rest) for denial in denied]

    async def connect(self, document: bytes) -> ConnectAnswer:
        """Return the engine's decision on one connection, which has no user."""
        return await self._engine.connect(document)

    async def approve(self, document: bytes) -> Answer:
        """Return the engine's decision on who may approve, or the denial of a revoked approver."""
        revocations = self._current()
        denial = _denial(document, revocations) if revocations else None
        return denial if denial is not None else await self._engine.approve(document)

    async def status(self) -> EngineStatus:
        """Return the engine's status."""
        return await self._engine.status()

    async def __aenter__(self) -> Self:
        await self._engine.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._engine.__aexit__(kind, error, trace)


def _denial(document: bytes, revocations: Revocations) -> Decision | None:
    user = json.loads(document)["context"]["user"]
    if user["present"] is not True:
        return None
    reason = revocations.reason(
        issuer=user["idp"],
        user=user["id"],
        session=user["session"],
        client=user["client"],
        login=user["auth_time"] * SECOND,
    )
    if reason is None:
        return None
    return Decision(
        allow=False, reasons=(reason,), policy=REVOCATIONS, revision=revocations.revision, engine=REVOCATIONS
    )

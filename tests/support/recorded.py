"""Recorded decisions for tests of backtests, without a log: only what was asked and what was said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from support.policies import document

from sealbus.policies.backtest.recorded import Recorded, RecordedDecision

__all__ = ["PLANNER", "recorded", "source"]

PLANNER = "spiffe://example.org/agent/planner"


def recorded(
    action: str = "yes",
    *,
    code: str | None = None,
    input: bytes | None = b"",  # noqa: A002  the word of the policy engine
    redacted: bool = False,
    reasons: tuple[str, ...] = (),
    obligations: bytes = b"",
    revision: str = "r1",
    engine: str = "embedded",
    micros: int | None = 20,
    sequence: int = 1,
    caller: str = PLANNER,
    leaf: bytes = bytes(32),
) -> RecordedDecision:
    """Return a decision about the document of `action`, or about `input`; allowed unless `code` says why not."""
    return RecordedDecision(
        sequence=sequence,
        time=1_795_528_800_000_000,
        leaf=leaf,
        recorder="spiffe://example.org/agent/inventory",
        caller=caller,
        action=action,
        code=code,
        input=bytes(document(action)) if input == b"" else input,
        redacted=redacted,
        reasons=reasons,
        obligations=obligations,
        revision=revision,
        engine=engine,
        micros=micros,
    )


async def source(decisions: Iterable[Recorded]) -> AsyncIterator[Recorded]:
    """Yield `decisions`, as a log does."""
    for one in decisions:
        yield one

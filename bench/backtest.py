"""A backtest of the starter policy on recorded decisions, embedded: decisions per second of this process's CPU time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence

from support.policy_inputs import well_formed
from support.recorded import recorded

from bench.report import Figure
from sealbus.envelopes.errors import Code
from sealbus.policies.backtest.backtest import BATCH, backtest
from sealbus.policies.backtest.recorded import Recorded, RecordedDecision
from sealbus.policies.bundle.files import STARTER
from sealbus.policies.decision.decision import Decision, obligations_json
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.engines.open import open_policy

__all__ = ["figures"]

COUNT = 20_000
RUNS = 3
RATIO = 0.65
"""The least share of the engine's own rate that checking, counting and comparing may leave."""


def figures() -> Iterator[Figure]:
    """Measure the engine alone, then a backtest of the same documents that finds no change; the best of several runs."""
    alone, whole = asyncio.run(_measure())
    yield Figure(name="embedded engine alone, starter policy", value=alone, unit="/s")
    yield Figure(name="backtest, starter policy", value=whole, unit="/s")
    yield Figure(name="  ratio to the engine alone", value=whole / alone, unit="x", limit=RATIO, at_least=True)


async def _measure() -> tuple[float, float]:
    documents = well_formed(COUNT)
    async with open_policy(STARTER) as engine:
        alone = []
        answers: list[Decision] = []
        for _ in range(RUNS):
            started = time.process_time()
            answers = await _decided(engine, documents)
            alone.append(COUNT / (time.process_time() - started))
        log = [_recorded(document, answer) for document, answer in zip(documents, answers, strict=True)]
        whole = []
        for _ in range(RUNS):
            started = time.process_time()
            report = await backtest(_source(log), engine)
            whole.append(COUNT / (time.process_time() - started))
            assert report.same == COUNT
    return max(alone), max(whole)


async def _decided(engine: PolicyEngine, documents: Sequence[bytes]) -> list[Decision]:
    answers: list[Decision] = []
    for start in range(0, len(documents), BATCH):
        for answer in await engine.decide(documents[start : start + BATCH]):
            assert isinstance(answer, Decision)
            answers.append(answer)
    return answers


def _recorded(document: bytes, answer: Decision) -> RecordedDecision:
    return recorded(
        code=None if answer.allow else Code.DENIED,
        input=bytes(document),
        reasons=answer.reasons,
        obligations=obligations_json(answer),
    )


async def _source(log: Sequence[Recorded]) -> AsyncIterator[Recorded]:
    for one in log:
        yield one

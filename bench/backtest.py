"""A backtest of the starter policy on recorded decisions, embedded: decisions per second of this process's CPU time."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
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
from sealbus.policies.engines.embedded import EmbeddedEngine
from sealbus.policies.engines.native import NativeEngine
from sealbus.policies.engines.open import open_policy

__all__ = ["figures"]

COUNT = 20_000
RUNS = 3
NATIVE = 1.2
RATIO = 0.65
"""The least share of the engine's own rate that checking, counting and comparing may leave."""


def figures() -> Iterator[Figure]:
    """Measure the engine alone, then a backtest of the same documents that finds no change; the best of several runs.

    The native engine and the embedded one decide in turns, where the native one is installed.
    """
    if importlib.util.find_spec("sealbus_regorus") is None:
        print("no figures for the native engine, because it is not installed: `make engine` builds it", file=sys.stderr)
    else:
        both = asyncio.run(_both())
        yield Figure(name="native engine, starter policy", value=both["native"], unit="/s")
        ratio = both["native"] / both["embedded"]
        yield Figure(name="  ratio to the embedded engine", value=ratio, unit="x", limit=NATIVE, at_least=True)
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


async def _both() -> dict[str, float]:
    documents = well_formed(COUNT // 4)
    best = {"native": 0.0, "embedded": 0.0}
    async with NativeEngine.of_folder() as native, EmbeddedEngine.of_folder() as embedded:
        for _ in range(4 * RUNS):
            for engine in (native, embedded):
                started = time.process_time()
                await _decided(engine, documents)
                best[engine.name] = max(best[engine.name], len(documents) / (time.process_time() - started))
    return best


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

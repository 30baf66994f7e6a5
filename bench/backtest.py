"""Decisions by the starter policy, and a backtest of them, per second of this process's processor time."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import AsyncIterator, Sequence

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from support.envelopes import private_key
from support.policy_inputs import well_formed
from support.recorded import recorded

from bench.report import Figure
from bench.rounds import Rounds
from sealbus.envelopes.errors import Code
from sealbus.policies.backtest.backtest import BATCH, backtest
from sealbus.policies.backtest.recorded import Recorded, RecordedDecision
from sealbus.policies.bundle.files import STARTER
from sealbus.policies.decision.decision import Decision, obligations_json
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.engines.embedded import EmbeddedEngine
from sealbus.policies.engines.native import NativeEngine
from sealbus.policies.engines.open import open_policy

__all__ = ["figures", "has_engine_wheel", "verification"]

COUNT = 10_000
ROUNDS = 5
VERIFIED = 2_000


async def figures() -> AsyncIterator[Figure]:
    """Decide about documents, then backtest the same documents without a change, in turns; both without waiting.

    The policy denies over half of them, which takes longer, for it finds the words for that. What it allows, as it does
    mostly where agents work, has figures of its own.
    """
    documents, rounds = well_formed(COUNT), Rounds(clock=time.process_time)
    async with open_policy(STARTER) as engine:
        answers = await _decided(engine, documents)
        fine = [document for document, answer in zip(documents, answers, strict=True) if answer.allow]
        log = [_recorded(document, answer) for document, answer in zip(documents, answers, strict=True)]
        for _ in range(ROUNDS):
            rounds.add("verified", verification())
            with rounds.measured("allowed", len(fine)):
                await _decided(engine, fine)
            with rounds.measured("decided", COUNT):
                await _decided(engine, documents)
            with rounds.measured("backtest", COUNT):
                report = await backtest(_source(log), engine)
            assert report.same == COUNT
    yield rounds.ratio("decisions by the starter policy / ES256 verifications", "decided", "verified", guard=0.55)
    yield rounds.ratio("a backtest of them / the engine alone", "backtest", "decided", guard=0.65)
    yield rounds.rate("allowed", label="decisions that allow, starter policy", goal=24_000.0)
    yield rounds.rate("decided", label=f"decisions of which {1 - len(fine) / COUNT:.0%} deny")
    yield rounds.rate("backtest", label="backtest, starter policy", goal=18_000.0)
    yield rounds.rate("verified", label="ES256 verifications, bare")
    if not has_engine_wheel():
        return
    async for figure in _native(documents, fine):
        yield figure


def has_engine_wheel() -> bool:
    """Return whether the native engine is installed, and say so if it is not."""
    found = importlib.util.find_spec("sealbus_regorus") is not None
    if not found:
        print("no figures for the native engine, because it is not installed: `make engine` builds it", file=sys.stderr)
    return found


def verification() -> float:
    """Return the processor time of one verification, which tells how fast the core is at this time."""
    private, algorithm, message = private_key("raw"), ec.ECDSA(SHA256()), bytes(80)
    public, signature = private.public_key(), private.sign(message, algorithm)
    began = time.process_time()
    for _ in range(VERIFIED):
        public.verify(signature, message, algorithm)
    return (time.process_time() - began) / VERIFIED


async def _native(documents: Sequence[bytes], fine: Sequence[bytes]) -> AsyncIterator[Figure]:
    """Let the native engine and the embedded one decide about the same documents, in turns."""
    rounds = Rounds(clock=time.process_time)
    async with NativeEngine.of_folder() as native, EmbeddedEngine.of_folder() as embedded:
        for _ in range(ROUNDS):
            for engine in (native, embedded):
                with rounds.measured(engine.name, len(documents)):
                    await _decided(engine, documents)
            with rounds.measured("allowed", len(fine)):
                await _decided(native, fine)
    yield rounds.ratio("native engine / embedded engine", "native", "embedded", guard=1.15)
    yield rounds.rate("allowed", label="native engine, decisions that allow", goal=36_000.0)
    yield rounds.rate("native", label="native engine, all of them")


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

"""The embedded engine: what is its own."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from support.policies import ALLOW, DENY, SCRIPTED, bundle, document, eventually, folder, put, signing_key

from sealbus.envelopes.errors import ConfigurationError, PolicyFailed, PolicyUnavailable
from sealbus.envelopes.trust.keys import SigningKey, key_id
from sealbus.policies.bundle.files import write_bundle
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.bundle.signing import BundleVerifier, sign_bundle
from sealbus.policies.decision import documents
from sealbus.policies.decision.decision import Decision
from sealbus.policies.engines.embedded import SLICE, EmbeddedEngine
from sealbus.policies.lint.module import PolicyRefused
from sealbus.policies.lint.regorus import Interpreter


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "bundle.tar.gz"
    write_bundle(bundle(), found)
    return found


async def until_problem(engine: EmbeddedEngine, *, there: bool) -> str:
    async def holds() -> bool:
        return bool((await engine.status()).problem) is there

    await eventually(holds)
    return (await engine.status()).problem


async def test_the_first_bundle_must_be_good(tmp_path: Path) -> None:
    missing = EmbeddedEngine(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await missing.__aenter__()
    await missing.__aexit__(None, None, None)
    bad = tmp_path / "bad"
    put(bundle(policy="package x {").raw, bad)
    with pytest.raises(PolicyRefused, match=r"authz\.rego:1:11"):
        await EmbeddedEngine(bad).__aenter__()


async def test_a_refused_bundle_is_reported_with_its_place_until_a_good_one_comes(file: Path) -> None:
    async with EmbeddedEngine(file) as engine:
        put(bundle(revision="bad", policy="package x {").raw, file)
        assert "authz.rego:1:11" in await until_problem(engine, there=True)
        assert (await engine.status()).revision == "r1"
        write_bundle(bundle(revision="r2"), file)
        await until_problem(engine, there=False)
        assert (await engine.status()).revision == "r2"


async def test_with_a_verifier_only_signed_and_newer_bundles_come_in_force(tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    key, other = signing_key(), signing_key()
    verifier = BundleVerifier(keys={key_id(key.public): key.public}, scope="platform")

    def signed(revision: str, serial: int, by: SigningKey = key) -> bytes:
        return sign_bundle(bundle(revision=revision, serial=serial), by, scope="platform").raw

    put(bundle(serial=1).raw, file)
    with pytest.raises(PolicyRefused, match="not signed"):
        await EmbeddedEngine(file, verifier=verifier).__aenter__()
    put(signed("r2", 2), file)
    async with EmbeddedEngine(file, verifier=verifier) as engine:
        for refused, why in (
            (bundle(revision="bad", serial=3).raw, "not signed"),
            (signed("bad", 3, other), "may not sign"),
            (signed("bad", 2), "not after 2"),
            (signed("bad", 1), "not after 2"),
        ):
            put(refused, file)

            async def told(why: str = why) -> bool:
                return why in (await engine.status()).problem

            await eventually(told)
            assert (await engine.status()).revision == "r2"
        put(signed("r4", 4), file)
        await until_problem(engine, there=False)
        assert (await engine.status()).revision == "r4"


async def test_a_folder_and_the_starter_policy(tmp_path: Path) -> None:
    folder(tmp_path, {"a.rego": SCRIPTED, "data.json": {"answers": {"yes": ALLOW}}})
    async with EmbeddedEngine.of_folder(tmp_path) as engine:
        [answer] = await engine.decide([document()])
        assert isinstance(answer, Decision)
        assert answer.allow
    async with EmbeddedEngine.of_folder() as engine:
        [answer] = await engine.decide([document()])
        assert isinstance(answer, Decision)
        assert not answer.allow


async def test_the_loop_runs_between_slices(file: Path) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with EmbeddedEngine(file) as engine:
        counting = asyncio.create_task(count())
        await asyncio.sleep(0)
        before = turns
        await engine.decide([document()] * (4 * SLICE))
        assert turns - before >= 3
        counting.cancel()


async def test_what_is_asked_while_a_large_bundle_comes_in_force_has_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(documents, "PIECE", 4)
    in_force = InForce()
    await in_force.put(bundle(revision="r1"))
    async with EmbeddedEngine(in_force) as engine:
        many = {f"action-{number}": ALLOW for number in range(40)} | {"yes": DENY}
        putting = asyncio.create_task(in_force.put(bundle(many, revision="r2")))
        answers: list[tuple[str, bool]] = []
        while not putting.done():
            [answer] = await engine.decide([document()])
            assert isinstance(answer, Decision)
            answers.append((answer.revision, answer.allow))
            await asyncio.sleep(0)
        assert len(answers) >= 40
        assert set(answers) == {("r1", True)}
        [answer] = await engine.decide([document()])
        assert isinstance(answer, Decision)
        assert (answer.revision, answer.allow) == ("r2", False)


async def test_the_deadline_ends_a_long_call(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = Interpreter.evaluate

    def slow(self: Interpreter, rule: str, text: bytes) -> object:
        time.sleep(0.2)  # blocks the loop, as a slow policy does
        return evaluate(self, rule, text)

    monkeypatch.setattr(Interpreter, "evaluate", slow)
    async with EmbeddedEngine(file, deadline=0.1) as engine:
        answers = await engine.decide([document()] * (3 * SLICE))
    assert [type(answer) for answer in answers] == [Decision] * SLICE + [PolicyUnavailable] * (2 * SLICE)


async def test_a_broken_interpreter_is_replaced(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    evaluate = Interpreter.evaluate

    def panic_once(self: Interpreter, rule: str, text: bytes) -> object:
        nonlocal asked
        asked += 1
        if asked == 1:
            self.broken = True
            raise PolicyFailed("it broke")
        return evaluate(self, rule, text)

    monkeypatch.setattr(Interpreter, "evaluate", panic_once)
    async with EmbeddedEngine(file) as engine:
        [first] = await engine.decide([document()])
        [second] = await engine.decide([document()])
    assert isinstance(first, PolicyFailed)
    assert isinstance(second, Decision)


async def test_failures_carry_no_interpreter(file: Path) -> None:
    """regorus complains where an engine is dropped by another thread, and frames of a traceback hold it."""
    async with EmbeddedEngine(file) as engine:
        for name in ("fails", "undefined", "yes"):
            for answer in await engine.decide([document(name), bytes(document("fails"))]):
                assert isinstance(answer, Decision) or (answer.__traceback__, answer.__context__) == (None, None)


async def test_micros_are_those_of_the_decision(file: Path) -> None:
    async with EmbeddedEngine(file) as engine:
        started = time.perf_counter_ns()
        answers = await engine.decide([document()] * SLICE)
        took = (time.perf_counter_ns() - started) // 1_000
    assert sum(answer.micros for answer in answers if isinstance(answer, Decision)) <= took

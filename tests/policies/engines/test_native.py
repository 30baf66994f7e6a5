"""The native engine: what is its own. The tests of all engines are in tests/policies/test_engines.py."""

from __future__ import annotations

import asyncio
import sys
import threading
import tomllib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.native_wheel import Policy, put_wheel, require_wheel
from support.policies import SCRIPTED, bundle, document

from sealbus.envelopes.errors import ConfigurationError, PolicyFailed, PolicyUnavailable
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.engine import Answer
from sealbus.policies.engines.native import INLINE, SLICE, VERSION, NativeEngine
from sealbus.policies.lint.module import PolicyRefused

CRATE = Path(__file__).parents[3] / "native" / "engine" / "Cargo.toml"

DECIDED = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

allowed := {"allow": true, "reasons": [], "obligations": [], "policy": "p"}

decide(request) := strings.count(request.context.message_id, "") if request.action.name == "panics"

else := concat("", [request.context.kind]) if request.action.name == "fails"

else := found if {
	request.action.name == "runs"
	found := count([1 | some a in many; some b in many; some c in many; a == b; b == c])
}

else := [many, many] if request.action.name == "nonsense"

else := allowed

many := [n | some a in data.ten; some b in data.ten; some c in [1, 2, 3, 4, 5]; n := (a * 10) + (b * c)]
"""
"""Not admitted by any check: a builtin that panics (regorus' windows of no width), and one action that takes for ever."""


@pytest.fixture(params=["stand-in", "wheel"])
def wheel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "wheel":
        require_wheel()
    else:
        put_wheel(monkeypatch)
    return str(request.param)


@asynccontextmanager
async def deciding(policy: str = SCRIPTED, *, deadline: float = 20.0) -> AsyncIterator[NativeEngine]:
    in_force = InForce()
    await in_force.put(bundle() if policy == SCRIPTED else bundle(policy=policy, data={"ten": list(range(10))}))
    async with NativeEngine(in_force, deadline=deadline) as engine:
        yield engine


def kinds(answers: Sequence[Answer]) -> list[type[object]]:
    return [type(one) for one in answers]


@pytest.mark.usefixtures("wheel")
async def test_many_and_few_are_decided_in_order() -> None:
    async with deciding() as engine:
        for count in (0, 1, INLINE, INLINE + 1, SLICE + 3):
            names = ["yes" if number % 3 else "no" for number in range(count)]
            answers = await engine.decide([document(name) for name in names])
            assert [isinstance(one, Decision) and one.allow for one in answers] == [name == "yes" for name in names]
            assert {one.engine for one in answers if isinstance(one, Decision)} <= {"native"}
        assert (await engine.status()).engine == "native"


@pytest.mark.usefixtures("wheel")
async def test_what_is_no_question_or_has_no_answer_is_a_failure_of_its_own() -> None:
    asked = [document(), b"{", document("unknown"), bytes(document()), document("fails"), document()]
    async with deciding() as engine:
        for some in (asked * 8, asked):
            answers = await engine.decide(some)
            assert kinds(answers[:6]) == [Decision, PolicyFailed, PolicyFailed, Decision, PolicyFailed, Decision]
        failed = (await engine.decide(asked))[4]
    assert isinstance(failed, PolicyFailed)
    assert failed.detail.endswith("cannot be evaluated")
    assert (failed.__traceback__, failed.__context__) == (None, None)


@pytest.mark.usefixtures("wheel")
async def test_a_policy_without_a_rule_answers_nothing_there() -> None:
    async with deciding() as engine:
        assert isinstance(await engine.connect(b"{"), PolicyFailed)
        for answer in (await engine.connect(document()), await engine.approve(document())):
            assert isinstance(answer, PolicyFailed)
            assert answer.detail.endswith(".decision cannot be evaluated")


@pytest.mark.usefixtures("wheel")
async def test_a_bundle_that_does_not_compile_is_refused() -> None:
    in_force = InForce()
    async with NativeEngine(in_force) as engine:
        with pytest.raises(PolicyRefused, match=r"authz\.rego"):
            await in_force.put(bundle(policy="package x {"))
        assert [type(one) for one in await engine.decide([document()])] == [PolicyUnavailable]


async def test_the_loop_runs_while_a_bundle_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling, compiled = threading.Event(), threading.Event()

    class Slow(Policy):
        def __init__(self, modules: list[tuple[str, str]], data: str) -> None:
            compiling.set()
            assert compiled.wait(60.0)
            super().__init__(modules, data)

    put_wheel(monkeypatch)
    in_force = InForce()
    await in_force.put(bundle(revision="r1"))
    async with NativeEngine(in_force) as engine:
        engine._wheel.__dict__["Policy"] = Slow
        putting = asyncio.create_task(in_force.put(bundle(revision="r2")))
        try:
            assert await asyncio.to_thread(compiling.wait, 60.0)
            [answer] = await engine.decide([document()])
            assert isinstance(answer, Decision)
            assert (answer.revision, (await engine.status()).revision) == ("r1", "r1")
        finally:
            compiled.set()
        await putting
        assert (await engine.status()).revision == "r2"


async def test_without_the_wheel_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sealbus_regorus", None)
    with pytest.raises(ConfigurationError, match="make engine"):
        NativeEngine(InForce())


async def test_another_version_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    put_wheel(monkeypatch, version="0.0.9")
    with pytest.raises(ConfigurationError, match=r"sealbus-regorus 0\.0\.9 is installed"):
        NativeEngine(InForce())


def test_the_version_is_that_of_the_crate() -> None:
    assert tomllib.loads(CRATE.read_text())["package"]["version"] == VERSION


class Held(Policy):
    """Says in which thread it is asked, and is held up there until it is let go."""

    threads: list[str]
    begun = threading.Event()
    go = threading.Event()

    def ask(
        self, one: str, batch: str | None, documents: Sequence[bytes], *, each: float, whole: float, apart: bool
    ) -> tuple[int, list[tuple[int, str | bytes | None]]]:
        self.threads.append(threading.current_thread().name)
        if apart:
            self.begun.set()
            assert self.go.wait(60)
        return super().ask(one, batch, documents, each=each, whole=whole, apart=apart)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> type[Held]:
    monkeypatch.setattr(Held, "threads", [], raising=False)
    monkeypatch.setattr(Held, "begun", threading.Event())
    monkeypatch.setattr(Held, "go", threading.Event())
    put_wheel(monkeypatch, Held)
    return Held


async def test_a_long_batch_leaves_the_loop_its_turns(held: type[Held]) -> None:
    async with deciding() as engine:
        long = asyncio.create_task(engine.decide([document()] * (INLINE + 1)))
        await asyncio.to_thread(held.begun.wait, 60)
        assert kinds(await engine.decide([document()] * INLINE)) == [Decision] * INLINE
        assert not long.done()
        held.go.set()
        assert kinds(await long) == [Decision] * (INLINE + 1)
    assert [name.startswith("native-engine") for name in held.threads] == [True, False]


async def test_what_does_not_end_is_not_waited_for(held: type[Held]) -> None:
    async with deciding(deadline=0.01) as engine:
        answers = await engine.decide([document()] * (INLINE + 1))
        assert kinds(answers) == [PolicyUnavailable] * (INLINE + 1)
    held.go.set()


# Of the wheel alone


async def test_one_that_poisons_a_batch_harms_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    require_wheel()
    bad = {7: "panics", 100: "nonsense", 200: "fails"}
    async with deciding(DECIDED) as engine:
        for _ in range(2):
            answers = await engine.decide([document(bad.get(number, "fine")) for number in range(256)])
            assert [number for number, one in enumerate(answers) if not isinstance(one, Decision)] == list(bad)
            assert all(isinstance(answers[number], PolicyFailed) for number in bad)
            assert "window" not in str(answers[7])
        # Alone, too.
        assert kinds(await engine.decide([document("panics"), document("fine")])) == [PolicyFailed, Decision]
    assert capfd.readouterr() == ("", "")


async def test_a_runaway_is_late_alone() -> None:
    require_wheel()
    async with deciding(DECIDED) as engine:
        answers = await engine.decide([document("runs" if number == 30 else "fine") for number in range(64)])
        assert [number for number, one in enumerate(answers) if not isinstance(one, Decision)] == [30]
        assert isinstance(answers[30], PolicyUnavailable)
        assert kinds(await engine.decide([document("runs"), document("fine")])) == [PolicyUnavailable, Decision]


async def test_a_failure_says_where_and_not_what() -> None:
    require_wheel()
    async with deciding() as engine:
        [failed] = await engine.decide([document("fails")])
    assert isinstance(failed, PolicyFailed)
    assert failed.detail == "authz.rego:9:26 cannot be evaluated"


async def test_a_number_that_python_does_not_read_is_a_failure_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python reads at most 4,300 digits. No decision holds a number beyond 2^53-1, so nothing is lost."""

    class Long(Policy):
        def ask(self, *given: object, **options: object) -> tuple[int, list[tuple[int, str | bytes | None]]]:
            count, answers = super().ask(*given, **options)  # type: ignore[arg-type]  # as they came
            return count, [(1, "9" * 5_000), *answers[1:]]

    put_wheel(monkeypatch, Long)
    async with deciding() as engine:
        assert kinds(await engine.decide([document(), document()])) == [PolicyFailed, Decision]


async def test_two_engines_decide_at_once() -> None:
    require_wheel()
    async with deciding() as first, deciding() as second:
        some = [document("yes" if number % 2 else "no") for number in range(SLICE)]
        asked = await asyncio.gather(*(engine.decide(some) for engine in (first, second) * 4))
    for answers in asked:
        assert [isinstance(one, Decision) and one.allow for one in answers] == [False, True] * (SLICE // 2)

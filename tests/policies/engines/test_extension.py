"""A denial is added to a compiled policy: by the embedded engine, and the native one with and without its wheel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest
from support.native_wheel import Policy, put_wheel, require_wheel
from support.policies import bundle, document

from sealbus.policies.bundle.denials import extended, pack_denial
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.engine import Answer
from sealbus.policies.engines.embedded import SLICE, Compiled, EmbeddedEngine
from sealbus.policies.engines.native import SLICE as NATIVE_SLICE
from sealbus.policies.engines.native import NativeEngine

MEMBERS = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {
	"allow": false,
	"reasons": ["denied"],
	"obligations": [{"type": "members", "of": object.get(data.sealbus.registry.revoked.users, "carol", {})}],
	"policy": request.action.name,
}
"""
"""Answers with what the data has of carol."""

BASE = bundle(policy=MEMBERS, data={"sealbus": {"registry": {"revoked": {"users": {}}}}}, revision="0123456789ab")


@pytest.fixture(params=["embedded", "native", "stand-in"])
def engine_class(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[EmbeddedEngine]:
    """Return a class that counts in `compiled` how often it compiles."""
    if request.param == "native":
        require_wheel()
    elif request.param == "stand-in":
        put_wheel(monkeypatch)
    made: type[EmbeddedEngine] = EmbeddedEngine if request.param == "embedded" else NativeEngine

    class Counting(made):  # type: ignore[misc, valid-type]  # one of the two
        compiled = 0

        async def _compile(self, given: Bundle) -> Compiled:
            type(self).compiled += 1
            return await super()._compile(given)  # type: ignore[no-any-return]  # of one of the two

    return Counting


def denial(identity: str, members: Mapping[str, str], serial: int) -> Bundle:
    return pack_denial({"sealbus": {"registry": {"revoked": {"users": {identity: dict(members)}}}}}, serial)


def carol_of(answer: Answer) -> tuple[str, object]:
    assert isinstance(answer, Decision), answer
    [obligation] = answer.obligations
    return answer.revision, obligation["of"]


async def in_force_with(given: Bundle) -> InForce:
    found = InForce()
    await found.put(given)
    return found


async def test_it_is_added_to_what_is_compiled_and_two_of_one_id_are_not_merged(
    engine_class: type[EmbeddedEngine],
) -> None:
    in_force, now = await in_force_with(BASE), BASE
    denials: tuple[tuple[str, dict[str, str]], ...] = (
        ("dave", {"at": "1"}),
        ("carol", {"at": "1"}),
        ("carol", {"reason": "2"}),
        ("erin", {}),
    )
    async with engine_class(in_force) as engine:
        for serial, (identity, members) in enumerate(denials, 2):
            now = extended(now, denial(identity, members, serial))
            await in_force.put(now)
            carol = {2: {}, 3: {"at": "1"}}.get(serial, {"reason": "2"})
            for count in (1, 3, 20):
                answers = await engine.decide([document()] * count)
                assert [carol_of(answer) for answer in answers] == [(now.revision, carol)] * count
            assert (await engine.status()).revision == now.revision
    # At the start, and where an id was denied again.
    assert engine_class.compiled == 2  # type: ignore[attr-defined]  # the fixture's


async def test_each_answer_of_a_batch_in_progress_says_by_which_revision_it_is(
    engine_class: type[EmbeddedEngine],
) -> None:
    in_force = await in_force_with(BASE)
    later = extended(BASE, denial("carol", {"at": "1"}, 2))
    async with engine_class(in_force) as engine:
        deciding = asyncio.create_task(engine.decide([document()] * (SLICE + NATIVE_SLICE) * 2))
        await asyncio.sleep(0)
        await in_force.put(later)
        answers = [carol_of(answer) for answer in await deciding]
    assert len(answers) == (SLICE + NATIVE_SLICE) * 2
    assert answers[-1] == (later.revision, {"at": "1"})
    # The native engine may not have begun in its thread.
    assert {revision: carol for revision, carol in answers if revision != later.revision} in ({BASE.revision: {}}, {})
    assert engine_class.compiled == 1  # type: ignore[attr-defined]  # the fixture's


async def test_several_at_once_are_added_one_after_the_other(engine_class: type[EmbeddedEngine]) -> None:
    """Those in between were never in force here."""
    in_force = await in_force_with(BASE)
    now = extended(extended(BASE, denial("carol", {"at": "1"}, 2)), denial("dave", {}, 3))
    async with engine_class(in_force) as engine:
        await in_force.put(now)
        assert carol_of((await engine.decide([document()]))[0]) == (now.revision, {"at": "1"})
        again = extended(extended(now, denial("erin", {}, 4)), denial("erin", {"at": "2"}, 5))
        await in_force.put(again)
        assert carol_of((await engine.decide([document()]))[0]) == (again.revision, {"at": "1"})
    assert engine_class.compiled == 2  # type: ignore[attr-defined]  # the fixture's; one id twice is compiled


async def test_what_does_not_extend_the_bundle_in_force_is_compiled(engine_class: type[EmbeddedEngine]) -> None:
    in_force = await in_force_with(BASE)
    other = replace(BASE, revision="ba9876543210", file=b"")
    later = extended(other, denial("carol", {"at": "1"}, 2))
    async with engine_class(in_force) as engine:
        await in_force.put(later)
        assert carol_of((await engine.decide([document()]))[0]) == (later.revision, {"at": "1"})
    assert engine_class.compiled == 2  # type: ignore[attr-defined]  # the fixture's


@pytest.mark.parametrize("made", ["embedded", "stand-in"])
async def test_what_cannot_be_added_is_compiled(made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        if made == "embedded":
            return False
        raise ValueError("it cannot be added")

    if made == "embedded":
        monkeypatch.setattr("sealbus.policies.lint.regorus.Interpreter.add", refuse)
    else:
        put_wheel(monkeypatch)
        monkeypatch.setattr(Policy, "add", refuse)
    in_force = await in_force_with(BASE)
    later = extended(BASE, denial("carol", {"at": "1"}, 2))
    async with (EmbeddedEngine if made == "embedded" else NativeEngine)(in_force) as engine:
        await in_force.put(later)
        assert carol_of((await engine.decide([document()]))[0]) == (later.revision, {"at": "1"})

"""The starter policy was one text before it was written with the library: both answer alike, whatever they are asked."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.policy_inputs import REVOKED, approval_questions, mutated, mutated_questions, well_formed

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.bundle.check import check_bundle
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.format import Manifest, pack_bundle, read_bundle
from sealbus.policies.decision.documents import DataDocument, canonical
from sealbus.policies.lint.module import Module
from sealbus.policies.lint.regorus import Interpreter

FORMER = Path(__file__).parent / "former_starter"
SEEDS = st.integers(min_value=0, max_value=2**32)


@cache
def texts() -> tuple[list[Module], list[Module]]:
    """Return the modules of the former starter policy and of today's."""
    files = sorted(FORMER.rglob("*.rego"))
    former = [Module(path=file.relative_to(FORMER).as_posix(), text=file.read_text()) for file in files]
    return former, list(build_bundle(STARTER).modules)


def registry() -> dict[str, Json]:
    """Return the starter registry as it was formerly, with revocations: roles are in it, and tenants have one account."""
    found = json.loads(canonical(build_bundle(STARTER).data))["sealbus"]
    inside: dict[str, Json] = {**found["registry"], "roles": found["lib"]["roles"]}
    inside["tenants"] = {
        name: {key: value for key, value in tenant.items() if key != "streams"}
        for name, tenant in found["registry"]["tenants"].items()
    }
    return inside | {"revoked": json.loads(json.dumps(REVOKED))}


def both(data: DataDocument) -> tuple[Interpreter, Interpreter]:
    former, now = (Interpreter(modules, canonical(data)) for modules in texts())
    return former, now


@cache
def usual() -> tuple[Interpreter, Interpreter]:
    return both({"sealbus": {"registry": registry()}})


def answers(interpreters: tuple[Interpreter, Interpreter], package: str, document: bytes) -> list[object]:
    found: list[object] = []
    for interpreter in interpreters:
        try:
            found.append(_without_later(interpreter.evaluate(f"data.sealbus.{package}.decision", document)))
        except PolicyFailed:
            found.append("failed")
    return found


def _without_later(answer: object) -> object:
    """Leave out the rights that agents did not have formerly: to delete their own consumers of TASKS and EVENTS."""
    rights = answer.get("publish") if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or not isinstance(rights, dict):
        return answer
    later = ("$JS.API.CONSUMER.DELETE.TASKS.", "$JS.API.CONSUMER.DELETE.EVENTS.")
    kept = [subject for subject in rights["allow"] if not subject.startswith(later)]
    return {**answer, "publish": {**rights, "allow": kept}}


def connecting(seed: int) -> bytes:
    chance = random.Random(seed)  # noqa: S311  the same question each time
    subjects: list[Json] = [
        {
            "subject": f"own.{number}",
            "kind": chance.choice(("task", "call", "event")),
            "owner": f"spiffe://example.org/agent/{chance.choice(('inventory', 'pricing'))}",
            "action": chance.choice(("inventory.read", "pricing.quote", "none.such")),
            "durable": f"d{number}",
        }
        for number in range(chance.randrange(3))
    ]
    name = chance.choice(("edge", "control", "agent/inventory", "agent/pricing", "agent/operator", "agent/nobody"))
    token = name.rpartition("/")[2]
    return canonical(
        {
            "v": 1,
            "subject": {
                "type": "workload",
                "id": f"spiffe://example.org/{name}",
                "properties": {"trust_domain": "example.org", **({"token": token} if chance.random() < 0.9 else {})},
            },
            "action": {"name": "connect", "properties": {}},
            "resource": {"type": "nats", "id": "n", "properties": {"name": "n"}},
            "context": {"time": "2026-11-24T12:00:00Z", "not_after": "2026-11-24T13:00:00Z", "own_subjects": subjects},
        }
    )


def lacking(seed: int) -> DataDocument:
    """Return a registry in which up to three things are missing or of another type."""
    chance = random.Random(seed)  # noqa: S311  the same registry each time
    found = registry()
    for _ in range(chance.randrange(1, 4)):
        place: dict[str, Json] = found
        while True:
            name = chance.choice(list(place))
            below = place[name]
            if not isinstance(below, dict) or not below or chance.random() < 0.3:
                break
            place = below
        if chance.random() < 0.5:
            del place[name]
        else:
            place[name] = chance.choice(({}, [], "x", 1, True, False, None))
        if not found:
            break
    return {"sealbus": {"registry": found}}


def denies(answer: object) -> bool:
    return answer == "failed" or (isinstance(answer, dict) and answer["allow"] is False)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_messages(seed: int) -> None:
    for document in (*well_formed(5, seed), *mutated(5, seed)):
        former, now = answers(usual(), "authz", document)
        assert former == now, document


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_approvals_and_connections(seed: int) -> None:
    for document in (*approval_questions(4, seed), *mutated_questions(4, seed)):
        former, now = answers(usual(), "approval", document)
        assert former == now, document
    former, now = answers(usual(), "connect", connecting(seed))
    assert former == now


@settings(max_examples=30, deadline=None)
@given(SEEDS)
@example(99_999_999)
@example(3_558)
def test_registries_that_lack_something(seed: int) -> None:
    """Where one of the policies fails, which denies, the other may say why it denies."""
    interpreters = both(lacking(seed))
    questions = [("authz", document) for document in well_formed(4, seed)]
    questions += ("connect", connecting(seed)), ("approval", approval_questions(1, seed)[0])
    for package, document in questions:
        former, now = answers(interpreters, package, document)
        assert former == now or ("failed" in (former, now) and denies(former) and denies(now)), document


def test_the_questions_are_answered_in_every_way() -> None:
    def allowed(package: str, documents: list[bytes]) -> list[object]:
        return [
            isinstance(one, dict) and one["allow"] for one in (answers(usual(), package, it)[1] for it in documents)
        ]

    for package, documents in (
        ("authz", well_formed(100)),
        ("approval", approval_questions(100)),
        ("connect", [connecting(seed) for seed in range(100)]),
    ):
        assert {True, False} <= set(allowed(package, documents))


@pytest.mark.parametrize("part", [False, True])
def test_a_bundle_of_before_the_library_is_still_put_in_force(part: bool) -> None:
    former, _ = texts()
    roots = ("sealbus/authz", "sealbus/connect", "sealbus/approval", "sealbus/registry") if part else ("sealbus",)
    data: DataDocument = {"sealbus": {"registry": registry()}}
    modules = {one.path: one.text.encode() for one in former}
    check_bundle(read_bundle(pack_bundle(modules, data, Manifest(revision="r1", roots=roots))))

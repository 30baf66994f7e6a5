"""The starter policy on generated documents: the embedded engine and real OPAs, with strict builtin errors, agree."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
from support.central_opa import CentralOpa, tls_of
from support.native_wheel import has_wheel
from support.opa import OpaServer
from support.policy_inputs import (
    approval_questions,
    closed_policy,
    mutated,
    mutated_questions,
    starter_with_revocations,
    well_formed,
)
from support.x509 import ThrowawayCa

from sealbus.policies.bundle.files import STARTER, build_bundle, write_bundle
from sealbus.policies.decision.approval import approval_of
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.engine import Answer
from sealbus.policies.engines.central import CentralEngine
from sealbus.policies.engines.embedded import EmbeddedEngine
from sealbus.policies.engines.native import NativeEngine
from sealbus.policies.engines.sidecar import SidecarEngine

pytestmark = pytest.mark.opa

WELL_FORMED = 1_200
MUTATED = 800
DEADLINE = 60.0
"""Seconds for all documents of one call: what is tested here is not speed."""


Decide: TypeAlias = Callable[[Sequence[bytes]], Awaitable[list[tuple[Answer, Answer, Answer]]]]


class Asked(NamedTuple):
    """What asks all engines: about messages, and about who may approve them."""

    decide: Decide
    approve: Decide


@asynccontextmanager
async def all_three(policy: Path) -> AsyncIterator[Asked]:
    """Yield what asks the embedded engine, a sidecar and a central OPA, all by the bundle of `policy`.

    Where the native engine is installed, it must say what the embedded one says.
    """
    folder = policy.with_name(f"{policy.name}-bundle")
    folder.mkdir()
    bundle = folder / "policy.tar.gz"
    write_bundle(build_bundle(policy), bundle)
    ca = ThrowawayCa("example.org")
    with (
        OpaServer("--optimize-store-for-read-speed", "--bundle", str(bundle)) as server,
        CentralOpa(ca, bundle) as elsewhere,
    ):
        async with (
            EmbeddedEngine(bundle, deadline=DEADLINE) as embedded,
            SidecarEngine(server.socket, deadline=DEADLINE) as sidecar,
            CentralEngine([elsewhere.url], tls=tls_of(ca), deadline=DEADLINE) as central,
            NativeEngine(bundle, deadline=DEADLINE) if has_wheel() else nullcontext(embedded) as native,
        ):

            async def decide(documents: Sequence[bytes]) -> list[tuple[Answer, Answer, Answer]]:
                answers = [await engine.decide(documents) for engine in (embedded, sidecar, central)]
                assert said(await native.decide(documents)) == said(answers[0])
                return list(zip(*answers, strict=True))

            async def approve(documents: Sequence[bytes]) -> list[tuple[Answer, Answer, Answer]]:
                own = [await native.approve(one) for one in documents]
                assert said(own) == said([await embedded.approve(one) for one in documents])
                return [
                    (await embedded.approve(one), await sidecar.approve(one), await central.approve(one))
                    for one in documents
                ]

            yield Asked(decide, approve)


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    """Yield what asks all engines, on the starter policy with revocations."""
    async with all_three(starter_with_revocations(tmp_path / "starter")) as found:
        yield found


@pytest.fixture
def decide(asked: Asked) -> Decide:
    """Return the function that asks about messages."""
    return asked.decide


def allows(answer: Answer) -> bool:
    """Tell whether an answer allows; an error does not."""
    return isinstance(answer, Decision) and answer.allow is True


def document_of(answer: Answer) -> tuple[bool, tuple[str, ...], list[dict[str, object]], str, str]:
    """Return the whole document that an engine answered; an error is none, and equals nothing."""
    assert isinstance(answer, Decision), answer
    return answer.allow, answer.reasons, [dict(one) for one in answer.obligations], answer.policy, answer.revision


def said(answers: Sequence[Answer]) -> list[object]:
    """Return what an engine answered, but for its name and time; of an error its kind."""
    return [document_of(one) if isinstance(one, Decision) else type(one) for one in answers]


async def test_well_formed_documents_get_equal_decisions(decide: Decide) -> None:
    documents = well_formed(WELL_FORMED)
    answers = await decide(documents)
    for document, (embedded, sidecar, central) in zip(documents, answers, strict=True):
        assert document_of(embedded) == document_of(sidecar) == document_of(central), document
    assert sum(allows(central) for _, _, central in answers) >= WELL_FORMED / 4
    asking = [one for _, _, central in answers for one in document_of(central)[2] if one["type"] == "approval"]
    assert len(asking) >= WELL_FORMED / 40
    for obligation in asking:
        assert approval_of([obligation]) is not None


async def test_what_is_over_the_limit_is_allowed_by_its_approvals_alone(decide: Decide) -> None:
    approved = [one for one, (_, _, central) in await answered(decide, well_formed(WELL_FORMED)) if over(one, central)]
    assert len(approved) >= WELL_FORMED / 100
    bare = [json.dumps(one | {"context": one["context"] | {"approvals": []}}).encode() for one in approved]
    for document, answers in zip(bare, await decide(bare), strict=True):
        assert len({repr(document_of(one)[:3]) for one in answers}) == 1, document
        assert document_of(answers[0])[:2] == (False, ("over_limit",))


async def answered(decide: Decide, documents: Sequence[bytes]) -> list[tuple[Any, tuple[Answer, Answer, Answer]]]:
    return [(json.loads(one), each) for one, each in zip(documents, await decide(documents), strict=True)]


def over(document: Any, answer: Answer) -> bool:
    """Tell whether a payment of over 100,000, the limit, was allowed."""
    action = document["action"]
    return allows(answer) and action["name"] == "payments.pay" and action["properties"]["amount"] > 100_000


async def test_who_may_approve_is_decided_alike(asked: Asked) -> None:
    documents = approval_questions(WELL_FORMED // 2)
    answers = await asked.approve(documents)
    for document, (embedded, sidecar, central) in zip(documents, answers, strict=True):
        assert document_of(embedded) == document_of(sidecar) == document_of(central), document
    allowed = sum(allows(central) for _, _, central in answers)
    assert len(documents) / 4 <= allowed <= len(documents) * 3 / 4


async def test_mutated_questions_who_may_approve_are_allowed_by_all_or_by_none(asked: Asked) -> None:
    documents = mutated_questions(MUTATED // 2)
    answers = await asked.approve(documents)
    for document, (embedded, sidecar, central) in zip(documents, answers, strict=True):
        assert allows(embedded) is allows(sidecar) is allows(central), document
    assert sum(not allows(central) for _, _, central in answers) >= len(documents) / 4


async def test_mutated_documents_are_allowed_by_all_or_by_none(decide: Decide) -> None:
    documents = mutated(MUTATED)
    answers = await decide(documents)
    for document, (embedded, sidecar, central) in zip(documents, answers, strict=True):
        assert allows(embedded) is allows(sidecar) is allows(central), document
    assert sum(not allows(central) for _, _, central in answers) >= MUTATED / 4


async def test_nothing_is_allowed_along_a_chain_that_holds_anything_but_known_agents(decide: Decide) -> None:
    known = json.loads((STARTER / "sealbus" / "registry" / "agents" / "data.json").read_text())
    documents = mutated(MUTATED)
    for document, answers in zip(documents, await decide(documents), strict=True):
        if any(map(allows, answers)):
            chain = json.loads(document)["context"]["chain"]
            # An object would do for an array, as long as what it holds is known.
            hops = chain.values() if isinstance(chain, dict) else chain
            assert all(isinstance(hop, str) and hop in known for hop in hops), document


async def test_where_no_rule_is_left_what_was_allowed_is_denied(decide: Decide, tmp_path: Path) -> None:
    documents = well_formed(300)
    answers = await decide(documents)
    allowed = [document for document, each in zip(documents, answers, strict=True) if all(map(allows, each))]
    assert len(allowed) >= len(documents) / 4
    async with all_three(closed_policy(tmp_path / "closed")) as asked:
        for embedded, sidecar, central in await asked.decide(allowed):
            assert document_of(embedded) == document_of(sidecar) == document_of(central)
            assert document_of(central)[0] is False

"""The starter policy on generated documents: the embedded engine and a real OPA, with strict builtin errors, agree."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from support.opa import OpaServer
from support.policy_inputs import REVOKED, mutated, well_formed

from sealbus.policies.bundle import STARTER, build_bundle, write_bundle
from sealbus.policies.decision import Decision
from sealbus.policies.embedded import EmbeddedEngine
from sealbus.policies.engine import Answer, PolicyEngine
from sealbus.policies.sidecar import SidecarEngine

pytestmark = pytest.mark.opa

WELL_FORMED = 1_200
MUTATED = 800
DEADLINE = 30.0
"""Seconds for all documents of one call: what is tested here is not speed."""


class Pair:
    """Both engines, deciding by one bundle that can be replaced."""

    def __init__(self, folder: Path) -> None:
        self.policy = folder / "policy"
        shutil.copytree(STARTER, self.policy)
        (self.policy / "sealbus" / "registry" / "revoked" / "data.json").write_text(json.dumps(REVOKED))
        (folder / "bundle").mkdir()
        self.bundle = folder / "bundle" / "policy.tar.gz"
        write_bundle(build_bundle(self.policy), self.bundle)
        self.engines: tuple[PolicyEngine, ...] = ()

    async def decide(self, documents: Sequence[bytes]) -> list[tuple[Answer, Answer]]:
        """Return what the embedded engine and OPA answer to each document."""
        embedded, opa = [await engine.decide(documents) for engine in self.engines]
        return list(zip(embedded, opa, strict=True))


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """Yield both engines on the starter policy, with revocations."""
    pair = Pair(tmp_path)
    with OpaServer("--bundle", str(pair.bundle)) as server:
        async with (
            EmbeddedEngine(pair.bundle, deadline=DEADLINE) as embedded,
            SidecarEngine(server.socket, deadline=DEADLINE) as sidecar,
        ):
            pair.engines = (embedded, sidecar)
            yield pair


def allows(answer: Answer) -> bool:
    """Tell whether an answer allows; an error does not."""
    return isinstance(answer, Decision) and answer.allow is True


def document_of(answer: Answer) -> tuple[object, ...]:
    """Return the whole document that an engine answered; an error is none, and equals nothing."""
    assert isinstance(answer, Decision), answer
    return answer.allow, answer.reasons, [dict(one) for one in answer.obligations], answer.policy, answer.revision


async def test_well_formed_documents_get_equal_decisions(pair: Pair) -> None:
    documents = well_formed(WELL_FORMED)
    answers = await pair.decide(documents)
    for document, (embedded, opa) in zip(documents, answers, strict=True):
        assert document_of(embedded) == document_of(opa), document
    assert sum(allows(opa) for _, opa in answers) >= WELL_FORMED / 4


async def test_mutated_documents_are_allowed_by_both_or_by_neither(pair: Pair) -> None:
    documents = mutated(MUTATED)
    answers = await pair.decide(documents)
    for document, (embedded, opa) in zip(documents, answers, strict=True):
        assert allows(embedded) is allows(opa), document
    assert sum(not allows(opa) for _, opa in answers) >= MUTATED / 4


async def test_mutation_never_allows_what_was_refused_for_its_chain(pair: Pair) -> None:
    """A chain of anything but known agents is refused, whatever stands in its place."""
    documents = [json.loads(document) for document in mutated(MUTATED)]
    answers = await pair.decide([json.dumps(document).encode() for document in documents])
    for document, both in zip(documents, answers, strict=True):
        if any(map(allows, both)):
            chain = document["context"]["chain"]
            assert all(isinstance(hop, str) and hop.startswith("spiffe://example.org/") for hop in chain), document

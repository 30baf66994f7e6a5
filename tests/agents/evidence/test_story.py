"""What is told of a message: all that verifies, and what does not where it stands."""

from __future__ import annotations

import json
from random import Random

import pytest
from support.log_world import World
from support.memory_files import MemoryFiles
from support.receipts import ROOT, WORLD, looked_up, message_ids
from vectors.issuing import INVENTORY
from vectors.recorded import decision, evidence

from sealbus.agents.evidence.lookup import look_up, verify_lookup
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.trust.spiffe_id import SpiffeId


@pytest.mark.slow
def test_a_decision_with_its_chain_and_its_outcomes() -> None:
    outcomes = 0
    for message, ident in zip(WORLD.messages, message_ids(), strict=True):
        told = verify_lookup(looked_up(ident), ROOT)
        [decided] = told.decisions
        assert decided.recorder == SpiffeId(INVENTORY)
        assert decided.decided.header.id == ident
        assert len(decided.decided.chain) == len(message.ancestors) + 1
        assert (told.others, told.refused) == ([], [])
        outcomes += len(decided.outcomes)
    assert outcomes


@pytest.mark.slow
def test_records_of_no_decision_stand_alone() -> None:
    lookup = looked_up(message_ids()[0])
    [*_, outcome] = [found for ident in message_ids() for found in looked_up(ident).found[1:]]
    lookup = looked_up(outcome.leaf)
    told = verify_lookup(lookup, ROOT)
    assert {found.leaf for found in told.others} == {outcome.leaf}
    assert told.decisions == []


def test_what_does_not_verify_is_not_told_as_if_it_did() -> None:
    made = World(Random(1))  # noqa: S311
    made.creation()
    made.record_bundle("k0")
    task, _ = made.task(user=False, chain=0)
    made.put(made.audit(INVENTORY, evidence(task), [decision(task, sto=made.time, prf=[1, 0, [], bytes([1]) * 64])]))
    ident = task.entries()["id"]
    assert isinstance(ident, bytes)
    root = Root.parse(json.dumps(made.root()).encode())
    told = verify_lookup(look_up(MemoryFiles(made.files()), root, ident), root)
    [(found, error)] = told.refused
    assert (found.frame.sequence, error.code, told.decisions) == (2, "bad_signature", [])

"""Receipts against the root: what they prove, and that nothing in them can be another."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest
from support.log_world import LogKey, World, bundle
from support.receipts import ROOT, WORLD, message_ids, receipts_of, unchecked
from vectors.issuing import INVENTORY, PLANNER, Json
from vectors.recorded import decision, evidence, record_map

from sealbus.envelopes.decision_record import DecisionRecord
from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.export.receipt_check import check_receipt
from sealbus.envelopes.export.record_receipt import RecordReceipt
from sealbus.envelopes.export.root import Root
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.wire import Credential

REFUSED = (EnvelopeError, LogError)
[(FOUND, GOOD), *_] = receipts_of(message_ids()[0])


def test_what_it_proves() -> None:
    for ident in message_ids()[::9]:
        for found, receipt in receipts_of(ident):
            proven = check_receipt(receipt, ROOT)
            assert (proven.record, proven.recorder) == (found.record, SpiffeId(INVENTORY))
            assert (proven.sequence, proven.stored) == (found.frame.sequence, found.frame.stored)
            assert proven.checkpoint.size == len(WORLD.frames)
            assert (proven.decided is not None) == isinstance(found.record, DecisionRecord)
            if proven.decided is not None:
                assert proven.decided.header.id == ident


def test_it_shows_no_other_record() -> None:
    for ident in message_ids()[::9]:
        for found, receipt in receipts_of(ident):
            items = RecordReceipt.parse(receipt).message.items
            assert [item.index for item in items if item.index >= found.evidence] == [found.item]
            for number, other in enumerate(found.items[found.evidence :], found.evidence):
                assert number == found.item or other not in receipt


def test_every_byte_counts() -> None:
    rng = Random(5)  # noqa: S311  a run that can be made again
    for place in (*range(0, len(GOOD), 37), *(rng.randrange(len(GOOD)) for _ in range(300))):
        changed = bytearray(GOOD)
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(REFUSED):
            check_receipt(bytes(changed), ROOT)
    for cut in range(0, len(GOOD), 101):
        with pytest.raises(REFUSED):
            check_receipt(GOOD[:cut], ROOT)


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": "log.example.org/other"},
        {"notaries": [PLANNER]},
        {"keys": [LogKey("another").vkey]},
        {"minters": []},
        {"agents": {"template": "/other/{name}", "table": {}}},
    ],
)
def test_another_root(changes: dict[str, Json]) -> None:
    other = Root.parse(json.dumps(WORLD.root() | changes).encode())
    refused = 0
    for ident in message_ids()[:8]:
        for _, receipt in receipts_of(ident):
            try:
                check_receipt(receipt, other)
            except REFUSED:
                refused += 1
    assert refused


def world() -> World:
    made = World(Random(1))  # noqa: S311
    made.creation()
    made.record_bundle("k0")
    return made


def root_of(made: World) -> Root:
    return Root.parse(json.dumps(made.root()).encode())


def refused(made: World, receipt: RecordReceipt) -> Code:
    with pytest.raises(REFUSED) as raised:
        check_receipt(receipt.encode(), root_of(made))
    return raised.value.code


def test_records_of_every_kind_can_have_one() -> None:
    made = world()
    made.denials()
    made.record_policy()
    for index in (1, 2, 3):
        proven = check_receipt(unchecked(made, index, [0]).encode(), root_of(made))
        assert proven.sequence == index


def test_what_only_the_notary_may_record() -> None:
    made = world()
    made.put(made.audit(INVENTORY, [], [record_map("policy", rev="r", sha=bytes(32), siz=1, loc="")]))
    assert refused(made, unchecked(made, 2, [0])) is Code.BAD_ENTRY


def test_a_bundle_that_vouches_must_be_the_notarys_and_a_bundle() -> None:
    made = world()
    made.denials()
    made.put(made.audit(INVENTORY, [], [record_map("bundle", dom="example.org", cur=0, jwt=bundle("k0"))]))
    assert refused(made, unchecked(made, 2, [0], bundle=3)) is Code.BAD_ENTRY
    assert refused(made, unchecked(made, 2, [0], bundle=2)) is Code.BAD_NOTE
    receipt = unchecked(made, 2, [0])
    [vouching] = receipt.bundles
    twice = replace(vouching.message, items=vouching.message.items * 2)
    assert refused(made, replace(receipt, bundles=(replace(vouching, message=twice),))) is Code.BAD_NOTE
    other = replace(vouching.message, credential=Credential(1, b"another"))
    assert refused(made, replace(receipt, bundles=(replace(vouching, message=other),))) is Code.BAD_CREDENTIAL


def test_nothing_vouches() -> None:
    made = world()
    made.denials()
    assert refused(made, replace(unchecked(made, 2, [0]), bundles=())) is Code.UNKNOWN_TRUST_DOMAIN


def test_garbage_cannot_have_one() -> None:
    made = world()
    made.denials()
    made.frames[-1] = made.frames[-1]._replace(kind=0)
    assert refused(made, unchecked(made, 2, [0])) is Code.BAD_PROOF


def test_a_message_that_is_no_record() -> None:
    made = world()
    task, _ = made.task(user=False, chain=0)
    made.denials()
    receipt = unchecked(made, 2, [0])
    message = replace(receipt.message, header=task.raw(), proof=task.prf(), credential=task.cred())
    assert refused(made, replace(receipt, message=message)) is Code.WRONG_KIND


def test_a_decision_by_another_than_the_message_was_for() -> None:
    made = world()
    task, _ = made.task(user=False, chain=0)
    made.put(made.audit(PLANNER, evidence(task), [decision(task, sto=made.time)]))
    assert refused(made, unchecked(made, 2, [0, 1])) is Code.WRONG_AUDIENCE


def test_evidence_where_none_is_needed_and_none_where_it_is() -> None:
    made = world()
    task, _ = made.task(user=False, chain=0)
    records = [decision(task, sto=made.time), record_map("denials", iss=PLANNER, min=0, cnt={"denied": 1})]
    made.put(made.audit(INVENTORY, evidence(task), records))
    assert refused(made, unchecked(made, 2, [0, 2])) is Code.BAD_NOTE
    assert refused(made, unchecked(made, 2, [1])) is Code.BAD_CREDENTIAL
    assert check_receipt(unchecked(made, 2, [0, 1]).encode(), root_of(made)).decided is not None

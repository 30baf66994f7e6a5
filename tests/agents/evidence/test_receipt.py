"""Receipts made out of an export: small, complete, and never of what does not verify."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from random import Random

import pytest
from support.log_world import World
from support.memory_files import MemoryFiles
from support.receipts import FILES, ROOT, looked_up, message_ids, receipts_of
from vectors.issuing import INVENTORY
from vectors.recorded import decision, evidence

from sealbus.agents.evidence.lookup import FoundRecord, look_up
from sealbus.agents.evidence.receipt import make_receipt
from sealbus.envelopes.errors import EnvelopeError, LogError
from sealbus.envelopes.export.entries import check_decision, open_frame
from sealbus.envelopes.export.receipt import RecordReceipt, check_receipt
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.records.body import parse_evidence
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.trust.caches import Caches


@pytest.mark.slow
def test_they_are_a_few_kilobytes_and_hold_what_is_needed() -> None:
    for ident in message_ids()[::5]:
        for found, receipt in receipts_of(ident):
            assert len(receipt) < 20_000
            parsed = RecordReceipt.parse(receipt)
            # One for each key that the notary had since the bundle that the root file names.
            assert 1 <= len(parsed.bundles) <= 3
            assert bool(len(parsed.message.items) > 1) == isinstance(found.record, DecisionRecord)


@pytest.mark.slow
def test_of_the_evidence_of_others_nothing_is_shown() -> None:
    left_out = 0
    for ident in message_ids():
        found, receipt = receipts_of(ident)[0]
        shown = {item.data for item in RecordReceipt.parse(receipt).message.items}
        for number, item in enumerate(found.items[: found.evidence]):
            rest = {one for at, one in enumerate(found.items[: found.evidence]) if at != number and one in shown}
            left_out += item not in shown
            # Each item that is shown is needed: without it the decided message cannot be proved again.
            if item in shown:
                assert not proves(found, rest)
        assert proves(found, shown)
    assert left_out


def proves(found: FoundRecord, evidence: set[bytes]) -> bool:
    """Tell whether a decision can be proved again with these items of evidence."""
    archive, caches = looked_up(bytes(16)).trust.archive, Caches()
    audit = open_frame(found.frame, ROOT, archive, caches)
    items = [one for one in found.items[: found.evidence] if one in evidence]
    body = replace(audit.body, evidence=parse_evidence(items))
    assert isinstance(found.record, DecisionRecord)
    try:
        check_decision(found.record, audit._replace(body=body), ROOT, archive, caches)
    except EnvelopeError:
        return False
    return True


@pytest.mark.slow
def test_of_several_bundles_only_those_that_lead_to_it_are_shown() -> None:
    shown = {
        tuple(one.message.index for one in RecordReceipt.parse(receipt).bundles)
        for one in message_ids()
        for _, receipt in receipts_of(one)
    }
    first, second, third = sorted(shown, key=len)
    assert len(looked_up(message_ids()[0]).bundles) == 5
    assert (first, second) == (third[:1], third[:2])


def test_a_root_file_that_names_a_later_bundle_makes_it_short() -> None:
    *_, last = looked_up(message_ids()[-1]).bundles
    root = replace(ROOT, bundles=ROOT.bundles | {sha256(last.record.jwt).digest()})
    ident = message_ids()[-1]
    lookup = look_up(FILES, root, ident)
    receipt = make_receipt(FILES, root, lookup, lookup.found[-1])
    assert [one.message.index for one in RecordReceipt.parse(receipt).bundles] == [last.index]
    with pytest.raises(EnvelopeError):
        check_receipt(receipt, ROOT)


def test_none_is_made_of_what_does_not_verify() -> None:
    made = World(Random(1))  # noqa: S311
    made.creation()
    made.record_bundle("k0")
    task, _ = made.task(user=False, chain=0)
    made.put(made.audit(INVENTORY, evidence(task), [decision(task, sto=made.time, prf=[1, 0, [], bytes([1]) * 64])]))
    ident = task.entries()["id"]
    assert isinstance(ident, bytes)
    files, root = MemoryFiles(made.files()), Root.parse(json.dumps(made.root()).encode())
    lookup = look_up(files, root, ident)
    with pytest.raises(EnvelopeError):
        make_receipt(files, root, lookup, lookup.found[0])


def test_none_is_made_from_tiles_that_are_not_there_or_are_others() -> None:
    lookup = looked_up(message_ids()[0])
    for name in [one for one in FILES.files if one.startswith("tile/0/")]:
        rest = {one: data for one, data in FILES.files.items() if one != name}
        for files in (MemoryFiles(rest), MemoryFiles(rest | {name: bytes(len(FILES.files[name]))})):
            with pytest.raises(LogError):
                make_receipt(files, ROOT, lookup, lookup.found[0])


def test_it_is_checked_with_nothing_but_the_root() -> None:
    [(found, receipt), *_] = receipts_of(message_ids()[0])
    assert check_receipt(receipt, Root.parse(ROOT.encode())).record == found.record

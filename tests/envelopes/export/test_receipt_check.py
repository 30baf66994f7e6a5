"""Receipts against the root: what they prove, and that nothing in them can be another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from hashlib import sha256
from random import Random

import pytest
from support.log_world import NOTARY, LogKey, World, bundle, note
from support.receipts import ROOT, WORLD, frame_of, message_ids, receipts_of, unchecked
from vectors.issuing import INVENTORY, PLANNER, Json
from vectors.recorded import decision, evidence, record_map

from sealbus.agents.evidence.lookup import items_of
from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.export.receipt import RecordReceipt, check_cose_receipt, check_receipt
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.cose_receipt import sign_cose_receipt
from sealbus.envelopes.log.note import NoteSigner, NoteVerifier
from sealbus.envelopes.log.receipt import Receipt
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.trust.proof import Credential
from sealbus.envelopes.trust.spiffe_id import SpiffeId

REFUSED = (EnvelopeError, LogError)
DIGITS = [[byte] for byte in b"0123456789"]
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
            items = {item.data for item in RecordReceipt.parse(receipt).message.items}
            assert items - {*found.items[: found.evidence]} == {found.items[found.item]}
            for number, other in enumerate(found.items[found.evidence :], found.evidence):
                assert number == found.item or other not in receipt


LONG = 24
"""Words of base64 are longer, and but for signatures hashed whole; all others are short."""


def spellings(receipt: bytes, rng: Random) -> Iterator[bytes]:
    """Yield `receipt` with a byte changed, left out or put in, every place of its short words, and lines and words moved."""
    place = 0
    for line in receipt.split(b"\n"):
        for word in line.split(b" "):
            for at in range(place, place + len(word) + 1):
                before, byte, after = receipt[:at], receipt[at : at + 1], receipt[at + 1 :]
                if len(word) <= LONG:
                    yield from (before + other + after for other in map(bytes, DIGITS) if other != byte)
                    yield from (before + byte + more + after for more in (b"0", b" ", b"\n", byte) if byte)
                elif rng.randrange(16):
                    continue
                yield before + after
                yield before + bytes([receipt[at] ^ 1 << rng.randrange(8)] if byte else b"\0") + after
            place += len(word) + 1
    lines = receipt.split(b"\n")
    for at in range(len(lines) - 1):
        signed = lines[at].startswith("\u2014".encode())
        if not (signed and lines[at + 1].startswith("\u2014".encode())):
            yield b"\n".join([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]])
        if not lines[at].startswith(b"earlier") and not signed:
            # Without one of those it is another receipt, which rests on less.
            yield b"\n".join([*lines[:at], *lines[at + 1 :]])
        yield b"\n".join([*lines[:at], lines[at], *lines[at:]])
        words = lines[at].split(b" ")
        for number in range(len(words) - 1):
            moved = [*words[:number], words[number + 1], words[number], *words[number + 2 :]]
            yield b"\n".join([*lines[:at], b" ".join(moved), *lines[at + 1 :]])
    for cut in range(0, len(receipt), 101):
        yield receipt[:cut]


@pytest.mark.slow
def test_every_byte_counts() -> None:
    rng = Random(5)  # noqa: S311  a run that can be made again
    made = world()
    for _ in range(2):
        made.decided(3, sealed_together=True)
    last = len(made.frames) - 1
    count = len(items_of(frame_of(made, last))[0])
    tried = 0
    for receipt in (unchecked(made, last, [count - 1], held=[2, 3]).encode(), GOOD):
        root = ROOT if receipt is GOOD else root_of(made)
        check_receipt(receipt, root)
        others = [other for other in spellings(receipt, rng) if other != receipt]
        assert [other for other in others if verifies(other, root)] == []
        tried += len(others)
    assert tried > 5_000


def verifies(receipt: bytes, root: Root) -> bool:
    try:
        check_receipt(receipt, root)
    except REFUSED:
        return False
    return True


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


def refused(made: World, receipt: RecordReceipt) -> str:
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
    again = replace(receipt, bundles=(vouching, vouching))
    assert refused(made, again) is Code.BAD_NOTE
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


def test_a_root_file_that_holds_checkpoints_is_asked_for_each() -> None:
    made = world()
    sizes = [2, 3, 4, 5, 6]
    for _ in range(4):
        made.denials()
    held = {size: note(size, made.root_at(size), made.keys) for size in sizes}
    for sized in (held[6], held[2], held[4]):
        root = Root.parse(json.dumps(made.root(sized)).encode())
        proven = check_receipt(unchecked(made, 3, [0], held=[2, 4]).encode(), root)
        assert proven.checkpoint.size == 6
    every = Root.parse(json.dumps(made.root(*held.values())).encode())
    check_receipt(unchecked(made, 3, [0], held=[2, 3, 4, 5]).encode(), every)
    # What nobody holds is proved all the same, and the empty log has nothing to be another than.
    check_receipt(unchecked(made, 3, [0], held=[2, 3]).encode(), root_of(made))
    nothing = note(0, sha256().digest(), made.keys)
    check_receipt(unchecked(made, 3, [0]).encode(), Root.parse(json.dumps(made.root(nothing)).encode()))
    for sized, shown in ((held[3], [2, 4]), (held[2], []), (held[5], [2])):
        root = Root.parse(json.dumps(made.root(sized)).encode())
        with pytest.raises(LogError) as raised:
            check_receipt(unchecked(made, 3, [0], held=shown).encode(), root)
        assert raised.value.code is Code.INCONSISTENT_LOG


def test_a_forked_log() -> None:
    made = world()
    for _ in range(4):
        made.denials()
    fork = deepcopy(made)
    del fork.frames[4:]
    fork.sequence -= 2
    fork.record_policy()
    fork.denials()
    assert len(fork.frames) == len(made.frames)
    for size in (6, 5):
        root = Root.parse(json.dumps(made.root(note(size, made.root_at(size), made.keys))).encode())
        check_receipt(unchecked(made, 3, [0], held=[5]).encode(), root)
        for index in (3, 4, 5):
            forged = unchecked(fork, index, [0], held=[5])
            check_receipt(forged.encode(), root_of(made))
            with pytest.raises(LogError) as raised:
                check_receipt(forged.encode(), root)
            assert raised.value.code is Code.INCONSISTENT_LOG


def test_a_rolled_back_log() -> None:
    made = world()
    made.denials()
    receipt = unchecked(made, 2, [0])
    made.denials()
    later = Root.parse(json.dumps(made.root(note(4, made.root_at(4), made.keys))).encode())
    with pytest.raises(LogError, match="rolled back") as raised:
        check_receipt(receipt.encode(), later)
    assert raised.value.code is Code.INCONSISTENT_LOG


def test_earlier_checkpoints_are_of_the_log_and_in_order() -> None:
    made = world()
    for _ in range(4):
        made.denials()
    good = unchecked(made, 3, [0], held=[2, 4])
    first, second = good.earlier
    check_receipt(good.encode(), root_of(made))
    for earlier in (
        (second, first),
        (first, first),
        (replace(first, size=0),),
        (replace(first, size=6, root=made.root_at(6), path=()),),
        (replace(first, size=7),),
        (replace(first, size=3),),
        (replace(first, root=bytes(32)),),
        (replace(first, root=b""),),
        (replace(first, path=first.path[1:]),),
        (replace(first, path=(*first.path, bytes(32))),),
    ):
        with pytest.raises(LogError) as raised:
            check_receipt(replace(good, earlier=earlier).encode(), root_of(made))
        assert raised.value.code in (Code.BAD_NOTE, Code.BAD_PROOF)


def test_another_deployments_history_under_a_stolen_log_key() -> None:
    made = world()
    made.denials()
    stolen = World(Random(2), keys=made.keys, issuer="x")  # noqa: S311
    stolen.creation()
    stolen.record_bundle("x0")
    stolen.denials()
    forged = unchecked(stolen, 2, [0])
    check_receipt(forged.encode(), root_of(stolen))
    assert refused(made, forged) is Code.UNKNOWN_TRUST_DOMAIN
    # Not with the true first bundle before the others, either: it does not vouch for them.
    stolen.frames[1:1] = [made.frames[1]]
    stolen.frames[2:] = [frame._replace(sequence=frame.sequence + 1) for frame in stolen.frames[2:]]
    alone = unchecked(stolen, 3, [0], bundle=1)
    assert refused(made, alone) is Code.UNKNOWN_KEY
    both = replace(alone, bundles=(*alone.bundles, *unchecked(stolen, 3, [0], bundle=2).bundles))
    assert refused(made, both) is Code.UNKNOWN_TRUST_DOMAIN


def test_a_cose_receipt_is_of_the_same_entry_at_the_same_checkpoint() -> None:
    proven = check_receipt(GOOD, ROOT)
    key = WORLD.keys[0]
    signer = NoteSigner(key.name, key.private.private_bytes_raw())
    made = sign_cose_receipt(RecordReceipt.parse(GOOD).log, proven.leaf, origin=ROOT.origin, signer=signer)
    check_cose_receipt(made.encode(), proven, ROOT)
    [(_, another), *_] = receipts_of(message_ids()[9])
    alone = sign_checkpoint(Checkpoint(key.name, 1, proven.leaf), [signer])
    smaller = sign_cose_receipt(Receipt(0, (), alone), proven.leaf, origin=ROOT.origin, signer=signer)
    for data, shown, root, code in (
        (made.encode(), check_receipt(another, ROOT), ROOT, Code.BAD_NOTE_SIGNATURE),
        (smaller.encode(), proven, ROOT, Code.BAD_PROOF),
        (made.encode()[:-1], proven, ROOT, Code.BAD_NOTE),
        (made.encode(), proven, replace(ROOT, keys=(NoteVerifier.parse(LogKey("x").vkey),)), Code.UNTRUSTED_NOTE),
    ):
        with pytest.raises(LogError) as raised:
            check_cose_receipt(data, shown, root)
        assert raised.value.code is code


def test_bundles_vouch_for_each_other_in_their_order() -> None:
    made = world()
    made.rotate()
    made.denials()
    last = len(made.frames) - 1
    shown = {index: unchecked(made, last, [0], bundle=index).bundles[0] for index in (1, 2, 3)}
    receipt = unchecked(made, last, [0])
    check_receipt(replace(receipt, bundles=(shown[1], shown[2])).encode(), root_of(made))
    check_receipt(replace(receipt, bundles=(shown[1], shown[2], shown[3])).encode(), root_of(made))
    for bundles, code in (
        ((shown[1],), Code.UNKNOWN_KEY),
        ((shown[2],), Code.UNKNOWN_TRUST_DOMAIN),
        ((shown[1], shown[3]), Code.UNKNOWN_TRUST_DOMAIN),
        ((shown[2], shown[1]), Code.BAD_NOTE),
        ((shown[1], shown[3], shown[2]), Code.BAD_NOTE),
    ):
        assert refused(made, replace(receipt, bundles=bundles)) is code


def test_a_bundle_that_is_none() -> None:
    made = world()
    made.put(made.audit(NOTARY, [], [record_map("bundle", dom="example.org", cur=made.time, jwt=b"{}")]))
    made.denials()
    receipt = unchecked(made, 3, [0])
    bad = unchecked(made, 3, [0], bundle=2).bundles
    assert refused(made, replace(receipt, bundles=(*receipt.bundles, *bad))) is Code.BAD_ENTRY

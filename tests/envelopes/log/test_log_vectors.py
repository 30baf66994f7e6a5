"""Every vector of the log says what the library says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from independent import cose_receipts
from independent.verify_export import Bad, read_vkey
from support.vectors import FOLDER

from sealbus.envelopes.errors import LogError
from sealbus.envelopes.log.checkpoint import open_checkpoint
from sealbus.envelopes.log.cose_receipt import CoseReceipt, verify_cose_receipt
from sealbus.envelopes.log.entries import Entry, EntryKind, EntryOrder
from sealbus.envelopes.log.note import NoteVerifier, verify_note
from sealbus.envelopes.log.receipt import parse_receipt, verify_receipt
from sealbus.envelopes.log.tiles import TileName
from sealbus.envelopes.log.tree_proofs import verify_consistency, verify_inclusion

Given = dict[str, Any]
LOG: Given = json.loads((FOLDER / "log.json").read_text(encoding="utf-8"))


def keys(part: str) -> list[NoteVerifier]:
    return [NoteVerifier.parse(text) for text in LOG[part]["verifiers"]]


def entry(row: Given) -> Entry:
    return Entry(EntryKind(row["kind"]), row["sequence"], row["time"], bytes.fromhex(row["digest"]), row["count"])


def check_note(case: Given) -> Given:
    note = verify_note(bytes.fromhex(case["hex"]), keys("notes"))
    return {"text": note.text, "signers": [one.name for one in note.signers]}


def check_checkpoint(case: Given) -> Given:
    data, origin = bytes.fromhex(case["hex"]), LOG["checkpoints"]["origin"]
    found = open_checkpoint(data, origin=origin, verifiers=keys("checkpoints")).checkpoint
    return {"size": found.size, "root": found.root.hex()}


def check_receipt(case: Given) -> Given:
    receipt = parse_receipt(bytes.fromhex(case["hex"]))
    origin, leaf = LOG["receipts"]["origin"], bytes.fromhex(case["leaf"])
    return {"size": verify_receipt(receipt, leaf, origin=origin, verifiers=keys("receipts")).size}


def check_cose_receipt(case: Given) -> Given:
    receipt = CoseReceipt.parse(bytes.fromhex(case["hex"]))
    origin, leaf = LOG["cose_receipts"]["origin"], bytes.fromhex(case["leaf"])
    found = verify_cose_receipt(receipt, leaf, origin=origin, verifiers=keys("cose_receipts"))
    return {"size": found.size, "root": found.root.hex()}


CHECKS: dict[str, Callable[[Given], Given]] = {
    "notes": check_note,
    "checkpoints": check_checkpoint,
    "receipts": check_receipt,
    "cose_receipts": check_cose_receipt,
}


def cases(verdict: str) -> list[Any]:
    return [pytest.param(part, case, id=f"{part}: {case['name']}") for part in CHECKS for case in LOG[part][verdict]]


@pytest.mark.parametrize(("part", "case"), cases("accept"))
def test_accepted(part: str, case: Given) -> None:
    found = CHECKS[part](case)
    assert found == {name: case[name] for name in found}


@pytest.mark.parametrize(("part", "case"), cases("reject"))
def test_refused(part: str, case: Given) -> None:
    with pytest.raises(LogError) as caught:
        CHECKS[part](case)
    assert caught.value.code == case["code"]


def both(data: bytes, leaf: bytes) -> tuple[Given, Given]:
    """Return what our verifier of COSE receipts says, and another that is written from the specification alone."""
    origin, texts = LOG["cose_receipts"]["origin"], LOG["cose_receipts"]["verifiers"]
    try:
        ours = check_cose_receipt({"hex": data.hex(), "leaf": leaf.hex()})
    except LogError as error:
        ours = {"code": str(error.code)}
    try:
        found = cose_receipts.verify_cose(data, leaf, origin=origin, keys=[read_vkey(text) for text in texts])
        theirs = {"size": found.size, "root": found.root.hex()}
    except Bad as error:
        theirs = {"code": error.code}
    return ours, theirs


def test_another_verifier_of_cose_receipts_says_the_same() -> None:
    for verdict in ("accept", "reject"):
        for case in LOG["cose_receipts"][verdict]:
            ours, theirs = both(bytes.fromhex(case["hex"]), bytes.fromhex(case["leaf"]))
            assert theirs == ours, case["name"]


@given(st.data())
def test_another_verifier_refuses_the_same_altered_cose_receipts(data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(LOG["cose_receipts"]["accept"]))
    good, leaf = bytes.fromhex(case["hex"]), bytes.fromhex(case["leaf"])
    at = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(at, min(len(good), at + 9)))
    altered = good[:at] + data.draw(st.binary(max_size=9)) + good[end:]
    ours, theirs = both(altered, leaf)
    assert theirs == ours
    assert ("code" in ours) is (altered != good)


def test_entries() -> None:
    assert {EntryKind(row["kind"]) for row in LOG["entries"]} == set(EntryKind) - {EntryKind.LOST}
    for row in LOG["entries"]:
        assert (entry(row).hash.hex(), entry(row).leaf.hex()) == (row["entry"], row["leaf"])


@pytest.mark.parametrize("case", LOG["logs"], ids=lambda case: case["name"])
def test_orders(case: Given) -> None:
    order = EntryOrder()
    *before, last = case["entries"]
    for row in before:
        order.take_entry(entry(row))
    if case["good"]:
        order.take_entry(entry(last))
        return
    with pytest.raises(LogError):
        order.take_entry(entry(last))


@pytest.mark.parametrize("tree", LOG["trees"], ids=lambda tree: str(tree["size"]))
def test_trees(tree: Given) -> None:
    size, root = tree["size"], bytes.fromhex(tree["root"])
    for row in tree["inclusion"]:
        path = [bytes.fromhex(node) for node in row["path"]]
        verify_inclusion(bytes.fromhex(row["leaf"]), row["index"], size, path, root)
    for row in tree["consistency"]:
        path = [bytes.fromhex(node) for node in row["path"]]
        verify_consistency(row["old"], bytes.fromhex(row["old_root"]), size, root, path)


def test_paths_and_keys() -> None:
    for row in LOG["paths"]["accept"]:
        assert TileName.parse(row["path"]) == TileName(row["level"], row["index"], row["width"])
    for row in LOG["keys"]["accept"]:
        key = NoteVerifier.parse(row["key"])
        assert (key.name, key.key_id.hex(), key.public.hex()) == (row["name"], row["id"], row["public"])
    for text in LOG["paths"]["reject"]:
        with pytest.raises(LogError):
            TileName.parse(text)
    for text in LOG["keys"]["reject"]:
        with pytest.raises(LogError):
            NoteVerifier.parse(text)

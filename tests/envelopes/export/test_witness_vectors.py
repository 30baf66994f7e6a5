"""Every vector of cosigned logs says what both verifiers say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from independent import verify_export as independent
from support.memory_files import MemoryFiles
from support.vectors import Given, load

from sealbus.agents.evidence.verify import verify_export
from sealbus.envelopes.errors import LogError
from sealbus.envelopes.export.receipt import check_receipt
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.note import NoteVerifier
from sealbus.envelopes.log.witness_policy import WitnessPolicy, open_cosigned

WITNESSES, EXPORTS = load("witnesses.json"), load("exports.json")
FILES = {name: bytes.fromhex(data) for name, data in EXPORTS["files"].items()}


def cases(part: str, verdict: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in WITNESSES[part][verdict]]


def root_bytes(**changes: Any) -> bytes:
    return json.dumps(EXPORTS["root"] | WITNESSES["root"] | changes).encode()


@pytest.mark.parametrize("case", cases("policies", "accept"))
def test_policies(case: Given) -> None:
    ours, theirs = WitnessPolicy.parse(case["text"].encode()), independent.read_policy(case["text"])
    for row in case["quorums"]:
        assert ours.has_quorum(row["cosigners"]) == theirs.enough(frozenset(row["cosigners"])) == row["enough"]


@pytest.mark.parametrize("case", cases("policies", "reject"))
def test_what_is_no_policy(case: Given) -> None:
    with pytest.raises(LogError) as raised:
        WitnessPolicy.parse(case["text"].encode())
    assert raised.value.code == "bad_note"
    with pytest.raises((independent.Bad, ValueError)):
        independent.read_policy(case["text"])


def checkpoints() -> tuple[str, list[NoteVerifier], WitnessPolicy]:
    part = WITNESSES["checkpoints"]
    return (
        part["origin"],
        [NoteVerifier.parse(key) for key in part["keys"]],
        WitnessPolicy.parse(part["policy"].encode()),
    )


@pytest.mark.parametrize("case", cases("checkpoints", "accept"))
def test_checkpoints(case: Given) -> None:
    origin, keys, policy = checkpoints()
    signed = open_cosigned(bytes.fromhex(case["hex"]), origin, keys, policy)
    assert (signed.checkpoint.size, sorted(signed.cosigners)) == (case["size"], sorted(case["cosigners"]))
    theirs = independent.read_checkpoint(bytes.fromhex(case["hex"]), independent.read_root(root_bytes()))
    assert (theirs.size, sorted(theirs.cosigners)) == (case["size"], sorted(case["cosigners"]))


@pytest.mark.parametrize("case", cases("checkpoints", "reject"))
def test_other_checkpoints(case: Given) -> None:
    origin, keys, policy = checkpoints()
    with pytest.raises(LogError) as raised:
        open_cosigned(bytes.fromhex(case["hex"]), origin, keys, policy)
    with pytest.raises(independent.Bad) as theirs:
        independent.read_checkpoint(bytes.fromhex(case["hex"]), independent.read_root(root_bytes()))
    assert raised.value.code == theirs.value.code == case["code"]


@pytest.mark.parametrize("case", [*cases("exports", "accept"), *cases("exports", "reject")])
def test_exports(case: Given) -> None:
    files = FILES | {name: bytes.fromhex(data) for name, data in case["files"].items()}
    report = verify_export(MemoryFiles(files), Root.parse(root_bytes(**case["root"])), processes=1)
    theirs = independent.verify(files, independent.read_root(root_bytes(**case["root"])))
    expected = {case["code"]} if "code" in case else set()
    assert {str(finding.code) for finding in report.findings} == {code for _, code, _ in theirs.findings} == expected
    assert report.following == theirs.following == case.get("following", 0)


@pytest.mark.parametrize("case", cases("receipts", "accept"))
def test_receipts(case: Given) -> None:
    assert check_receipt(case["text"].encode(), Root.parse(root_bytes())).checkpoint.size == EXPORTS["expect"]["size"]


@pytest.mark.parametrize("case", cases("receipts", "reject"))
def test_other_receipts(case: Given) -> None:
    with pytest.raises(LogError) as raised:
        check_receipt(case["text"].encode(), Root.parse(root_bytes()))
    assert raised.value.code == case["code"]

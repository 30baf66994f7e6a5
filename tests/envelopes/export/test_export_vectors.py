"""Every vector of exports says what both verifiers say, and every receipt proves what it should."""

from __future__ import annotations

import json

import pytest
from independent import verify_export as independent
from support.memory_files import MemoryFiles
from support.vectors import FOLDER, Given

from sealbus.agents.evidence.verify import verify_export
from sealbus.envelopes.errors import EnvelopeError, LogError
from sealbus.envelopes.export.receipt import check_receipt
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.trust.merkle import leaf_hash

VECTORS: Given = json.loads((FOLDER / "exports.json").read_text(encoding="utf-8"))
FILES = {name: bytes.fromhex(data) for name, data in VECTORS["files"].items()}
ROOT = json.dumps(VECTORS["root"]).encode()


def test_the_export() -> None:
    for held in ([], [VECTORS["held"]]):
        root = json.dumps(VECTORS["root"] | {"checkpoints": held}).encode()
        report = verify_export(MemoryFiles(FILES), Root.parse(root), processes=1)
        theirs = independent.verify(FILES, independent.read_root(root))
        assert report.passed, report.findings
        assert theirs.findings == []
        expect = VECTORS["expect"]
        assert report.checkpoint is not None
        assert report.checkpoint.size == theirs.entries == expect["size"]
        assert report.tally.entries["unverified"] == theirs.garbage == expect["unverified"]
        assert report.tally.records["decision"] == theirs.decisions == expect["decisions"]
        assert report.tally.records["decision"] + report.tally.records["outcome"] == expect["decisions_and_outcomes"]


@pytest.mark.parametrize("case", VECTORS["reject"], ids=lambda case: case["name"])
def test_other_exports(case: Given) -> None:
    changed = {name: bytes.fromhex(data) for name, data in case["files"].items() if data is not None}
    files = {name: data for name, data in (FILES | changed).items() if case["files"].get(name, "") is not None}
    root = json.dumps(VECTORS["root"] | case["root"]).encode()
    report = verify_export(MemoryFiles(files), Root.parse(root), processes=1)
    theirs = independent.verify(files, independent.read_root(root))
    assert case["code"] in {finding.code for finding in report.findings}
    assert theirs.findings


@pytest.mark.parametrize("case", VECTORS["receipts"], ids=lambda case: case["kind"])
def test_receipts(case: Given) -> None:
    root = json.dumps(VECTORS["root"] | case["root"]).encode()
    proven = check_receipt(case["text"].encode(), Root.parse(root))
    assert (proven.record.kind, proven.sequence) == (case["kind"], case["sequence"])
    assert leaf_hash(proven.record.encode()).hex() == case["leaf"]
    assert (proven.decided.header.id.hex() if proven.decided is not None else "") == case["message"]


@pytest.mark.parametrize("case", VECTORS["reject_receipts"], ids=lambda case: case["name"])
def test_other_receipts(case: Given) -> None:
    root = json.dumps(VECTORS["root"] | case["root"]).encode()
    with pytest.raises((EnvelopeError, LogError)) as raised:
        check_receipt(case["text"].encode(), Root.parse(root))
    assert raised.value.code == case["code"]

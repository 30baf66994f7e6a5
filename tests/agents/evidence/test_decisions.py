"""The decisions of an export: those that verify, in order, after what was found."""

from __future__ import annotations

import pytest
from support.kept_log import root_of
from support.log_world import make_world
from support.memory_files import MemoryFiles

from sealbus.agents.evidence.decisions import decision_entries
from sealbus.agents.evidence.verify import verify_export
from sealbus.bus.audit.trail import AuditEntry, AuditFilter, Finding
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import DenialsRecord

WORLD = make_world(9, 262)
ROOT = root_of(WORLD)


async def read(files: dict[str, bytes], wanted: AuditFilter | None = None) -> tuple[list[AuditEntry], list[Finding]]:
    report = verify_export(MemoryFiles(files), ROOT, processes=1)
    entries, findings = list[AuditEntry](), list[Finding]()
    async for entry in decision_entries(MemoryFiles(files), ROOT, report, wanted):
        if isinstance(entry, Finding):
            assert not entries
            findings.append(entry)
        else:
            entries.append(entry)
    return entries, findings


@pytest.mark.slow
async def test_all_decisions_and_what_was_only_counted() -> None:
    report = verify_export(MemoryFiles(WORLD.files()), ROOT, processes=1)
    entries, findings = await read(WORLD.files())
    assert findings == []
    kinds = [type(one.record) for one in entries]
    assert kinds.count(DecisionRecord) == report.tally.records["decision"] > 100
    assert kinds.count(DenialsRecord) == report.tally.records["denials"] > 10
    assert [one.sequence for one in entries] == sorted(one.sequence for one in entries)
    assert all((one.message is not None) == isinstance(one.record, DecisionRecord) for one in entries)
    middle = WORLD.frames[100].stored
    late, _ = await read(WORLD.files(), AuditFilter(since=middle))
    assert late == [one for one in entries if one.stored >= middle]


async def test_what_is_repeated_is_read_once() -> None:
    world = make_world(9, 262)
    at = world.first_decided()
    before, _ = await read(world.files())
    for _ in range(2):
        world.repeat(at)
    after, findings = await read(world.files())
    assert findings == []
    assert [one.leaf for one in after] == [one.leaf for one in before]


@pytest.mark.slow
async def test_what_does_not_verify_is_found_and_left_out() -> None:
    files = WORLD.files()
    whole, _ = await read(files)
    bad = bytearray(files["messages/000"])
    at = bytes(bad).index(b"inventory.update")
    bad[at] ^= 1
    entries, findings = await read(files | {"messages/000": bytes(bad)})
    assert {one.code for one in findings} >= {"bad_digest"}
    assert 0 < len(entries) < len(whole)
    # Cut, too long, gone, and no checkpoint at all.
    for changed in (
        files | {"messages/001": files["messages/001"][:-1]}, files | {"messages/001": files["messages/000"] * 2},
        {name: data for name, data in files.items() if name != "messages/001"},
        {name: data for name, data in files.items() if name != "checkpoint"},
    ):  # fmt: skip
        entries, findings = await read(changed)
        assert findings
        assert len(entries) < len(whole) or "checkpoint" in changed


async def test_a_file_stands_in_a_finding_where_a_subject_would() -> None:
    _, [finding] = await read(WORLD.files() | {"strange": b""})
    assert (finding.subject, finding.sequence, finding.code) == ("strange", 0, "unknown_file")

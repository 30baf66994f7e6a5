"""The audit stream as a backtest reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from support.engines import ScriptedEngine, allow, deny
from support.shop import Shop, Update

from sealbus.bus.audit.trail import AuditEntry, Finding, recorded_decisions
from sealbus.envelopes.errors import Code
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import MINUTE, READ_AGAIN, DenialsRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.backtest.recorded import CountedDenials, Recorded, RecordedDecision, Verdict
from sealbus.testing import TestBus

FINDING = Finding(sequence=3, stored=5, subject="audit.inventory", code="bad_digest", step=9, detail="")


async def entries_of(entries: list[AuditEntry | Finding]) -> AsyncIterator[AuditEntry | Finding]:
    for entry in entries:
        yield entry


async def read(entries: list[AuditEntry | Finding]) -> tuple[list[Recorded], list[Finding]]:
    findings: list[Finding] = []
    return [one async for one in recorded_decisions(entries_of(entries), findings.append)], findings


async def test_decisions_come_with_who_asked_and_who_recorded() -> None:
    engine = ScriptedEngine(lambda one: allow() if one["context"]["user"]["id"] == "alice" else deny("not_owner"))
    async with TestBus(Shop().inventory, engine=engine) as bus:
        client = await bus.client("shop-web")
        for user in ("alice", "bob"):
            await client.submit("inventory.update", Update(item_id="42"), user=bus.user(user, "shop-web"))
            await bus.idle()
        entries: list[AuditEntry | Finding] = list(await bus.audit())
    found, findings = await read(entries)
    assert findings == []
    assert [one.verdict for one in found if isinstance(one, RecordedDecision)] == [Verdict.ALLOW, Verdict.DENY]
    first = found[0]
    assert isinstance(first, RecordedDecision)
    entry = entries[0]
    assert isinstance(entry, AuditEntry)
    assert isinstance(entry.record, DecisionRecord)
    assert (first.caller, first.recorder) == (
        "spiffe://example.org/agent/shop-web", "spiffe://example.org/agent/inventory",
    )  # fmt: skip
    assert (first.sequence, first.time, first.leaf, first.input) == (
        entry.sequence, entry.stored, entry.leaf, entry.record.input,
    )  # fmt: skip
    # A decision whose message its reader did not prove is none.
    assert await read([replace(entry, decided=None)]) == ([], [])


async def test_findings_are_told_apart_and_counted_denials_are_added_up() -> None:
    flood = SpiffeId("spiffe://example.org/agent/flood")
    denials = AuditEntry(
        sequence=7,
        stored=5,
        recorder=SpiffeId("spiffe://example.org/agent/inventory"),
        leaf=b"l",
        record=DenialsRecord(iss=flood, minute=MINUTE, counts={Code.DENIED: 41, Code.BAD_BODY: 1}),
    )
    again = replace(denials, record=DenialsRecord(iss=flood, minute=MINUTE, counts={READ_AGAIN: 7}))
    found, findings = await read([FINDING, denials, again])
    assert findings == [FINDING]
    assert found == [CountedDenials(caller=flood.value, count=42)]

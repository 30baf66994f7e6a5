"""The verified decisions of an export: read in order for a backtest, or each decided again by its own policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from sealbus.agents.evidence.files import ExportFiles, FolderFiles, frames_of
from sealbus.agents.evidence.verify import Verification
from sealbus.bus.audit.trail import AuditEntry, AuditFilter, Finding, recorded_decisions
from sealbus.envelopes.errors import EnvelopeError, LogError
from sealbus.envelopes.export.entries import check_decision, open_frame
from sealbus.envelopes.export.finding import Finding as ExportFinding
from sealbus.envelopes.export.finding import FindingCode
from sealbus.envelopes.export.format import Frame
from sealbus.envelopes.export.tally import NAME_BYTES
from sealbus.envelopes.export.tiles import TileTask, tasks_of
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import DenialsRecord
from sealbus.envelopes.trust.caches import Caches
from sealbus.policies.backtest.archived_policies import ArchivedPolicies
from sealbus.policies.backtest.backtest import reproduce
from sealbus.policies.backtest.recorded import RecordedDecision
from sealbus.policies.backtest.report import BacktestReport
from sealbus.policies.engines.open import open_policy

POLICIES: Final = "policies"
"""Folder of the bundles, in an export and in a notary's folder."""


async def decision_entries(
    files: ExportFiles, root: Root, report: Verification, wanted: AuditFilter | None = None
) -> AsyncGenerator[AuditEntry | Finding, None]:
    """Yield the findings in `report`, which verified `files`, and then the decisions and counted denials that verify.

    Every message is opened again as of its entry. A message that does not open or cannot be proved is left out: it is already
    among the findings. Entries come in the order of the log, as selected by `wanted`. Files that change meanwhile can only
    reduce their number.
    """
    for finding in report.findings:
        yield finding_entry(finding)
    if report.checkpoint is None:
        return
    matches, reader = (wanted or AuditFilter()).matcher(), _Reader(files, root, report)
    for task in tasks_of(report.checkpoint.size, ()):
        for entry in await asyncio.to_thread(reader.read, task):
            if matches(entry):
                yield entry


def finding_entry(finding: ExportFinding) -> Finding:
    """Return a finding of an export as a finding of a stream, with the file in place of the subject."""
    return Finding(
        sequence=finding.sequence, stored=0, subject=finding.file, code=finding.code, step=0, detail=finding.detail
    )


class _Reader:
    def __init__(self, files: ExportFiles, root: Root, report: Verification) -> None:
        self._files = files
        self._root = root
        self._trust = report.trust
        self._repeated = report.repeated
        self._caches = Caches()

    def read(self, task: TileTask) -> list[AuditEntry]:
        """Return the entries of one tile."""
        entries: list[AuditEntry] = []
        again = {*self._repeated.get(task.index, ())}
        # A file that is cut within a frame is already a finding.
        with suppress(LogError):
            for number, frame in enumerate(frames_of(self._files, task.index)):
                if number == task.width:
                    break
                if frame.kind is EntryKind.VERIFIED:
                    entries += self._entries(frame, again)
        return entries

    def _entries(self, frame: Frame, again: set[bytes]) -> list[AuditEntry]:
        """Return the entries of one message, without the records named in `again`, to which it adds the new names."""
        try:
            audit = open_frame(frame, self._root, self._trust, self._caches)
        except EnvelopeError:
            return []
        entries: list[AuditEntry] = []
        for leaf, record in audit.body.records.items():
            if leaf[:NAME_BYTES] in again:
                continue
            again.add(leaf[:NAME_BYTES])
            message = None
            if isinstance(record, DecisionRecord):
                try:
                    message = check_decision(record, audit, self._root, self._trust, self._caches)
                except EnvelopeError:
                    continue
            elif not isinstance(record, DenialsRecord):
                continue
            entries.append(
                AuditEntry(
                    sequence=frame.sequence,
                    stored=frame.stored,
                    recorder=audit.header.iss,
                    leaf=leaf,
                    record=record,
                    decided=message.header if message is not None else None,
                    message=message,
                )
            )
        return entries


def archived_policies(files: FolderFiles, report: Verification, *, opa: Path | None = None) -> ArchivedPolicies:
    """Return the policies of an export, to be entered: only those whose bundle hashes its log holds."""
    return ArchivedPolicies(
        files.folder / POLICIES, open_engine=lambda file: open_policy(file, opa=opa), digests=report.policies
    )


async def redecide(files: FolderFiles, root: Root, report: Verification) -> tuple[BacktestReport, dict[str, str]]:
    """Decide each recorded input again by the embedded engine; add to `report` a finding (`bad_decision`) for a difference.

    Return the results, with counted reasons why decisions could not be made again, and the bundles that are not used. Only
    verified decisions are made again: `report` is that of `verify_export`.
    """

    def differs(recorded: RecordedDecision, why: Sequence[str]) -> None:
        detail = f"does not follow from its input and policy: {', '.join(why)}"
        report.add_findings([ExportFinding("", recorded.sequence, FindingCode.BAD_DECISION, detail)])

    # Earlier findings must not be counted twice.
    verified = replace(report, findings=[], count=0)
    async with (
        archived_policies(files, report) as policies,
        aclosing(decision_entries(files, root, verified)) as entries,
        aclosing(recorded_decisions(entries, lambda _: None)) as decisions,
    ):
        result = await reproduce(decisions, policies, on_contradiction=differs)
    return result, dict(policies.problems)

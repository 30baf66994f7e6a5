"""Makes every decision of a verified export again, each by its own archived policy, and finds what does not follow."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Final

from sealbus.agents.evidence.decision_entries import decision_entries
from sealbus.agents.evidence.files import FolderFiles
from sealbus.agents.evidence.verification import Verification
from sealbus.bus.recorded_decisions import recorded_decisions
from sealbus.envelopes.export.finding import Finding, FindingCode
from sealbus.envelopes.export.root import Root
from sealbus.policies.archived_policies import ArchivedPolicies
from sealbus.policies.backtest import reproduce
from sealbus.policies.backtest_report import BacktestReport
from sealbus.policies.open_policy import open_policy
from sealbus.policies.recorded import RecordedDecision

__all__ = ["POLICIES", "archived_policies", "redecide"]

POLICIES: Final = "policies"
"""Folder of the bundles, in an export and in a notary's folder."""


def archived_policies(files: FolderFiles, report: Verification, *, opa: Path | None = None) -> ArchivedPolicies:
    """Return the policies of an export, to be entered: those alone that its log names, of whose bytes it has the hash."""
    return ArchivedPolicies(
        files.folder / POLICIES, open_engine=lambda file: open_policy(file, opa=opa), digests=report.policies
    )


async def redecide(files: FolderFiles, root: Root, report: Verification) -> tuple[BacktestReport, dict[str, str]]:
    """Ask the embedded engine about each recorded input; add a finding (`bad_decision`) to `report` for each difference.

    Return what was asked and what could not be, counted by why, and the bundles that are not used. Only what verified
    is asked: `report` is that of `verify_export`.
    """

    def differs(recorded: RecordedDecision, why: Sequence[str]) -> None:
        detail = f"does not follow from its input and policy: {', '.join(why)}"
        report.found([Finding("", recorded.sequence, FindingCode.BAD_DECISION, detail)])

    # What was found before is found: it is not to be counted twice.
    verified = replace(report, findings=[], count=0)
    async with (
        archived_policies(files, report) as policies,
        aclosing(decision_entries(files, root, verified)) as entries,
        aclosing(recorded_decisions(entries, lambda _: None)) as decisions,
    ):
        found = await reproduce(decisions, policies, on_contradiction=differs)
    return found, dict(policies.problems)

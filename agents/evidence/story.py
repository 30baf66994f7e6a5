"""What an export tells of one message: who sent it for whom, what was decided, what came of it; each part verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sealbus.agents.evidence.lookup import FoundRecord, Lookup
from sealbus.envelopes.archive import VerifiedDecided
from sealbus.envelopes.caches import Caches
from sealbus.envelopes.decision_record import DecisionRecord
from sealbus.envelopes.errors import EnvelopeError
from sealbus.envelopes.export.entry_reader import check_decision, open_frame
from sealbus.envelopes.export.root import Root
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.work_records import OutcomeRecord

__all__ = ["Told", "ToldDecision", "ToldOutcome", "tell"]


@dataclass(frozen=True, slots=True)
class ToldOutcome:
    """What came of a decision."""

    found: FoundRecord
    record: OutcomeRecord


@dataclass(slots=True)
class ToldDecision:
    """A decision, the message that it is about, proved again, and what came of it."""

    found: FoundRecord
    record: DecisionRecord
    recorder: SpiffeId
    decided: VerifiedDecided
    outcomes: list[ToldOutcome] = field(default_factory=list)


@dataclass(slots=True)
class Told:
    """All that was found and verifies, and of what does not verify where it stands and why."""

    decisions: list[ToldDecision] = field(default_factory=list)
    others: list[FoundRecord] = field(default_factory=list)
    """Records that belong to no decision found here."""
    refused: list[tuple[FoundRecord, EnvelopeError]] = field(default_factory=list)


def tell(lookup: Lookup, root: Root) -> Told:
    """Return what was looked up, each record opened and each decided message proved again."""
    told, caches, archive = Told(), Caches(), lookup.trust.archive
    for found in lookup.found:
        record = found.record
        try:
            audit = open_frame(found.frame, root, archive, caches)
            if isinstance(record, DecisionRecord):
                decided = check_decision(record, audit, root, archive, caches)
                told.decisions.append(ToldDecision(found, record, audit.header.iss, decided))
                continue
        except EnvelopeError as error:
            told.refused.append((found, error))
            continue
        decision = _decision_of(told.decisions, found)
        if decision is not None and isinstance(record, OutcomeRecord):
            decision.outcomes.append(ToldOutcome(found, record))
        else:
            told.others.append(found)
    return told


def _decision_of(decisions: Sequence[ToldDecision], found: FoundRecord) -> ToldDecision | None:
    if not isinstance(found.record, OutcomeRecord):
        return None
    return next((one for one in decisions if one.found.leaf == found.record.decision), None)

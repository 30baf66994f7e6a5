"""Make the rows of lists of decisions from their records (pure).

A row has sender, decider, action, user and verdict of a decision. Workloads have the names of the settings, or else their
SPIFFE IDs.
"""

from __future__ import annotations

from typing import NamedTuple

from sealbus.agents.console.documents import OutcomeDocument, RowDocument
from sealbus.bus.audit.trail import AuditEntry
from sealbus.bus.inspection.documents import shown_time
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import DenialsRecord, OutcomeRecord
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

DONE = "done"


class DecisionRow(NamedTuple):
    """One decision; or, without a message, `times` decisions on messages of one sender that were only counted.

    `sequence` is the sequence of the audit message, `record` the leaf hash of the record, `time` microseconds.
    """

    sequence: int
    record: bytes
    time: int
    message: bytes
    digest: bytes
    txn: bytes
    action: str
    sender: str
    decider: str
    user: str
    allow: bool
    reasons: tuple[str, ...]
    code: str
    times: int = 1

    def document(self) -> RowDocument:
        """Return it as JSON."""
        document: RowDocument = {
            "sequence": self.sequence,
            "record": self.record.hex(),
            "time": shown_time(self.time),
            "message": self.message.hex(),
            "action": self.action,
            "from": self.sender,
            "by": self.decider,
            "user": self.user,
            "allow": self.allow,
            "reasons": self.reasons,
            "code": self.code,
        }
        if not self.message:
            document["count"] = self.times
        return document

    def is_called(self, name: bytes) -> bool:
        """Return whether `name` is the id or hash of the message, the id of the user's request, or the hash of the record."""
        return name in (self.message, self.digest, self.txn, self.record)


class OutcomeRow(NamedTuple):
    """The outcome of the decision whose record has the hash `record`; `code` is `done` on success."""

    record: bytes
    code: str
    micros: int

    def document(self) -> OutcomeDocument:
        """Return it as JSON."""
        return {"record": self.record.hex(), "outcome": self.code, "ms": self.micros / 1_000}


def row_of(entry: AuditEntry, names: Names) -> DecisionRow | OutcomeRow | None:
    """Return the row of `entry`; None for a record about no message."""
    record = entry.record
    if isinstance(record, DecisionRecord) and entry.decided is not None:
        context = entry.message.context if entry.message is not None else None
        return DecisionRow(
            sequence=entry.sequence,
            record=entry.leaf,
            time=record.place.time,
            message=entry.decided.id,
            digest=entry.decided.digest,
            txn=context.txn if context is not None else b"",
            action=record.action,
            sender=shown_name(entry.decided.iss, names),
            decider=shown_name(entry.recorder, names),
            user=context.sub if context is not None else "",
            allow=record.allow,
            reasons=record.reasons,
            code=str(record.code or ""),
        )
    if isinstance(record, OutcomeRecord):
        return OutcomeRow(record=record.decision, code=str(record.code or DONE), micros=record.micros)
    if isinstance(record, DenialsRecord):
        return DecisionRow(
            sequence=entry.sequence,
            record=entry.leaf,
            time=record.minute,
            message=b"",
            digest=b"",
            txn=b"",
            action="",
            sender=shown_name(record.iss, names),
            decider=shown_name(entry.recorder, names),
            user="",
            allow=not record.denied,
            reasons=tuple(sorted(record.counts)),
            code="",
            times=sum(record.counts.values()),
        )
    return None


def shown_name(spiffe_id: SpiffeId, names: Names) -> str:
    """Return the name of a workload in the settings, or else its SPIFFE ID."""
    return names.name_of(spiffe_id) or spiffe_id.value

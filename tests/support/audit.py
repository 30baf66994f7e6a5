"""Audit messages for tests: the inventory's, about a task that the planner sent it while handling the edge's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from support.acceptance import INVENTORY, ISSUER, MINTERS, TRUST, Delivery, Message
from support.both_readers import agreed, proven
from support.both_readers import opened as opened_alone
from support.envelopes import HOUR, NAMES, NOW, message_id

from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.records.archive import (
    ArchiveProfile,
    VerifiedAudit,
    VerifiedDecided,
    accept_decided,
    accept_record,
)
from sealbus.envelopes.records.body import ancestor_item, context_item, credential_item, encode_audit_body
from sealbus.envelopes.records.decision import DecisionRecord, StreamPlace
from sealbus.envelopes.trust.bundles import TrustBundles
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.merkle import leaf_hash, root

__all__ = ["INPUT", "RECORDER", "Archive", "audit_message", "decision_of", "evidence_items", "opened"]

RECORDER = ISSUER.sealer(INVENTORY)
INPUT = b'{"v":1}'


def opened(message: Message | None = None) -> VerifiedMessage:
    """Return a task as the gate got it: from a stream, for a user, sent while another was handled."""
    return Delivery().accept(message if message is not None else Message())


def decision_of(message: VerifiedMessage) -> DecisionRecord:
    """Return the record that `message`, from a stream, was allowed."""
    arrival = message.arrival
    assert isinstance(arrival, StreamArrival)
    return DecisionRecord(
        header=message.header.raw,
        proof=message.proof,
        action="inventory.update",
        place=StreamPlace(stream=arrival.stream, sequence=arrival.sequence, stored=arrival.stored),
        delivery=arrival.delivery,
        allow=True,
        input=INPUT,
        reasons=("owner",),
        revision="r1",
        policy="starter",
        engine="embedded",
        micros=17,
    )


def evidence_items(message: VerifiedMessage) -> dict[str, bytes]:
    """Return all evidence for `message`, each item under a name of its own for tests that leave one out."""
    named = {"credential": credential_item(message.credential)}
    if message.statement is not None:
        named["context"] = context_item(message.statement.payload, message.statement.proof)
        named["context credential"] = credential_item(message.statement.credential)
    for number, ancestor in enumerate(message.ancestors[1:], 1):
        named[f"ancestor {number}"] = ancestor_item(ancestor.header, ancestor.proof)
        named[f"ancestor credential {number}"] = credential_item(ancestor.credential)
    # The edge's credential vouches for the context and for the root alike, and evidence is stored once.
    return {name: item for name, item in named.items() if name == next(n for n in named if named[n] == item)}


def audit_message(evidence: Sequence[bytes], records: Sequence[bytes], **fields: object) -> Message:
    """Return the inventory's record message of these items; `fields` are header entries that differ."""
    own: dict[str, object] = {
        "t": "record",
        "aud": None,
        "end": None,
        "exp": NOW + 24 * HOUR,
        "id": message_id(9),
        "to": "audit.inventory",
        "typ": "application/vnd.sealbus.audit.v1",
        "dig": root([leaf_hash(item) for item in (*evidence, *records)]),
    }
    body = encode_audit_body(evidence, records)
    return Message(sealer=RECORDER, context=None, ancestors=(), body=body, fields=own | fields)


@dataclass(kw_only=True)
class Archive:
    """A reader of the archive; the audit message was stored a second after the decided one was."""

    subject: str = "audit.inventory"
    time: int = NOW + 2 * SECOND
    bundles: TrustBundles = field(default_factory=lambda: TRUST.bundles)
    profile: ArchiveProfile = field(default_factory=lambda: ArchiveProfile(names=NAMES, minters=MINTERS))
    caches: Callable[[], Caches] = Caches

    def record(self, message: Message) -> VerifiedAudit:
        """Open an audit message."""
        payload, subject, profile, time, bundles = self._given(message)
        return agreed(
            lambda: accept_record(payload, subject, profile, time=time, bundles=bundles, caches=self.caches()),
            lambda: opened_alone(payload, subject, profile, time, bundles),
        )

    def _given(self, message: Message) -> tuple[bytes, str, ArchiveProfile, int, TrustBundles]:
        return message.payload(), self.subject, self.profile, self.time, self.bundles

    def decided(
        self, record: DecisionRecord, evidence: Sequence[bytes], *, body: bytes | None = None
    ) -> VerifiedDecided:
        """Open an audit message of `evidence` and `record`, then prove again what was decided."""
        message = audit_message(evidence, [record.encode()])
        audit = self.record(message)
        [decision] = audit.body.records.values()
        assert isinstance(decision, DecisionRecord)
        profile, bundles = self.profile, self.bundles
        alone = opened_alone(*self._given(message))
        return agreed(
            lambda: accept_decided(decision, audit, profile, bundles=bundles, caches=self.caches(), body=body),
            lambda: proven(alone, profile, self.time, bundles, body),
        )

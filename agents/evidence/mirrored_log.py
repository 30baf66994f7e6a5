"""Makes the log of AUDIT again from its mirror alone, where the notary's folder is lost with its region.

The messages are classified and hashed as the notary does it. The tree must lead to the last checkpoint in the mirror that the
log's key has signed, so that a mirror that was changed gives no log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.log.ledger import Ledger
from sealbus.agents.control.notary.log.message_verifier import LoggedMessage, MessageVerifier, placed
from sealbus.agents.control.notary.policy_archive import record_path
from sealbus.agents.control.notary.resume import LogPlan, trust_path
from sealbus.bus.ports import Delivery, Transport
from sealbus.bus.stream_names import AUDIT, SUBJECTS
from sealbus.envelopes.errors import BundleRefused, Code, EnvelopeError, LogError
from sealbus.envelopes.export.format import Frame
from sealbus.envelopes.export.trust import NotaryMessages
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.log.checkpoint import open_strictly
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.message.subjects import audit_subject
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord, PolicyRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["MirroredLog", "make_log"]

_FENCE: Final = 1
_LATER: Final = 120 * SECOND
"""Beyond the newest message: no message waits any more for a bundle that is not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirroredLog:
    """What was made: `size` entries, of messages up to the sequence `last`; the mirror holds `beyond` messages after it.

    Those were stored after the last checkpoint that came across. They are there, but no log vouches for them.
    """

    size: int
    last: int
    beyond: int


async def make_log(
    folder: Path,
    *,
    transport: Transport,
    mirror: str,
    created: int,
    root: Root,
    stream: str = AUDIT,
    previous: bytes = b"",
) -> MirroredLog:
    """Make the log of `stream`, which was created at `created`, in the new `folder`, from the stream `mirror`.

    The log ends with the last checkpoint in the mirror that `root` leads to. Raises `LogError` if there is none, or if the
    messages of the mirror do not lead to it; `BusUnavailable`. A log over a restored stream cannot be made, because what an
    operator said of the restore is in the notary's folder only: `LogError`.
    """
    maker = _Maker(root=root, plan=LogPlan(origin=root.origin, verifiers=root.keys, stream=stream, previous=previous))
    subjects = [audit_subject(root.names.token(notary)) for notary in sorted(root.notaries, key=lambda one: one.value)]
    async with aclosing(transport.read(mirror, subjects)) as batches:
        async for batch in batches:
            await asyncio.to_thread(maker.take_notary, batch)
    maker.begin(created)
    async with aclosing(transport.read(mirror, [SUBJECTS[AUDIT]])) as batches:
        async for batch in batches:
            await asyncio.to_thread(maker.take_messages, batch)
    await asyncio.to_thread(maker.store, FolderStore(folder))
    return MirroredLog(size=maker.ledger.size, last=maker.ledger.next - 1, beyond=maker.beyond)


@dataclass(slots=True)
class _Maker:
    root: Root
    plan: LogPlan
    ledger: Ledger = field(default_factory=Ledger)
    history: TrustHistory = field(default_factory=TrustHistory)
    beyond: int = 0
    _note: bytes = b""
    _size: int = 0
    _files: dict[str, bytes] = field(default_factory=dict)
    _verifiers: dict[SpiffeId, MessageVerifier] = field(default_factory=dict)

    def take_notary(self, batch: Sequence[Delivery]) -> None:
        """Take the notary's own messages: its bundles, from one on that the root pins, and its largest checkpoint."""
        for delivery in batch:
            self._pin(delivery)
            for verifier in self._by_notary():
                try:
                    audit = verifier.open(delivery)
                except EnvelopeError:
                    continue
                if audit.header.iss not in self.root.notaries:
                    continue
                for record in audit.body.records.values():
                    if isinstance(record, BundleRecord):
                        self._learn(record)
                    elif isinstance(record, CheckpointRecord):
                        self._take_note(record.note)

    def begin(self, created: int) -> None:
        """Begin the log; raise `LogError` if no checkpoint was found."""
        if not self._note:
            raise LogError(Code.UNTRUSTED_NOTE, "the mirror holds no checkpoint that a key of the root file has signed")
        for entry in self.plan.beginning(created):
            self.ledger.append(entry)

    def take_messages(self, batch: Sequence[Delivery]) -> None:
        """Append the entries of messages up to the checkpoint, and count the others."""
        if self.ledger.size >= self._size:
            self.beyond += len(batch)
            return
        [verifier, *_] = self._by_notary()
        now = max(placed(delivery).stored for delivery in batch) + _LATER
        for message in verifier.verify(batch, self.ledger.next, now):
            if self.ledger.size >= self._size:
                self.beyond += 1
                continue
            self._note_records(message)
            for entry in message.entries:
                self.ledger.append(entry)

    def store(self, store: FolderStore) -> None:
        """Write the log; raise `LogError` unless it is what the checkpoint says."""
        checkpoint = open_strictly(self._note, self.root.origin, self.root.keys).checkpoint
        if (self.ledger.size, self.ledger.root()) != (checkpoint.size, checkpoint.root):
            raise LogError(
                Code.LOG_MISMATCH, f"the mirror does not lead to the checkpoint at {checkpoint.size} that it holds"
            )
        store.enter()
        try:
            store.claim(_FENCE)
            store.commit(_FENCE, {**self._files, **self.ledger.files()}, self._note)
        finally:
            store.leave()

    def _by_notary(self) -> list[MessageVerifier]:
        if not self._verifiers:
            for notary in self.root.notaries:
                self._verifiers[notary] = MessageVerifier(profile=self.root.profile, own=notary, history=self.history)
        return list(self._verifiers.values())

    def _pin(self, delivery: Delivery) -> None:
        """Learn a bundle that the root pins by its hash, whoever sent it."""
        frame = Frame(EntryKind.VERIFIED, delivery.sequence, placed(delivery).stored, delivery.payload)
        message = NotaryMessages(self.root.notaries).read(frame)
        for record in message.body.records.values() if message is not None else ():
            if isinstance(record, BundleRecord) and sha256(record.jwt).digest() in self.root.bundles:
                self._learn(record)

    def _learn(self, record: BundleRecord) -> None:
        try:
            self.history.add(record)
        except BundleRefused:
            return
        self._files.setdefault(trust_path(record), record.encode())

    def _take_note(self, note: bytes) -> None:
        try:
            size = open_strictly(note, self.root.origin, self.root.keys).checkpoint.size
        except LogError:
            # Of the period before, or by a key that the root file does not have.
            return
        if size > self._size:
            self._note, self._size = note, size

    def _note_records(self, message: LoggedMessage) -> None:
        for record in message.own:
            if isinstance(record, PolicyRecord):
                self._files[record_path(record)] = record.encode()

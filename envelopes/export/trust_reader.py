"""The first pass over an export: what the notary recorded about trust and about the log itself, in order.

Bundles change what counts as verified, so this much has to be read one after the other. It looks into the notary's
messages only, and is cheap for that; the second pass verifies all of them, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from sealbus.envelopes.archive import accept_record
from sealbus.envelopes.audit_body import AuditBody
from sealbus.envelopes.caches import Caches
from sealbus.envelopes.errors import BundleRefused, Code, EnvelopeError, LogError
from sealbus.envelopes.export.finding import Finding, FindingCode, of_file, of_sequence
from sealbus.envelopes.export.frames import Frame
from sealbus.envelopes.export.notary_messages import NotaryMessages
from sealbus.envelopes.export.policy_files import PolicyFiles
from sealbus.envelopes.export.root import Root
from sealbus.envelopes.export.strict_note import open_strictly
from sealbus.envelopes.export.trust_archive import ArchivedBundle, TrustArchive
from sealbus.envelopes.header import Header
from sealbus.envelopes.log.notes import parse_note
from sealbus.envelopes.notary_records import BundleRecord, CheckpointRecord
from sealbus.envelopes.trust import JwtBundle

__all__ = ["LoggedCheckpoint", "TrustReader", "parse_bundle", "pinned_bundles"]


class LoggedCheckpoint(NamedTuple):
    """A checkpoint that the log itself holds: the root that it had at `size`. `sequence` is that of the record."""

    sequence: int
    size: int
    root: bytes


class TrustReader:
    """Takes the frames of a log in order; `archive`, `checkpoints`, `policies` and `findings` are what they came to.

    Nothing here decides whether a message counts as verified, except those that bring bundles.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._messages = NotaryMessages(root.notaries)
        self._caches = Caches()
        self.archive = TrustArchive()
        self.checkpoints: list[LoggedCheckpoint] = []
        self.policies = PolicyFiles()
        self.findings: list[Finding] = []

    def take(self, frame: Frame, index: int) -> None:
        """Take the entry number `index`."""
        message = self._messages.read(frame)
        if message is None:
            return
        header, body = message
        self.policies.take(body.records.values())
        bundles = [record for record in body.records.values() if isinstance(record, BundleRecord)]
        if bundles:
            self._take_bundles(frame, header, bundles)
        self._take_checkpoints(frame, index, body)

    def end(self) -> None:
        """Say what is wrong with the whole: without a bundle nothing verifies."""
        if not len(self.archive):
            self.findings.append(of_file("messages", FindingCode.NO_BUNDLE, "none that the root file leads to"))

    def _take_bundles(self, frame: Frame, header: Header, bundles: list[BundleRecord]) -> None:
        if not (
            self._opens(frame, header, self.archive) or self._opens(frame, header, pinned_bundles(bundles, self._root))
        ):
            detail = "vouched for neither by an earlier bundle nor by the root file"
            self.findings.append(Finding("", frame.sequence, FindingCode.UNTRUSTED_BUNDLE, detail))
            return
        for record in bundles:
            try:
                self.archive.add(parse_bundle(record))
            except BundleRefused as error:
                self.findings.append(Finding("", frame.sequence, FindingCode.BAD_BUNDLE, error.detail))

    def _opens(self, frame: Frame, header: Header, trust: TrustArchive) -> bool:
        try:
            accept_record(
                frame.data,
                header.to,
                self._root.profile,
                time=frame.stored,
                bundles=trust.at(frame.stored),
                caches=self._caches,
            )
        except EnvelopeError:
            return False
        return True

    def _take_checkpoints(self, frame: Frame, index: int, body: AuditBody) -> None:
        for record in body.records.values():
            if isinstance(record, CheckpointRecord):
                try:
                    self._take_checkpoint(frame, index, record.note)
                except LogError as error:
                    self.findings.append(of_sequence(frame.sequence, error))

    def _take_checkpoint(self, frame: Frame, index: int, note: bytes) -> None:
        if not note.startswith(self._root.origin.encode() + b"\n"):
            # Of the previous log, or of one for which this notary keeps checkpoints: its keys are not known here.
            parse_note(note)
            return
        checkpoint = open_strictly(note, self._root.origin, self._root.keys).checkpoint
        if checkpoint.size > index:
            raise LogError(Code.BAD_NOTE, "a checkpoint of more than had been logged")
        self.checkpoints.append(LoggedCheckpoint(frame.sequence, checkpoint.size, checkpoint.root))


def pinned_bundles(bundles: Iterable[BundleRecord], root: Root) -> TrustArchive:
    """Return those of `bundles`, all of one message, that `root` counts without being vouched for."""
    found = TrustArchive()
    for record in bundles:
        if record.trust_domain == root.names.trust_domain and sha256(record.jwt).digest() in root.bundles:
            try:
                found.add(parse_bundle(record))
            except BundleRefused:
                # It was pinned all the same; what it would vouch for stays untrusted, which is a finding.
                continue
    return found


def parse_bundle(record: BundleRecord) -> ArchivedBundle:
    """Return the bundle that a record holds; raise `BundleRefused` for one that breaks a rule of section 5."""
    return ArchivedBundle(record.current, JwtBundle.parse(record.trust_domain, record.jwt))

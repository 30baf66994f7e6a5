"""Trust over time: the trust bundle that was current at each time, as the notary recorded it (SPEC.md section 14).

Every credential is judged as of its entry, with the bundles of that time, even after all keys were replaced. Bundles decide
which messages verify, so a first pass over an export reads them in sequence. It is cheap, because it parses only messages
that claim to be the notary's. The second pass verifies all messages, in any order, and reports findings.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from sealbus.envelopes.errors import BundleRefused, Code, EnvelopeError, LogError
from sealbus.envelopes.export.finding import Finding, FindingCode, of_file, of_sequence
from sealbus.envelopes.export.format import Frame
from sealbus.envelopes.export.policy_files import PolicyFiles
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.log.checkpoint import open_strictly
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.note import parse_note
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.archive import accept_record
from sealbus.envelopes.records.body import AuditBody, parse_audit_body
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord
from sealbus.envelopes.trust.bundles import BundleKey, JwtBundle, TrustBundles
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

LATE: Final = 60 * SECOND
"""How long a reader may still use a bundle after its replacement, in microseconds."""

_HEAD_BYTES = 8_300
"""The latest end of an envelope's header."""


class ArchivedBundle(NamedTuple):
    """A bundle, and the time since which it was current, in microseconds by the notary's clock."""

    since: int
    bundle: JwtBundle


class _BundlesOfTime(TrustBundles):
    """The bundles of one moment. If the current bundle lacks a key, its neighbours are searched in order."""

    __slots__ = ("_order",)

    def __init__(self, order: Mapping[str, Sequence[JwtBundle]]) -> None:
        super().__init__(bundles[0] for bundles in order.values())
        self._order: Final = order

    def key(self, trust_domain: TrustDomain, kid: str) -> BundleKey | None:
        """Return the key `kid` of `trust_domain` only; raise `KeyError` if that trust domain is unknown."""
        for bundle in self._order[trust_domain.name]:
            bundle_key = bundle.keys.get(kid)
            if bundle_key is not None:
                return bundle_key
        return None


class TrustArchive:
    """The bundles of a log, in its order. A bundle counts from its `since`, or from that of its predecessor if later.

    The first bundle of a trust domain counts from the beginning, because no earlier bundle is known.
    """

    def __init__(self, bundles: Iterable[ArchivedBundle] = ()) -> None:
        self._times: dict[str, list[int]] = {}
        self._bundles: dict[str, list[JwtBundle]] = {}
        self._changes: list[int] = []
        self._known: dict[int, TrustBundles] = {}
        for archived in bundles:
            self.add(archived)

    def __iter__(self) -> Iterator[ArchivedBundle]:
        """Yield the bundles, each trust domain's in order; a `TrustArchive` of them equals this one."""
        for domain, bundles in self._bundles.items():
            yield from map(ArchivedBundle, self._times[domain], bundles)

    def __len__(self) -> int:
        return sum(map(len, self._bundles.values()))

    def add(self, archived: ArchivedBundle) -> None:
        """Add the next bundle of its trust domain."""
        domain = archived.bundle.trust_domain.name
        times = self._times.setdefault(domain, [])
        times.append(max(archived.since, times[-1]) if times else 0)
        self._bundles.setdefault(domain, []).append(archived.bundle)
        insort(self._changes, times[-1])
        insort(self._changes, times[-1] + LATE)
        self._known.clear()

    def at(self, time: int) -> TrustBundles:
        """Return the bundles trusted at `time`, in microseconds.

        A key is looked up in the bundle of that time. Then it is looked up in later bundles, the next first, because agents
        may learn of a bundle before the notary does. Then it is looked up in the bundles that were current within `LATE`
        before `time`, the latest first.
        """
        # The answer changes only at the start of a bundle and at the end of its `LATE`.
        place = bisect_right(self._changes, time)
        bundles = self._known.get(place)
        if bundles is None:
            bundles = self._known[place] = self._bundles_around(time)
        return bundles

    def current(self, time: int) -> TrustBundles:
        """Return only the bundles that were current at `time`, which every reader had."""
        return TrustBundles(bundles[_last(self._times[domain], time)] for domain, bundles in self._bundles.items())

    def _bundles_around(self, time: int) -> TrustBundles:
        order: dict[str, list[JwtBundle]] = {}
        for domain, bundles in self._bundles.items():
            times = self._times[domain]
            now, earliest = _last(times, time), _last(times, time - LATE)
            order[domain] = [*bundles[now:], *reversed(bundles[earliest:now])]
        return _BundlesOfTime(order)


def _last(times: Sequence[int], time: int) -> int:
    """Return the index of the last bundle that was current by `time`, or of the first bundle."""
    return max(bisect_right(times, time) - 1, 0)


class LoggedCheckpoint(NamedTuple):
    """A checkpoint in the log itself: its root at `size`. `sequence` is that of the message with the record."""

    sequence: int
    size: int
    root: bytes


class TrustReader:
    """The first pass over a log's frames, in order; the results are `archive`, `checkpoints`, `policies` and `findings`.

    It verifies only the messages with trust bundles.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._messages = NotaryMessages(root.notaries)
        self._caches = Caches()
        self.archive = TrustArchive()
        self.checkpoints: list[LoggedCheckpoint] = []
        self.policies = PolicyFiles()
        self.findings: list[Finding] = []

    def take_frame(self, frame: Frame, index: int) -> None:
        """Take the entry number `index`."""
        message = self._messages.read(frame)
        if message is None:
            return
        header, body = message
        self.policies.take_records(body.records.values())
        bundles = [record for record in body.records.values() if isinstance(record, BundleRecord)]
        if bundles:
            self._take_bundles(frame, header, bundles)
        self._take_checkpoints(frame, index, body)

    def end(self) -> None:
        """Add a finding if there is no bundle at all: then no message verifies."""
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
            # A checkpoint of the previous log, or of another log that this notary watches. Their keys are not known here.
            parse_note(note)
            return
        checkpoint = open_strictly(note, self._root.origin, self._root.keys).checkpoint
        if checkpoint.size > index:
            raise LogError(Code.BAD_NOTE, "a checkpoint of more entries than were logged")
        self.checkpoints.append(LoggedCheckpoint(frame.sequence, checkpoint.size, checkpoint.root))


def pinned_bundles(bundles: Iterable[BundleRecord], root: Root) -> TrustArchive:
    """Return the bundles of one message that `root` pins, so that no bundle need vouch for them."""
    pinned = TrustArchive()
    for record in bundles:
        if record.trust_domain == root.names.trust_domain and sha256(record.jwt).digest() in root.bundles:
            try:
                pinned.add(parse_bundle(record))
            except BundleRefused:
                # A pinned bundle that breaks a rule. The messages that it would vouch for stay untrusted, which is a finding.
                continue
    return pinned


def parse_bundle(record: BundleRecord) -> ArchivedBundle:
    """Return the bundle in a record; raise `BundleRefused` if it breaks a rule of SPEC.md section 5."""
    return ArchivedBundle(record.current, JwtBundle.parse(record.trust_domain, record.jwt))


class NotaryMessage(NamedTuple):
    """The header and body of a message, unverified."""

    header: Header
    body: AuditBody


class NotaryMessages:
    """Reads the messages that claim to be by `notaries`."""

    def __init__(self, notaries: Iterable[SpiffeId]) -> None:
        self._notaries = frozenset(notaries)
        self._ids = [notary.value.encode() for notary in self._notaries]

    def read(self, frame: Frame) -> NotaryMessage | None:
        """Return the message of `frame` if it claims to be a notary's, else None."""
        head = frame.data[:_HEAD_BYTES]
        if frame.kind is not EntryKind.VERIFIED or not any(notary in head for notary in self._ids):
            return None
        try:
            envelope = parse_envelope(frame.data)
            header = parse_header(envelope.header)
            body = parse_audit_body(envelope.body) if header.iss in self._notaries else None
        except EnvelopeError:
            # The second pass reports the fault.
            return None
        return NotaryMessage(header, body) if body is not None else None

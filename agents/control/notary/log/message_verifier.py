"""Verifies the messages of the stream for the log: verified, not verifiable, or to be tried again (SPEC.md section 13)."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass

from sealbus.bus.ports import Delivery
from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.log.entries import Entry, gap_entry, unverified_entry, verified_entry
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.records.archive import ArchiveProfile, VerifiedAudit, accept_record
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.notary import CheckpointRecord
from sealbus.envelopes.records.record import Record
from sealbus.envelopes.trust.bundles import TrustBundles
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.revocations import REVOCATIONS

CLOCK_SECONDS = 60
"""Most seconds between the broker's clock and ours; beyond that no entries are added."""
RETRY_SECONDS = 60
"""Seconds after its storage for which a message with an unknown key is tried again."""

_LATER = frozenset({Code.UNKNOWN_KEY, Code.UNKNOWN_TRUST_DOMAIN})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedMessage:
    """One message with its entry, after the entry of a gap if sequences are missing before it.

    `own` are the records of a message that a process of the notary sealed. `revisions` are the policy revisions that the
    decisions in it claim.
    """

    entries: tuple[Entry, ...]
    own: tuple[Record, ...] = ()
    revisions: frozenset[str] = frozenset()

    @property
    def counts(self) -> bool:
        """Whether a checkpoint must follow, which is not so for a message that holds only checkpoints."""
        return (
            len(self.entries) > 1
            or not self.own
            or not all(isinstance(record, CheckpointRecord) for record in self.own)
        )


class MessageVerifier:
    """The verifier of a stream's messages, in order. Its calls block, and come from one thread at a time."""

    def __init__(
        self,
        *,
        profile: ArchiveProfile,
        own: SpiffeId,
        history: TrustHistory,
        sent: MutableMapping[int, int] | None = None,
    ) -> None:
        """Set up the verifier; `sent` maps sequences to the time, by our clock, at which this process sent them."""
        self._profile = profile
        self._own = own
        self._history = history
        self._sent = {} if sent is None else sent
        self._caches = Caches()
        self.earlier = 0
        """The last sequence of our own that was stored before this verifier began: what the clock of an earlier process
        said then is no reason to stop now, after it was set."""

    def verify(self, deliveries: Sequence[Delivery], following: int, now: int) -> Iterator[LoggedMessage]:
        """Yield the messages verified, from the sequence `following` on, up to a message that has to wait.

        `now` is our clock's time. Raises `LogError`: `log_mismatch` for a sequence that was there before,
        `clock_disagreement`.
        """
        for delivery in deliveries:
            position = placed(delivery)
            if position.stored > now + CLOCK_SECONDS * SECOND:
                raise LogError(Code.CLOCK_DISAGREEMENT, f"sequence {position.sequence} was stored in our future")
            # Before verification: if a clock is far behind, not even our own message verifies.
            _same_time(position, self._sent.pop(position.sequence, position.stored))
            if position.sequence < following:
                raise LogError(Code.LOG_MISMATCH, f"sequence {position.sequence} comes again")
            gap: tuple[Entry, ...] = ()
            if missing := position.sequence - following:
                gap = (gap_entry(following, missing, time=position.stored),)
            try:
                audit = self.open(delivery)
            except EnvelopeError as refused:
                if refused.code in _LATER and now < position.stored + RETRY_SECONDS * SECOND:
                    return
                entry = unverified_entry(position.sequence, time=position.stored, payload=delivery.payload)
                yield LoggedMessage(entries=(*gap, entry))
            else:
                entry = verified_entry(position.sequence, time=position.stored, header_digest=audit.header.digest)
                own, revisions = self._records(audit, position), _revisions(audit)
                yield LoggedMessage(entries=(*gap, entry), own=own, revisions=revisions)
            following = position.sequence + 1

    def open(self, delivery: Delivery, also: Sequence[TrustBundles] = ()) -> VerifiedAudit:
        """Return the audit message, opened with the bundles of its time, or with a set of `also`.

        Raises `EnvelopeError`: of several errors, one that a newer bundle could resolve.
        """
        position = placed(delivery)
        refused = EnvelopeError(Code.UNKNOWN_TRUST_DOMAIN, 7, "no bundle is known")
        known = (*self._history.at(position.stored), *also) or (TrustBundles(),)
        for number, bundles in enumerate(known):
            try:
                return accept_record(
                    delivery.payload,
                    delivery.subject,
                    self._profile,
                    time=position.stored,
                    bundles=bundles,
                    caches=self._caches,
                )
            except EnvelopeError as error:
                if number == 0 or error.code in _LATER:
                    refused = error
        raise refused

    def _records(self, audit: VerifiedAudit, position: StreamArrival) -> tuple[Record, ...]:
        """Return the records of a message that this notary sent; no records of other messages.

        Its two times must agree if it was sent since this verifier began.
        """
        if audit.header.iss != self._own:
            return ()
        if position.sequence > self.earlier:
            _same_time(position, audit.header.iat)
        return tuple(audit.body.records.values())


def _revisions(audit: VerifiedAudit) -> frozenset[str]:
    """Return the revisions of the policies that decided; a list of revocations is no policy."""
    decisions = [record for record in audit.body.records.values() if isinstance(record, DecisionRecord)]
    return frozenset(
        decision.revision for decision in decisions if decision.revision and decision.engine != REVOCATIONS
    )


def _same_time(position: StreamArrival, sent: int) -> None:
    """Raise `LogError` unless a message of our own was stored close to when it was sent.

    A publisher repeats the same bytes for half a minute at most, so a longer delay means that a clock is wrong.
    """
    if abs(position.stored - sent) > CLOCK_SECONDS * SECOND:
        raise LogError(Code.CLOCK_DISAGREEMENT, f"our own sequence {position.sequence} was stored at another time")


def placed(delivery: Delivery) -> StreamArrival:
    """Return where the broker stored `delivery`; raise `ValueError` if it came over core NATS."""
    if delivery.arrival is None:
        raise ValueError("an audit message comes from a stream")
    return delivery.arrival

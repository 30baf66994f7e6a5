"""The audit trail: reads the audit stream back, verifies each message as of its stored time, joins outcomes to decisions.

Records that do not verify are yielded as findings, never skipped, so that a reader sees that something is wrong. The trail
knows the current trust bundles, and those of the last month in a notary's key book. The log archives older ones.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

from sealbus.bus.ports import Delivery, Transport
from sealbus.bus.stream_names import AUDIT, SUBJECTS
from sealbus.bus.streams.held import PastTrust, current_only, verified_then
from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import ConfigurationError, EnvelopeError
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.records.archive import (
    ArchiveProfile,
    VerifiedAudit,
    VerifiedDecided,
    accept_decided,
    accept_record,
)
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.record import Record
from sealbus.envelopes.records.work import DenialsRecord, OutcomeRecord
from sealbus.envelopes.trust.bundles import Trust, TrustBundles
from sealbus.envelopes.trust.caches import BoundedMap, Caches
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.backtest.recorded import CountedDenials, Recorded, RecordedDecision
from sealbus.policies.decision.documents import NESTING

T = TypeVar("T")

JOINED = 65_536
"""Decisions remembered to be joined with their outcomes; the outcome of an older one stands alone."""

FOLLOWING = 262_144
"""Most messages that one reading follows from a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An audit message, or a decided message inside one, that does not verify."""

    sequence: int
    stored: int
    subject: str
    code: str
    step: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One record of the stream. `recorder` sealed it; `decided` is the header of the message that a decision is about.

    `message` is that message with its user and chain, as the evidence proves them.
    """

    sequence: int
    stored: int
    recorder: SpiffeId
    leaf: bytes
    record: Record
    decided: Header | None = None
    message: VerifiedDecided | None = None
    decision: DecisionRecord | None = None
    """For an outcome: its decision, if the trail has read it; `decided` and `message` are then the decision's."""

    @property
    def txn(self) -> bytes | None:
        """Return the transaction of the user request that the message belongs to; None if it has no user."""
        context = self.message.context if self.message is not None else None
        return context.txn if context is not None else None

    @property
    def input(self) -> dict[str, object]:
        """Return the recorded input document, decoded; empty if there is none or it cannot be decoded."""
        record = self.record if isinstance(self.record, DecisionRecord) else self.decision
        if record is None or record.input is None:
            return {}
        try:
            return cast("dict[str, object]", parse_object(record.input, depth=NESTING))
        except ValueError:
            # The recorder can write any bytes as its input.
            return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Selects entries; an outcome is selected with its decision. An absent field matches all.

    `message` is an id (16 bytes) or H(header) (32); `txn` is the transaction of a user request (16 bytes). `chain` is
    H(header) of a message. It selects that message, the messages sent while it was handled, the messages that answer or
    follow from any of these (`re`), and so on. A chain ends at events: a message sent while an event is handled starts
    another chain.
    """

    since: int = 0
    until: int | None = None
    subject: str | None = None
    agent: str | None = None
    decision: str | None = None
    user: str | None = None
    message: bytes | None = None
    chain: bytes | None = None
    txn: bytes | None = None

    def matcher(self) -> Callable[[AuditEntry], bool]:
        """Return a function that returns whether the filter matches an entry, for one reading in stream order.

        The function raises `ConfigurationError` once over `FOLLOWING` messages follow from `chain`.
        """
        if self.chain is None:
            return self._matches
        follows = _Followers(self.chain)
        return lambda entry: follows.include(entry) and self._matches(entry)

    def _matches(self, entry: AuditEntry) -> bool:
        record = entry.record if isinstance(entry.record, DecisionRecord) else entry.decision
        if entry.stored < self.since or (self.until is not None and entry.stored >= self.until):
            return False
        if self.agent is not None and not entry.recorder.value.endswith(f"/{self.agent}"):
            return False
        if self.message is not None and (
            entry.decided is None or self.message not in (entry.decided.id, entry.decided.digest)
        ):
            return False
        if self.txn is not None and self.txn != entry.txn:
            return False
        if isinstance(entry.record, DenialsRecord):
            verdict = "deny" if entry.record.denied else "allow"
            return self.subject is None and self.decision in (None, verdict) and self.user is None
        if record is None:
            return self.subject is None and self.decision is None and self.user is None
        if self.subject is not None and (entry.decided is None or entry.decided.to != self.subject):
            return False
        if self.decision is not None and ("allow" if record.allow else "deny") != self.decision:
            return False
        return self.user is None or _user(entry) == self.user


class _Followers:
    """The messages read so far that follow from a first one. A cause is recorded before its effects."""

    def __init__(self, first: bytes) -> None:
        self._digests = {first}

    def include(self, entry: AuditEntry) -> bool:
        """Return whether the entry is about the first message or one that follows from it; then note it."""
        if entry.message is None:
            return False
        header = entry.message.header
        if header.re not in self._digests and all(link.digest not in self._digests for link in entry.message.chain):
            return False
        self._digests.add(header.digest)
        if len(self._digests) > FOLLOWING:
            raise ConfigurationError(f"over {FOLLOWING:,} messages follow from it: give the hash of a later message")
        return True


class AuditTrail:
    """A reader of the audit stream; `bundles` is called for the trust bundles at each message.

    A message whose key has left the current bundles is verified with the bundles of its time, as far as `past` knows them.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        profile: ArchiveProfile,
        bundles: Callable[[], TrustBundles],
        past: PastTrust = current_only,
        stream: str | None = None,
        after: int = 0,
    ) -> None:
        """Read `stream` (of a former period, for instance), by default the stream that takes records when reading begins.

        Messages up to sequence `after` are not read: the bundles may no longer verify them.
        """
        self._transport = transport
        self._stream = stream
        self._profile = profile
        self._bundles = bundles
        self._past = past
        self._caches = Caches()
        self._after = after
        self._decisions: BoundedMap[bytes, tuple[VerifiedDecided, DecisionRecord]] = BoundedMap(JOINED)

    async def entries(
        self, wanted: AuditFilter | None = None, *, follow: bool = False
    ) -> AsyncGenerator[AuditEntry | Finding, None]:
        """Yield the wanted entries and every finding, in stream order. Ends at the stream's end unless `follow`.

        Starts after the last message that this trail has read, so a second call continues.
        """
        matches = (wanted or AuditFilter()).matcher()
        if self._stream is None:
            self._stream, _ = await self._transport.audit_stream()
        source = self._transport.read(self._stream, [SUBJECTS[AUDIT]], start=self._after + 1, follow=follow)
        async with aclosing(source) as batches:
            async for batch in batches:
                for delivery in batch:
                    if delivery.arrival is not None:
                        self._after = delivery.arrival.sequence
                    for entry in await self._read(delivery):
                        if isinstance(entry, Finding) or matches(entry):
                            yield entry

    async def _read(self, delivery: Delivery) -> Sequence[AuditEntry | Finding]:
        position = delivery.arrival
        if position is None:
            raise ValueError("an audit message comes from a stream")
        accept = partial(
            accept_record,
            delivery.payload,
            delivery.subject,
            self._profile,
            time=position.stored,
            caches=self._caches,
        )
        try:
            audit = await self._verified(position.stored, accept)
        except EnvelopeError as error:
            return [_finding(position, error)]
        entries: list[AuditEntry | Finding] = []
        for leaf, record in audit.body.records.items():
            try:
                entries.append(await self._entry(position, audit, leaf, record))
            except EnvelopeError as error:
                entries.append(_finding(position, error))
        return entries

    async def _verified(self, time: int, accept: Callable[..., T]) -> T:
        """Return what `accept` returns with the current bundles, or, for a key that has left them, with those of `time`."""
        trust = Trust(bundles=self._bundles())
        return await verified_then(lambda then: accept(bundles=then.bundles), time, trust=trust, past=self._past)

    async def _entry(self, position: StreamArrival, audit: VerifiedAudit, leaf: bytes, record: Record) -> AuditEntry:
        message: VerifiedDecided | None = None
        decision: DecisionRecord | None = None
        if isinstance(record, DecisionRecord):
            accept = partial(accept_decided, record, audit, self._profile, caches=self._caches)
            message = await self._verified(record.place.time, accept)
            self._decisions.put(leaf, (message, record))
        elif isinstance(record, OutcomeRecord) and (known := self._decisions.get(record.decision)) is not None:
            message, decision = known
        return AuditEntry(
            sequence=position.sequence,
            stored=position.stored,
            recorder=audit.header.iss,
            leaf=leaf,
            record=record,
            decided=message.header if message is not None else None,
            message=message,
            decision=decision,
        )


def _finding(position: StreamArrival, error: EnvelopeError) -> Finding:
    return Finding(
        sequence=position.sequence,
        stored=position.stored,
        subject=position.subject,
        code=str(error.code),
        step=error.step,
        detail=error.detail,
    )


def _user(entry: AuditEntry) -> str | None:
    context = entry.input.get("context")
    user = context.get("user") if isinstance(context, dict) else None
    identifier = user.get("id") if isinstance(user, dict) else None
    return identifier if isinstance(identifier, str) and identifier else None


async def recorded_decisions(
    entries: AsyncIterable[AuditEntry | Finding], on_finding: Callable[[Finding], None]
) -> AsyncGenerator[Recorded, None]:
    """Yield the decisions of `entries`, and the denials that were only counted, in order.

    Each finding is passed to `on_finding`. Other records are left out, because no policy decides about them.
    """
    async for entry in entries:
        if isinstance(entry, Finding):
            on_finding(entry)
        elif isinstance(entry.record, DenialsRecord):
            if entry.record.denied:
                yield CountedDenials(caller=entry.record.iss.value, count=entry.record.denied)
        elif (recorded := recorded_decision(entry)) is not None:
            yield recorded


def recorded_decision(entry: AuditEntry) -> RecordedDecision | None:
    """Return the decision in `entry` as a policy can be asked about it again; None for another record."""
    if not isinstance(entry.record, DecisionRecord) or entry.decided is None:
        return None
    return RecordedDecision.of(
        entry.record,
        sequence=entry.sequence,
        time=entry.stored,
        leaf=entry.leaf,
        recorder=entry.recorder.value,
        caller=entry.decided.iss.value,
    )

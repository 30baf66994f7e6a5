"""The notary's own records in the stream: checkpoints, and trust bundles and policies as they become current."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock, Identity, Transport
from sealbus.bus.sending.message import single_record
from sealbus.bus.sending.outbox import Outbox
from sealbus.bus.stream_names import AUDIT
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import IdentityUnavailable
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.message.subjects import audit_subject
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord, PolicyRecord
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain

_NONE: Final = b'{"keys":[]}'
"""The bundle that is recorded for a trust domain without a bundle: none of its messages opens from then on."""
_REMEMBERED: Final = 256
_CERTIFICATES: Final = 32
"""Most certificates of an X.509 bundle in a `bundle` record (SPEC.md section 8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotarySite:
    """The place where a notary runs: its identity, its connection, and the clock and counters of its process.

    Identity, transport and outbox are already entered and outlive the notary.
    """

    identity: Identity
    transport: Transport
    outbox: Outbox
    names: Names
    clock: Clock = wall_clock
    counters: Counters = field(default_factory=Counters)

    @property
    def token(self) -> str:
        """The token of the notary's SPIFFE ID in subjects."""
        return self.names.token(self.identity.spiffe_id)

    @property
    def subject(self) -> str:
        """The subject of the notary's own records."""
        return audit_subject(self.token)


def new_bundles(identity: Identity, history: TrustHistory, now: int, judged: int) -> list[BundleRecord]:
    """Return a record for each trust domain whose bundles differ from its last in `history`, or are gone.

    The new bundles are current from `now` on, and later than `judged`, the latest stored time that was judged without them.
    So readers of the log find, for each message, the bundles that it was judged with.
    """
    records, bundles = [], identity.bundles()
    for domain in sorted({*bundles, *history.trust_domains}, key=lambda name: name.name):
        last = history.last(domain)
        jwks, certificates = (
            (bundles[domain].jwks, _certificates(identity, domain)) if domain in bundles else (_NONE, ())
        )
        if last is None or (last.jwt, last.x509) != (jwks, certificates):
            # Also later than the bundle that it replaces, even if a clock was set back.
            current = max(now, judged + 1, last.current + 1 if last is not None else 0)
            records.append(BundleRecord(trust_domain=domain, current=current, jwt=jwks, x509=certificates))
    return records


class RecordPublisher:
    """The publisher of the notary's own records; each call returns once the stream has acknowledged them.

    `within` is how many seconds to wait for the acknowledgement. `stream` is the stream that the log is of.
    """

    def __init__(self, site: NotarySite, *, stream: str = AUDIT, within: float = 10.0) -> None:
        self._site = site
        self._stream = stream
        self._within = within
        self.sent: dict[int, int] = {}
        """When each of the last few records was sent, by its sequence in the stream, for comparison when it is read back."""

    async def publish_new_bundles(self, history: TrustHistory, judged: int) -> bool:
        """Record the new bundles, adding each to `history` once it is stored; return whether there were any."""
        records = new_bundles(self._site.identity, history, self._site.clock(), judged)
        for record in records:
            # Each in its own message, because two of the largest exceed a message.
            await self.publish_record(record)
            history.add(record)
        return bool(records)

    async def publish_record(self, record: CheckpointRecord | BundleRecord | PolicyRecord) -> None:
        """Publish `record` in a message of its own. Raises as `Outbox.publish` does."""
        posted = await self._site.outbox.publish(single_record(self._site.subject, record), within=self._within)
        if posted.ack is not None and posted.ack.stream == self._stream:
            # A closed period's last checkpoint is published in the next period's stream, and not read back from there.
            self.sent[posted.ack.sequence] = posted.sealed.header.iat
            while len(self.sent) > _REMEMBERED:
                del self.sent[next(iter(self.sent))]


def _certificates(identity: Identity, domain: TrustDomain) -> tuple[bytes, ...]:
    try:
        certificates = identity.x509().bundles.get(domain, ())
    except IdentityUnavailable:
        return ()
    return tuple(certificates)[:_CERTIFICATES]

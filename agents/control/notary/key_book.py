"""The key book that a notary writes beside its log, for values that outlive their keys (`bus/streams/key_book`).

It is written when the history of trust has changed, and hourly, because readers refuse a book that is over three hours old. A
new log knows nothing from before its first bundles: until it is 32 days old, that time is copied from the former book. The
book also names the streams that were restored from a backup, as the log does. A failed write is retried and shown; the log
neither waits for it nor ends with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

from sealbus.bus.clocks import BusClock, HostClock
from sealbus.bus.nats.clock_difference import ClockDifference
from sealbus.bus.ports import Clock, Identity, Transport
from sealbus.bus.stream_names import AUDIT
from sealbus.bus.streams.held import PAYLOAD_BYTES, PAYLOAD_ITEMS, Held, HeldSubject, HeldValue
from sealbus.bus.streams.key_book import (
    KEPT,
    KEY_BOOK_TYPE,
    MOST_RESTORED,
    RECORDS,
    RESTORED,
    YOUNG,
    BookContents,
    key_book_subject,
    read_book,
)
from sealbus.bus.streams.signed_value import is_own, signed
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.encoding.codec import Value
from sealbus.envelopes.errors import SealbusError, StateUnavailable
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain

EVERY: Final = 3_600.0
"""Seconds after which a book is written although nothing has changed."""

_AGAIN: Final = Backoff(initial_interval=1.0, maximum_interval=60.0)
_REST_BYTES: Final = 8_192
"""Room for the other keys of the payload, which name the notary and its subject (at most 2,048 bytes each)."""
_ITEM_BYTES: Final = 5
"""Most bytes that the codec adds to each record."""

_logger: Final = logging.getLogger(__name__)


class KeyBookWriter:
    """The writer of one notary's key book, which runs while the notary holds the lease.

    The book is dated by the broker's time, which a request about the log's `stream` tells.
    """

    def __init__(
        self, *, identity: Identity, transport: Transport, names: Names, clock: Clock, stream: str = AUDIT
    ) -> None:
        self._identity = identity
        self._transport = transport
        self._names = names
        self._clocks = ClockDifference(lambda: transport.broker_time(stream), clock=HostClock(clock))
        """A book that is dated by a wrong clock counts nowhere, and nobody would learn what was restored until the next."""
        self._caches = Caches()
        self._subject = key_book_subject(names.token(identity.spiffe_id))
        self._changed = asyncio.Event()
        self._problem = ""
        self._dropped = 0

    @property
    def problem(self) -> str:
        """Why the last book was not written, in a few words; empty if it was."""
        return self._problem

    def changed(self) -> None:
        """Write a new book soon, because the history has changed."""
        self._changed.set()

    async def write_books(self, history: TrustHistory, restored: Sequence[RestoredStream] = ()) -> None:
        """Write the bundles of `history` and the `restored` streams, oldest first, until cancelled.

        Failures are retried after a second, and then less often.
        """
        held = Held(
            self._transport,
            trust=lambda: Trust(bundles=self._identity.bundles()),
            past=_Known(history),
            names=self._names,
            caches=self._caches,
            clock=BusClock(self._clocks.now),
        )
        places = [held.following(self._subject, KEY_BOOK_TYPE) for _ in range(2)]
        failures = 0
        while True:
            self._changed.clear()
            try:
                await self._write(held, places, history, restored)
            except SealbusError as error:
                failures += 1
                if self._problem != (problem := f"the key book is not written: {error.detail}"):
                    _logger.warning("%s", problem)
                self._problem = problem
                await asyncio.sleep(_AGAIN.interval(failures))
                continue
            failures, self._problem = 0, ""
            try:
                async with asyncio.timeout(EVERY):
                    await self._changed.wait()
            except TimeoutError:
                _logger.debug("the key book is written again, although nothing has changed")

    async def _write(
        self, held: Held, places: Sequence[HeldSubject], history: TrustHistory, restored: Sequence[RestoredStream]
    ) -> None:
        if not history.trust_domains:
            raise StateUnavailable("no bundle is known yet")
        if (problem := await self._clocks.measure()) is not None:
            raise problem
        sealer = self._identity.sealer()
        if not self._counts_now(sealer):
            raise StateUnavailable("the key of the notary's SVID is not in the bundle, or no longer")
        before, last = await self._last(places)
        former = former_book(before)
        needed = continued(history, former).since(max(0, self._clocks.now() - KEPT))
        # A stream that was restored longer ago than values are kept holds nothing that readers still need.
        known = all_restored(restored, former, began=min(record.current for record in history.since(0)))
        recent = [stream.line for stream in known if stream.created >= self._clocks.now() - KEPT][-MOST_RESTORED:]
        named: dict[str, Value] = {RESTORED: list(recent)} if recent else {}
        records = fitting(needed, reserved=sum(len(line) + _ITEM_BYTES for line in recent))
        if (dropped := len(needed) - len(records)) > self._dropped:
            _logger.warning(
                "%s: too large, the %d oldest of %d bundles are left out", self._subject, dropped, len(needed)
            )
        self._dropped = dropped
        written = await held.write(
            self._subject,
            {RECORDS: [record.encode() for record in records], **named},
            KEY_BOOK_TYPE,
            sealer,
            before=before,
            last=last,
        )
        if written is None:
            raise StateUnavailable("another value was stored there meanwhile")

    def _counts_now(self, sealer: Sealer) -> bool:
        """Return whether readers would accept a signature of `sealer`: bundles may change before the SVID does."""
        own, trust = self._identity.spiffe_id, Trust(bundles=self._identity.bundles())
        parts = signed(b"", KEY_BOOK_TYPE, sealer)
        return is_own(parts, KEY_BOOK_TYPE, own=own, at=self._clocks.now(), trust=trust, caches=self._caches)

    async def _last(self, places: Sequence[HeldSubject]) -> tuple[HeldValue | None, int]:
        """Return the former book, by any notary under this identity, and the last sequence of its subject."""
        recent = max(0, self._clocks.now() - YOUNG)
        young, whole = places
        before, last = await young.standing(since=recent)
        if before is None:
            # After hours without a notary, or at the first start: the numbers continue from an old book too.
            before, last = await whole.standing()
        return before, last


class _Known:
    """The trust that this notary remembers, to recognise its own books of last week."""

    def __init__(self, history: TrustHistory) -> None:
        self._history = history

    async def at(self, time: int) -> Sequence[Trust]:
        """Return the trust of `time`."""
        return [Trust(bundles=bundles) for bundles in self._history.at(time)]


def former_book(before: HeldValue | None) -> BookContents:
    """Return the contents of the book `before`; no contents if there is none, or it breaks a rule."""
    try:
        return read_book(before) if before is not None else BookContents(TrustHistory())
    except StateUnavailable:
        return BookContents(TrustHistory())


def continued(history: TrustHistory, former: BookContents) -> TrustHistory:
    """Return `history` with the bundles of the former book that precede its first bundle of each trust domain."""
    records = history.since(0)
    first: dict[TrustDomain, int] = {}
    for record in records:
        first.setdefault(record.trust_domain, record.current)
    earlier = [
        record
        for record in former.history.since(0)
        if record.current < first.get(record.trust_domain, record.current + 1)
    ]
    return TrustHistory([*earlier, *records])


def all_restored(restored: Sequence[RestoredStream], former: BookContents, *, began: int) -> list[RestoredStream]:
    """Return the streams that the log names as `restored`, after those of the former book from before the log `began`.

    The log of a period does not name the streams that were restored in an earlier one.
    """
    return [*(stream for stream in former.restored if stream.created < began), *restored]


def fitting(records: Sequence[BundleRecord], *, reserved: int = 0) -> list[BundleRecord]:
    """Return the newest of `records`, as many as a book holds, without certificates and in their order.

    `reserved` bytes are left for other contents. Trust domains share the room: a domain with many or large bundles loses its
    own old bundles, not those of others.
    """
    waiting: dict[str, deque[BundleRecord]] = {}
    for record in reversed(records):
        plain = BundleRecord(trust_domain=record.trust_domain, current=record.current, jwt=record.jwt)
        waiting.setdefault(record.trust_domain.name, deque()).append(plain)
    sizes = dict.fromkeys(waiting, 0)
    room, fitted = PAYLOAD_BYTES - _REST_BYTES - reserved, list[BundleRecord]()
    while waiting and len(fitted) < PAYLOAD_ITEMS:
        domain = min(waiting, key=lambda name: (sizes[name], name))
        record = waiting[domain].popleft()
        size = len(record.encode()) + _ITEM_BYTES
        if size > room:
            # Older bundles of this trust domain are left out too: a gap would give its times to the wrong bundle.
            del waiting[domain]
            continue
        room, sizes[domain] = room - size, sizes[domain] + size
        fitted.append(record)
        if not waiting[domain]:
            del waiting[domain]
    return sorted(fitted, key=lambda record: (record.current, record.trust_domain.name))

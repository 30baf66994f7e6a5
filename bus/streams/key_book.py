"""The key book: a notary's statement of the bundles that were current in the last 32 days, for values in HELD.

::

    held.<notary's token>.keys      rec: encoded `bundle` records (SPEC.md section 8), without certificates
                                    rst: streams that were restored from a backup, a line each; absent if none was

A JWT key leaves its bundle about a day after its last use; values that it signed earlier then verify only by a book. A book
counts only under a key that is in its bundle now, so that no book vouches for another. It counts for three hours, in which
the notary writes the next: an attacker who withholds books cannot keep an old one in force.

Processes also learn of restored streams from the book. The notary names a restored stream once its log does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sealbus.bus.clocks import UNMEASURED_CLOCK, BusClock
from sealbus.bus.ports import Transport
from sealbus.bus.streams.declared import HELD_SECONDS
from sealbus.bus.streams.held import Held, HeldValue
from sealbus.envelopes.errors import BundleRefused, EnvelopeError, LogError, SealbusError, StateUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.log.restoration import parse_stream
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.records.record import parse_record
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

KEY_BOOK_TYPE: Final = "application/vnd.sealbus.keys.v1"
"""The type of the book's signature; a signature of another type does not count."""
RECORDS: Final = "rec"
"""The key of the payload that holds the records."""
RESTORED: Final = "rst"
"""The key of the payload that holds the lines of restored streams."""
MOST_RESTORED: Final = 256
"""Most restored streams that a book names. It names the newest."""

KEPT: Final = HELD_SECONDS * SECOND
"""How far back a book goes, in microseconds: as long as HELD keeps a value."""
YOUNG: Final = 3 * 3_600 * SECOND
"""The greatest age of a book that counts, in microseconds."""

_CACHED: Final = 60.0
"""Seconds until a book is read again."""
_AGAIN: Final = 5.0
"""Seconds until a book is read again if none counted, so that not every forged value costs a read."""
_WITHIN: Final = 5.0

_logger: Final = logging.getLogger(__name__)


def key_book_subject(token: str) -> str:
    """Return the subject of the key book of the notary whose SPIFFE ID has `token`."""
    return f"held.{token}.keys"


class RestoredStreams(Protocol):
    """Knows which streams were restored from a backup."""

    async def restored(self, created: int) -> Sequence[RestoredStream]:
        """Return the restorations of all streams, including those of any stream that was created at `created`.

        Raises `StateUnavailable` if they are not known now, but may be known later.
        """


class _NothingRestored:
    async def restored(self, created: int) -> Sequence[RestoredStream]:
        del created
        return ()


nothing_restored: Final[RestoredStreams] = _NothingRestored()
"""For a process that knows no notary: no stream counts as restored."""


@dataclass(frozen=True, slots=True)
class _Book:
    number: int
    at: int
    stored: int
    contents: BookContents

    def is_young(self, now: int) -> bool:
        return -DEFAULT_LIMITS.stored_within <= now - self.at <= YOUNG


class KeyBook:
    """`PastTrust` by the key books of `notaries`, read on demand; one book that counts is enough.

    `trust` is the current trust. Its bundles verify the books, and its revocations hold for the past as well.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        notaries: Collection[SpiffeId],
        trust: Callable[[], Trust],
        names: Names,
        caches: Caches,
        clock: BusClock = UNMEASURED_CLOCK,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        # Only the current bundles verify a book: a book must not make itself, or another book, count.
        held = Held(transport, trust=trust, names=names, caches=caches, clock=clock)
        self._transport = transport
        self._notaries = {names.token(notary): notary for notary in notaries}
        self._following = {token: held.following(key_book_subject(token), KEY_BOOK_TYPE) for token in self._notaries}
        self._trust = trust
        self._clock = clock
        self._monotonic = monotonic
        self._books: dict[str, _Book] = {}
        self._reading = asyncio.Lock()
        self._until = self._again = float("-inf")
        self._why = "no key book was read"

    async def at(self, time: int) -> Sequence[Trust]:
        """Return the trust of `time` by each book that counts, with the bundles of that time and current revocations.

        Empty for times over 32 days ago. Raises `StateUnavailable` while no book counts, after at most 5 s for each notary.
        """
        now = self._clock()
        if time < now - KEPT:
            return ()
        async with self._reading:
            if self._monotonic() >= self._until:
                await self._read()
        books = [book for book in self._books.values() if book.is_young(now)]
        if not books:
            raise StateUnavailable(f"the keys of the past are not known: {self._why}")
        revoked = self._trust().revoked_before
        return [
            Trust(bundles=bundles, revoked_before=revoked)
            for book in books
            for bundles in book.contents.history.at(time)
        ]

    async def restored(self, created: int) -> Sequence[RestoredStream]:
        """Return the restored streams that the books name.

        One book that counts is enough if it names a stream that was created at `created`. That none was restored then takes a
        book of each cell that was stored after that: a notary knows of its own cell alone, and writes no book before its log
        names the restored streams. Raises `StateUnavailable` while there is none, after at most 5 s for each notary.
        """
        async with self._reading:
            if (streams := self._restored(created)) is None and self._monotonic() >= self._again:
                await self._read()
                streams = self._restored(created)
        if streams is None:
            raise StateUnavailable("no notary has said yet whether this stream was restored")
        return streams

    def _restored(self, created: int) -> Sequence[RestoredStream] | None:
        now = self._clock()
        books = {token: book for token, book in self._books.items() if book.is_young(now)}
        streams = [stream for book in books.values() for stream in book.contents.restored]
        if any(stream.created == created for stream in streams):
            return streams
        later = {self._cell_of(token) for token, book in books.items() if book.stored >= created}
        return streams if later and later == {*map(self._cell_of, self._notaries)} else None

    def _cell_of(self, token: str) -> str:
        """Return the cell of a notary."""
        return next(iter(self._transport.cells_of(key_book_subject(token))))

    async def _read(self) -> None:
        counted = False
        for token, notary in self._notaries.items():
            try:
                book = await self._newer(token, notary)
            except SealbusError as error:
                self._why = error.detail
            else:
                self._books[token] = book
                counted = True
        if not counted:
            _logger.warning("the keys of the past are not known: %s", self._why)
        now = self._monotonic()
        self._until, self._again = now + (_CACHED if counted else _AGAIN), now + _AGAIN

    async def _newer(self, token: str, notary: SpiffeId) -> _Book:
        """Return the book of `notary` that counts now; raise `StateUnavailable` if there is none."""
        now, previous = self._clock(), self._books.get(token)
        since = max(0, now - YOUNG - DEFAULT_LIMITS.stored_within)
        value, _ = await self._following[token].standing(since=since, within=_WITHIN)
        if value is None:
            raise StateUnavailable(f"no key book of {notary} counts now")
        # A new log that does not know the former one starts at number 1; by then older books are too old anyway.
        if previous is not None and previous.is_young(now) and value.number <= previous.number:
            if (value.number, value.at) == (previous.number, previous.at):
                return previous
            raise StateUnavailable(f"the key book of {notary} is older than the one seen before")
        book = _Book(value.number, value.at, value.stored, await asyncio.to_thread(read_book, value))
        if not book.is_young(now):
            raise StateUnavailable(f"the key book of {notary} is too old")
        return book


@dataclass(frozen=True, slots=True)
class BookContents:
    """The contents of a key book: the history of bundles, and the restored streams, the oldest first."""

    history: TrustHistory
    restored: tuple[RestoredStream, ...] = ()


def read_book(value: HeldValue) -> BookContents:
    """Take the contents out of a book, once. Raises `StateUnavailable` if the book breaks a rule."""
    try:
        records = [parse_record(encoded) for encoded in value.keys.some_octets(RECORDS)]
        restored = tuple(parse_stream(line) for line in value.keys.some_texts(RESTORED))
        value.keys.end()
        history = TrustHistory(record for record in records if isinstance(record, BundleRecord) and not record.x509)
    except (EnvelopeError, BundleRefused, LogError) as error:
        raise StateUnavailable(f"{value.subject} is no key book") from error
    # A book has bundles without certificates alone, none twice, and at least one.
    if not records or len(history.since(0)) != len(records) or len(restored) > MOST_RESTORED:
        raise StateUnavailable(f"{value.subject} is no key book")
    return BookContents(history, restored)

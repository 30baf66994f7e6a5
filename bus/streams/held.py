"""Values that outlive a day, in the stream HELD, which keeps every version; the newest genuine version counts.

::

    [payload, signature, key, token, extra]    an encoded array; `payload` is signed, and names `extra` by its hash

Any agent can make the broker store its bytes under another agent's subject. So the stream erases nothing, and a payload names
its owner, its subject and its version. Bytes of others do not count, nor does an older version that was stored again. Bytes
without the form of a value are skipped, however many there are. Bytes with the form that are not genuine are forgeries: each
costs a reader a verification, and their number is bounded for each subject.

A write names the last sequence of its subject: if two processes write at the same moment, one write fails. If two versions
have the same number, which only a broken broker admits, the first counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final, NamedTuple, Protocol, TypeVar

from sealbus.bus.background import all_done
from sealbus.bus.clocks import UNMEASURED_CLOCK, BusClock
from sealbus.bus.nats.api import EXPECTED_LAST
from sealbus.bus.ports import Delivery, StoredValue, Transport
from sealbus.bus.stream_names import HELD
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.streams.signed_value import PARTS, is_own, signed
from sealbus.bus.telemetry import OperatorLog
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import (
    UNAUTHENTICATED_CODES,
    BusUnavailable,
    ConfigurationError,
    EnvelopeError,
    SealError,
    StateUnavailable,
)
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.fields import RecordMap
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.subjects import matches
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

PAYLOAD_BYTES: Final = 524_288
"""Most bytes of a payload. The largest payload is a key book."""
PAYLOAD_ITEMS: Final = 2_048
"""Most items of an array in a payload. It bounds the memory that the codec allocates for a forged payload (16 MB)."""
VALUE_BYTES: Final = 917_504
"""Most bytes of a stored value: less than the limit of a NATS message."""
FORGERIES: Final = 4_096
"""Most forgeries of one subject that have the form of a newer version. Each costs up to three verifications."""
FORGED_SUBJECTS: Final = 65_536
"""Subjects for which one reading counts forgeries. Beyond that only the time limit bounds it."""

_OWNER: Final = 1
"""The place of the owner's token in a subject."""
_CLAIMS: Final = 8
"""Versions of one subject that `between` verifies, the newest first."""
_NO_END: Final = 2**63
"""Above every sequence."""
_AT_ONCE: Final = 64
"""Messages after which other tasks get their turn: each message may cost two verifications."""

_logger: Final = logging.getLogger(__name__)

Verified = TypeVar("Verified")


class PastTrust(Protocol):
    """The bundles that were current in the past, for values whose keys may have left the current bundles."""

    async def at(self, time: int) -> Sequence[Trust]:
        """Return the trust to try for a signature of `time` (microseconds), besides the current trust.

        Raises `StateUnavailable` if the past is not known now, but may be known later.
        """


class _CurrentOnly:
    async def at(self, time: int) -> Sequence[Trust]:
        del time
        return ()


current_only: Final[PastTrust] = _CurrentOnly()
"""For a process that knows no notary: only keys in the current bundles count."""


async def verified_then(
    verify: Callable[[Trust], Verified], time: int, *, trust: Trust, past: PastTrust, needed: bool = False
) -> Verified:
    """Return what `verify` returns by the current `trust` or, for a key that it lacks, by the trust of `time`.

    Raises the last `EnvelopeError` of `verify`. With `needed`, `StateUnavailable` is raised while the trust of that time is
    not known; without it, the failure by the current trust stands then.
    """
    try:
        return verify(trust)
    except EnvelopeError as error:
        if error.code not in UNAUTHENTICATED_CODES:
            raise
        failure = error
    with nullcontext() if needed else suppress(StateUnavailable):
        for earlier in await past.at(time):
            try:
                return verify(earlier)
            except EnvelopeError as error:
                failure = error
    raise failure


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldValue:
    """The genuine version of a value that counts. `keys` are the keys of its payload that have no field here.

    `own` is its owner, and `number` counts versions from 1. `at` is when it was made (microseconds), `stored` when the
    broker stored it, or when this process sent it. `last` is the sequence of the last message of its subject, genuine or
    not; the next write names it.
    """

    subject: str
    own: SpiffeId
    keys: RecordMap = field(repr=False)
    extra: bytes = field(repr=False)
    number: int
    at: int
    stored: int
    last: int


@dataclass(frozen=True, slots=True)
class ClaimedValue:
    """A value of which everything is checked but the signature."""

    value: HeldValue
    parts: tuple[bytes, ...]


class Place(NamedTuple):
    """One subject of a scan: the sequences of its first and last message, and whether the scan saw all of its messages."""

    first: int
    last: int
    whole: bool


class Scan(NamedTuple):
    """Subjects in the order of their last messages. If it is not `complete`, a subject may have later messages."""

    places: Mapping[str, Place]
    complete: bool

    def has_more(self, sequence: int) -> bool:
        """Return whether a message may have been stored after `sequence` before the scan ended."""
        return not self.complete or any(place.last > sequence for place in self.places.values())


class Part(NamedTuple):
    """The values that count among the messages between two sequences, by subject; `last` is the last sequence that was read.

    `unsure` are subjects with more claims than were verified: another value may count there. `forged` is the number of
    forgeries among the verified claims.
    """

    values: Mapping[str, HeldValue]
    last: int
    unsure: frozenset[str]
    forged: int


class _HowRead(NamedTuple):
    """How a pattern is read, as `Held.newest` defines it."""

    payload_type: str
    since: int = 0
    within: float = 10.0
    flooded: bool = True
    fresh: bool = False
    patient: bool = False


class _HeldReading:
    """One reading of a pattern: the value that counts under each subject so far, and the number of forgeries."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.values: dict[str, HeldValue] = {}
        self.last: dict[str, int] = {}
        """The last sequence under each subject that has a value, and under `pattern` if it is a subject."""
        self.forged: dict[str, int] = {}
        self.flooded: set[str] = set()
        """Subjects with too many forgeries: a genuine version may stand behind them."""

    def note_message(self, subject: str, sequence: int) -> None:
        """Note the sequence of a message, genuine or not."""
        if subject == self.pattern or subject in self.values:
            self.last[subject] = max(sequence, self.last.get(subject, 0))

    def join(self, other: _HeldReading) -> None:
        """Take over what was read in another cell."""
        for subject, value in other.values.items():
            if subject not in self.values or self.values[subject].number < value.number:
                self.values[subject] = value
        for subject, sequence in other.last.items():
            self.last[subject] = max(sequence, self.last.get(subject, 0))
        self.flooded |= other.flooded
        for subject in self.flooded & self.values.keys():
            del self.values[subject]

    def count_forgery(self, subject: str) -> None:
        """Count a forgery."""
        if subject in self.forged or len(self.forged) < FORGED_SUBJECTS:
            self.forged[subject] = self.forged.get(subject, 0) + 1
            if self.forged[subject] >= FORGERIES:
                self.flooded.add(subject)


def _is_first(block: bytes) -> bool:
    """Return whether the server made sure that a message was the first of its subject.

    The server checks the header in which any write names the message before it. A message with two such headers, or with one
    for another subject, is not believed.
    """
    return block.count(EXPECTED_LAST.encode()) == 1 and b"\r\n%b: 0\r\n" % EXPECTED_LAST.encode() in block


class Held:
    """The values in HELD as one process reads and writes them.

    `trust` is the current trust, `past` that of earlier times. The second token of a subject is its owner's. `clock` must
    agree with the broker's clock: a value that is stored over a minute after it was made never counts.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        trust: Callable[[], Trust],
        past: PastTrust = current_only,
        names: Names,
        caches: Caches,
        clock: BusClock = UNMEASURED_CLOCK,
    ) -> None:
        self._transport = transport
        self._keyed = KeyValue(transport)
        self._trust = trust
        self._past = past
        self._names = names
        self._caches = caches
        self._clock = clock
        self._operator_log = OperatorLog(_logger)

    async def newest(
        self,
        pattern: str,
        payload_type: str,
        *,
        since: int = 0,
        within: float = 10.0,
        flooded: bool = True,
        fresh: bool = False,
        patient: bool = False,
    ) -> dict[str, HeldValue]:
        """Return the values that count, by subject that matches `pattern`; subjects without a value are left out.

        With `since` (microseconds) only versions stored from then on are read. All cells are read at once. Raises
        `BusUnavailable` if HELD of each cell cannot be read within `within` seconds, and `ConfigurationError` if there is no
        such stream. Raises `StateUnavailable` if a key is unknown and the past is not known now.

        A subject with `FORGERIES` raises `StateUnavailable` if `flooded`, and is left out otherwise, so that a reader of many
        subjects misses nothing of the others. With `fresh`, a message that was stored a moment ago and does not verify raises
        `StateUnavailable`: its key may be too new for our bundle. With `patient` the limit `within` holds for every
        64 messages instead of all, so that forgeries only delay the reader.
        """
        how = _HowRead(payload_type, since, within, flooded=flooded, fresh=fresh, patient=patient)
        reading = await self._read(pattern, how)
        return {subject: replace(value, last=reading.last[subject]) for subject, value in reading.values.items()}

    async def scan(self, pattern: str, *, after: int = 0, most: int, within: float = 10.0, cell: str = "") -> Scan:
        """Return the subjects of `pattern` with messages after sequence `after`, without reading any value.

        Sequences are those of one `cell` (`Transport.cells_of`), by default our own.

        The scan ends after `most` messages; it is then not `complete`. Raises `BusUnavailable` and `ConfigurationError` as
        `newest` does.
        """
        places: dict[str, Place] = {}
        looked = 0
        async with aclosing(self._messages(pattern, (after + 1, _NO_END), within, cell, headers_only=True)) as messages:
            async for delivery, sequence in messages:
                if looked >= most:
                    return Scan(places, complete=False)
                looked += 1
                place = places.pop(delivery.subject, None)
                if place is None:
                    # A scan from the beginning sees the first message of each subject.
                    place = Place(sequence, sequence, whole=not after or _is_first(delivery.header_block))
                # Kept in the order of each subject's last message.
                places[delivery.subject] = place._replace(last=sequence)
        return Scan(places, complete=True)

    async def between(
        self,
        pattern: str,
        payload_type: str,
        *,
        first: int,
        last: int,
        most_bytes: int,
        within: float = 10.0,
        cell: str = "",
    ) -> Part:
        """Return the values that count among the messages from sequence `first` to `last` of one `cell`, as in `scan`.

        Reading stops after `most_bytes`, perhaps before `last`. For a subject that has other messages or is `unsure`, only
        `newest` knows the value that counts. Raises as `newest` does.
        """
        claims: dict[str, list[ClaimedValue]] = {}
        sequences: dict[str, int] = {}
        size = 0
        async with aclosing(self._messages(pattern, (first, last), within, cell)) as messages:
            async for delivery, sequence in messages:
                if size >= most_bytes:
                    last = max(sequences.values())
                    break
                size += len(delivery.payload)
                sequences[delivery.subject] = sequence
                stored = StoredValue(sequence, delivery.payload, delivery.arrival.stored if delivery.arrival else 0)
                if (claimed := self.claimed(delivery.subject, stored)) is not None:
                    claims.setdefault(delivery.subject, []).append(claimed)
        values: dict[str, HeldValue] = {}
        unsure, forged = set[str](), 0
        for looked, (subject, candidates) in enumerate(claims.items()):
            if looked % _AT_ONCE == 0:
                await asyncio.sleep(0)
            # The sort is stable: of several versions with one number the first stored stays the first.
            for claimed in sorted(candidates, key=lambda claim: -claim.value.number)[:_CLAIMS]:
                if await self.is_genuine(claimed, payload_type):
                    values[subject] = replace(claimed.value, last=sequences[subject])
                    break
                forged += 1
            else:
                if len(candidates) > _CLAIMS:
                    unsure.add(subject)
        return Part(values, last, frozenset(unsure), forged)

    async def _messages(
        self, pattern: str, sequences: tuple[int, int], within: float, cell: str, *, headers_only: bool = False
    ) -> AsyncGenerator[tuple[Delivery, int], None]:
        """Yield the messages under `pattern` from the first to the last of `sequences`, each with its sequence."""
        first, last = sequences
        source = self._transport_of(pattern, cell).read(HELD, [pattern], start=first, headers_only=headers_only)
        try:
            async with asyncio.timeout(within), aclosing(source) as batches:
                async for batch in batches:
                    for delivery in batch:
                        # Whoever runs the broker may deliver more than was asked for.
                        if delivery.arrival is None or not matches(pattern, delivery.subject):
                            continue
                        if delivery.arrival.sequence > last:
                            return
                        yield delivery, delivery.arrival.sequence
                        if delivery.arrival.sequence == last:
                            return
        except TimeoutError as error:
            raise _slow(within, cell) from error

    async def standing(
        self, subject: str, payload_type: str, *, since: int = 0, within: float = 10.0
    ) -> tuple[HeldValue | None, int]:
        """Return the value that counts under `subject`, and its last sequence, or 0 if nothing was stored since `since`.

        The sequence lets a write follow bytes of others if no value counts there. Raises as `newest` does.
        """
        reading = await self._read(subject, _HowRead(payload_type, since, within))
        value, last = reading.values.get(subject), reading.last.get(subject, 0)
        return (replace(value, last=last) if value is not None else None), last

    def following(self, subject: str, payload_type: str) -> HeldSubject:
        """Return a reader of `subject` that continues where its last reading ended, whatever forgeries stand there."""
        return HeldSubject(self, subject, payload_type)

    async def write(
        self,
        subject: str,
        keys: Mapping[str, Value],
        payload_type: str,
        sealer: Sealer,
        *,
        before: HeldValue | None = None,
        last: int = 0,
        extra: bytes = b"",
        within: float = 5.0,
    ) -> HeldValue | None:
        """Store the version that follows `before`, or the first; return it, or `None` if another was stored.

        The owner is the SPIFFE ID that `sealer` proves. `last` is the last sequence of a subject without a genuine value
        (`standing`). Raises `SealError` if no reader would accept the value: if it is too large or beyond the codec's bounds,
        or the subject is another owner's. Raises `BusUnavailable` as `KeyValue.create` does.
        """
        if before is not None and before.subject != subject:
            raise SealError(f"{subject}: the version before it is of another subject")
        payload = encode(
            {
                **keys,
                "v": 1,
                "own": sealer.iss.value,
                "sub": subject,
                "n": before.number + 1 if before is not None else 1,
                "at": self._clock(),
                "ext": sha256(extra).digest(),
            },
            text_bytes=DEFAULT_LIMITS.spiffe_id_bytes,
        )
        raw = encode([*signed(payload, payload_type, sealer), extra])
        if len(payload) > PAYLOAD_BYTES or len(raw) > VALUE_BYTES:
            raise SealError(f"{subject}: too large to be held")
        # A version that no reader accepts would stand in the way of the next.
        claimed = self.claimed(subject, StoredValue(0, raw, self._clock()))
        if claimed is None:
            raise SealError(f"{subject}: readers would not accept this value there")
        follows = before.last if before is not None else last
        if not follows and len(self._transport.cells_of(subject)) > 1:
            # Its owner was moved: the stream does not know what stands in the cell before, and may have bytes of others.
            newest, follows = await self.standing(subject, payload_type, within=within)
            if (newest.number if newest is not None else 0) != (before.number if before is not None else 0):
                return None
        sequence = await self._keyed.replace(subject, raw, last=follows, within=within)
        return replace(claimed.value, last=sequence) if sequence is not None else None

    async def _read(self, pattern: str, how: _HowRead) -> _HeldReading:
        """Read the values of each cell that may have some. An owner that was moved has some in two."""
        cells = self._transport.cells_of(pattern)
        if len(cells) == 1:
            return await self._read_cell(pattern, how)
        joined = _HeldReading(pattern)
        # The present cell last: of two versions with one number the first stored counts.
        for reading in reversed(await all_done(self._read_named(pattern, how, cell) for cell in cells)):
            joined.join(reading)
        return joined

    async def _read_named(self, pattern: str, how: _HowRead, cell: str) -> _HeldReading:
        try:
            return await self._read_cell(pattern, how, cell)
        except ConfigurationError as error:
            raise ConfigurationError(f"cell {cell}: {error.detail}") from error

    async def _read_cell(self, pattern: str, how: _HowRead, cell: str = "") -> _HeldReading:
        reading, within = _HeldReading(pattern), how.within
        try:
            async with (
                asyncio.timeout(within) as deadline,
                aclosing(self.stored(pattern, since=how.since, cell=cell)) as messages,
            ):
                looked = 0
                async for subject, stored in messages:
                    looked += 1
                    if how.patient and looked % _AT_ONCE == 1:
                        deadline.reschedule(asyncio.get_running_loop().time() + within)
                    reading.note_message(subject, stored.sequence)
                    newest = reading.values.get(subject)
                    claimed = self.claimed(subject, stored) if subject not in reading.flooded else None
                    if claimed is None or (newest is not None and claimed.value.number <= newest.number):
                        continue
                    if await self.is_genuine(claimed, how.payload_type):
                        reading.values[subject] = claimed.value
                        reading.note_message(subject, stored.sequence)
                        continue
                    if how.fresh and self.is_fresh(stored):
                        raise StateUnavailable(f"{subject}: a value that was stored a moment ago does not verify yet")
                    reading.count_forgery(subject)
                    if subject in reading.flooded:
                        if how.flooded:
                            raise StateUnavailable(f"{subject}: over {FORGERIES} values there are not genuine")
                        reading.values.pop(subject, None)
                        self._operator_log.warning(
                            "%s is left out: over %d values there are not genuine", subject, FORGERIES
                        )
        except TimeoutError as error:
            raise _slow(within, cell) from error
        return reading

    async def stored(
        self, pattern: str, *, since: int = 0, cell: str = ""
    ) -> AsyncGenerator[tuple[str, StoredValue], None]:
        """Yield the messages that HELD of one `cell` has now on the subjects of `pattern`, genuine or not, in order.

        By default it is our own cell, or the only one that may have them. `since` is as in `newest`. Raises as
        `Transport.values` does.
        """
        looked = 0
        async with aclosing(self._transport_of(pattern, cell).values(HELD, pattern, since=since)) as batches:
            async for batch in batches:
                for subject, stored in batch:
                    looked += 1
                    if looked % _AT_ONCE == 0:
                        await asyncio.sleep(0)
                    # Whoever runs the broker may deliver more than was asked for.
                    if not matches(pattern, subject):
                        continue
                    present, *before = self._transport.cells_of(subject) if cell else ("",)
                    if cell == present:
                        yield subject, stored
                    elif cell in before:
                        # The owner was moved. A write names the last message of its present cell.
                        yield subject, stored._replace(sequence=0)

    def _transport_of(self, pattern: str, cell: str) -> Transport:
        cells = self._transport.cells_of(pattern)
        if cell and cell not in cells:
            raise BusUnavailable(f"cell {cell}: there is no such cell now")
        return cells[cell] if cell else next(iter(cells.values()))

    def is_fresh(self, stored: StoredValue) -> bool:
        """Return whether a message was stored so lately that its key may be too new for our bundle."""
        return self._clock() < stored.stored + DEFAULT_LIMITS.key_awaited

    def claimed(self, subject: str, stored: StoredValue) -> ClaimedValue | None:
        """Return the value that a message claims to be, or `None` if it cannot be one of `subject` and its time."""
        if len(stored.payload) > VALUE_BYTES:
            return None
        try:
            array = decode(stored.payload, items=PARTS + 1, step=0)
            parts = tuple(part for part in array if isinstance(part, bytes)) if isinstance(array, list) else ()
            if len(parts) != PARTS + 1 or len(parts[0]) > PAYLOAD_BYTES:
                return None
            keys = RecordMap(decode(parts[0], items=PAYLOAD_ITEMS, text_bytes=DEFAULT_LIMITS.spiffe_id_bytes, step=0))
            own, place = SpiffeId.parse(keys.text("own")), keys.text("sub")
            number, at, extra = keys.uint("n"), keys.uint("at"), keys.octets("ext")
        except EnvelopeError:
            return None
        tokens = subject.split(".")
        if len(tokens) <= _OWNER or self._names.token(own) != tokens[_OWNER] or place != subject or number < 1:
            return None
        if sha256(parts[PARTS]).digest() != extra:
            return None
        # A value made long before it was stored would bring back a key that has been rotated away since.
        time = stored.stored
        if not at - DEFAULT_LIMITS.clock_skew <= time <= at + DEFAULT_LIMITS.stored_within:
            return None
        value = HeldValue(
            subject=subject, own=own, keys=keys, extra=parts[PARTS], number=number, at=at, stored=time, last=0
        )
        return ClaimedValue(value, parts[:PARTS])

    async def is_genuine(self, claimed: ClaimedValue, payload_type: str) -> bool:
        """Return whether its owner signed a value. Raises `StateUnavailable` if the past is not known now."""
        own, at = claimed.value.own, claimed.value.at
        if is_own(claimed.parts, payload_type, own=own, at=at, trust=self._trust(), caches=self._caches):
            return True
        return any(
            is_own(claimed.parts, payload_type, own=own, at=at, trust=past, caches=self._caches)
            for past in await self._past.at(at)
        )


class HeldSubject:
    """Reads the value that counts under one subject, continuing where the last reading ended; made by `Held.following`.

    Each message is verified once. A reading that runs out of time continues with the next call, so that forgeries delay a
    reader and hide nothing from it.
    """

    def __init__(self, held: Held, subject: str, payload_type: str) -> None:
        self._held = held
        self._subject = subject
        self._type = payload_type
        self._known: StoredValue | None = None
        """The message with the value that counts."""
        self._number = 0
        """The number of that value."""
        self._read = _Position()

    async def standing(self, *, since: int = 0, within: float = 10.0) -> tuple[HeldValue | None, int]:
        """Return the value that counts among messages stored from `since` on (microseconds), and the subject's last sequence.

        The sequence is 0 if no message was ever read. A later call must not have an earlier `since`. Raises as `Held.newest`
        does, but not for the number of forgeries.
        """
        if self._known is not None and self._known.stored < since:
            # A value from before `since` no longer counts, so its number must not outrank later ones.
            self._forget(_Position(sequence=self._read.sequence))
        again: _Position | None = None
        waiting = 0
        begin = max(since, self._read.stored - DEFAULT_LIMITS.clock_skew)
        try:
            async with asyncio.timeout(within), aclosing(self._held.stored(self._subject, since=begin)) as messages:
                async for _, stored in messages:
                    if stored.sequence <= self._read.sequence:
                        # A broker's clock may step back a little, but its sequences only if the stream was made again.
                        if stored.stored <= self._read.stored:
                            continue
                        self._forget(_Position())
                    before = self._read
                    claimed = self._held.claimed(self._subject, stored)
                    if claimed is not None and claimed.value.number > self._number:
                        if await self._held.is_genuine(claimed, self._type):
                            self._known, self._number = stored, claimed.value.number
                        elif self._held.is_fresh(stored):
                            again, waiting = again or before, waiting + 1
                    self._read = _Position(max(before.stored, stored.stored), stored.sequence)
        except TimeoutError as error:
            raise _slow(within) from error
        last = self._read.sequence
        if again is not None and waiting <= FORGERIES:
            # Our bundle may lag behind their keys: the next reading tries these messages again.
            self._read = again
        # Parsed again, because a reader takes the keys out of the value.
        claimed = self._held.claimed(self._subject, self._known) if self._known is not None else None
        return (replace(claimed.value, last=last) if claimed is not None else None), last

    def _forget(self, read: _Position) -> None:
        self._known, self._number, self._read = None, 0, read


class _Position(NamedTuple):
    """The latest stored time and the last sequence that were read of a subject."""

    stored: int = 0
    sequence: int = 0


def _slow(within: float, cell: str = "") -> BusUnavailable:
    where = f"cell {cell}: " if cell else ""
    return BusUnavailable(f"{where}{HELD} was not read within {within:g} s")

"""Values that outlive a day, in the stream HELD: every version of each, of which the newest genuine one counts.

::

    [payload, signature, key, token, extra]    an encoded array; `payload` is signed, and names `extra` by its hash

Others can make the broker store their bytes under anybody's subject. So nothing here is erased by what comes after it, and
a value says whose it is, where it stands, and which version it is: bytes of others count for nothing, nor does an older
version that somebody stored again. Bytes without the form of a value are passed over, however many there are. Those with the
form that are not genuine cost a reader a verification each, and are bounded for each subject.

A write names the last sequence of its subject, so that of two processes that write at the same moment one fails. Of two
versions with one number, which only a broken broker could have let in, the first counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.api import EXPECTED_LAST
from sealbus.bus.ports import Clock, Delivery, StoredValue, Transport
from sealbus.bus.stream_names import HELD
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.streams.signed_value import PARTS, is_own, signed
from sealbus.bus.telemetry import OperatorLog
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import BusUnavailable, EnvelopeError, SealError, StateUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.fields import RecordMap
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.subjects import matches
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = [
    "FORGERIES",
    "PAYLOAD_BYTES",
    "PAYLOAD_ITEMS",
    "VALUE_BYTES",
    "Held",
    "HeldSubject",
    "HeldValue",
    "Part",
    "PastTrust",
    "Place",
    "Scan",
    "current_only",
]

PAYLOAD_BYTES: Final = 524_288
"""Most bytes of a payload: a key book's; others are smaller."""
PAYLOAD_ITEMS: Final = 2_048
"""Most items of an array in a payload, which bounds what the codec allocates for one that is made up (16 MB)."""
VALUE_BYTES: Final = 917_504
"""Most bytes of a stored value: less than a NATS message holds."""
FORGERIES: Final = 4_096
"""Most messages of one subject that have the form of a newer version and are not genuine; other bytes do not count.

Each costs up to three verifications."""
FORGED_SUBJECTS: Final = 65_536
"""Subjects for which one reading counts them: with more, time bounds it alone."""

_OWNER: Final = 1
"""The place of the owner's token in a subject."""
_CLAIMS: Final = 8
"""Versions of one subject that are verified where many subjects are read together, the newest first."""
_NO_END: Final = 2**63
"""Above every sequence."""
_AT_ONCE: Final = 64
"""Messages after which others get their turn: each may cost two verifications."""

_log: Final = logging.getLogger(__name__)


class PastTrust(Protocol):
    """The bundles that were current in the past, for values whose keys may be gone by now."""

    async def at(self, time: int) -> Sequence[Trust]:
        """Return the trust to try for what was signed at `time` (microseconds), besides the current one.

        Raises `StateUnavailable` if that is not known now, but may be known later.
        """


class _CurrentOnly:
    async def at(self, time: int) -> Sequence[Trust]:
        del time
        return ()


current_only: Final[PastTrust] = _CurrentOnly()
"""For who knows no notary: only keys that are still in their bundles count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldValue:
    """The genuine version of a value that counts. `keys` are those of its payload beside what is here.

    `own` is whose it is, `number` counts versions from 1, `at` is when it was made (microseconds), `stored` when the broker
    had it (for what was written here: when it was sent), `last` the sequence of the last message of its subject, genuine or
    not, which a write names.
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
    """A value as it claims to be: everything is checked but who signed it."""

    value: HeldValue
    parts: tuple[bytes, ...]


class Place(NamedTuple):
    """A subject as a scan has found it: the sequences of its first and last message there, and whether it saw all of it."""

    first: int
    last: int
    whole: bool


class Scan(NamedTuple):
    """Subjects in the order of their last messages. One that is not `complete` may not have seen the last of each."""

    places: Mapping[str, Place]
    complete: bool

    def has_more(self, sequence: int) -> bool:
        """Return whether something may have been stored after `sequence`, by when this was made."""
        return not self.complete or any(one.last > sequence for one in self.places.values())


class Part(NamedTuple):
    """What counts of what was stored from one sequence to another, by subject, and up to where it was read.

    `unsure` are subjects with more claims than were verified, under which another value may count. `forged` is how many of
    those that were verified are not genuine.
    """

    values: Mapping[str, HeldValue]
    last: int
    unsure: frozenset[str]
    forged: int


class _HeldReading:
    """One reading of a pattern: what counts under each subject so far, and what did not verify."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.values: dict[str, HeldValue] = {}
        self.last: dict[str, int] = {}
        """The last sequence under each subject that has a value, and under the one that was asked for."""
        self.forged: dict[str, int] = {}
        self.flooded: set[str] = set()
        """Subjects with more forgeries than are looked at: whether a genuine one is behind them is not known."""

    def saw(self, subject: str, sequence: int) -> None:
        """Note the sequence of a message, genuine or not."""
        if subject == self.pattern or subject in self.values:
            self.last[subject] = sequence

    def forgery(self, subject: str) -> None:
        """Count a message that has the form of a value and is not genuine."""
        if subject in self.forged or len(self.forged) < FORGED_SUBJECTS:
            self.forged[subject] = self.forged.get(subject, 0) + 1
            if self.forged[subject] >= FORGERIES:
                self.flooded.add(subject)


def _is_first(block: bytes) -> bool:
    """Return whether the server has seen to it that a message was the first of its subject.

    It checks the header by which a write names the message before it, whoever stored the message. A message that has it
    twice, or says that it is about another subject, is not believed.
    """
    return block.count(EXPECTED_LAST.encode()) == 1 and b"\r\n%b: 0\r\n" % EXPECTED_LAST.encode() in block


class Held:
    """The values in HELD as one process reads and writes them.

    `trust` is the current one, `past` that of earlier times. A value's owner is the workload whose token is the second
    in its subject. `clock` has to agree with the broker's: what is stored over a minute after it was made never counts.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        trust: Callable[[], Trust],
        past: PastTrust = current_only,
        names: Names,
        caches: Caches,
        clock: Clock = wall_clock,
    ) -> None:
        self._transport = transport
        self._keyed = KeyValue(transport)
        self._trust = trust
        self._past = past
        self._names = names
        self._caches = caches
        self._clock = clock
        self._said = OperatorLog(_log)

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
        """Return what counts under each subject that matches `pattern`, by subject; subjects without are left out.

        With `since` (microseconds) only versions stored from then on are looked at. Raises `BusUnavailable` if HELD cannot be
        read within `within` seconds, `ConfigurationError` if there is no such stream, and `StateUnavailable` where a key is
        unknown and the past is not known now, or where a subject has `FORGERIES` that are not genuine. Without `flooded` such
        a subject is left out, which is for a reader of many: it misses nothing of the others. With `fresh` it also raises
        `StateUnavailable` for what does not verify and was stored a moment ago: its key may be too new for our bundle.

        A reader that is `patient` gives each few messages `within` seconds, and not all of them: whatever others have stored
        there only delays it.
        """
        reading = await self._read(pattern, payload_type, since, within, flooded=flooded, fresh=fresh, patient=patient)
        return {subject: replace(one, last=reading.last[subject]) for subject, one in reading.values.items()}

    async def scan(self, pattern: str, *, after: int = 0, most: int, within: float = 10.0) -> Scan:
        """Return what was stored under which subject of `pattern` after sequence `after`, without reading any value.

        It ends after `most` messages: then it does not know whether a subject has others, and is not `complete`. Raises
        `BusUnavailable` and `ConfigurationError` as `newest` does.
        """
        places: dict[str, Place] = {}
        looked = 0
        async with aclosing(self._messages(pattern, after + 1, _NO_END, within, headers_only=True)) as messages:
            async for one, sequence in messages:
                if looked >= most:
                    return Scan(places, complete=False)
                looked += 1
                known = places.pop(one.subject, None)
                if known is None:
                    # From the beginning nothing is before what is there.
                    known = Place(sequence, sequence, whole=not after or _is_first(one.header_block))
                # In the order of the last message of each.
                places[one.subject] = known._replace(last=sequence)
        return Scan(places, complete=True)

    async def between(
        self, pattern: str, payload_type: str, *, first: int, last: int, most_bytes: int, within: float = 10.0
    ) -> Part:
        """Return what counts of what was stored from sequence `first` to `last`, and up to where it was read.

        That is `last`, or less: no more is read after `most_bytes`. Of a subject with other messages, or of one that is
        `unsure`, this is not what counts under it: `newest` says that. Raises as `newest` does.
        """
        claims: dict[str, list[ClaimedValue]] = {}
        sequences: dict[str, int] = {}
        size = 0
        async with aclosing(self._messages(pattern, first, last, within)) as messages:
            async for one, sequence in messages:
                if size >= most_bytes:
                    last = max(sequences.values())
                    break
                size += len(one.payload)
                sequences[one.subject] = sequence
                stored = one.arrival.stored if one.arrival is not None else 0
                if (claimed := self._claimed(one.subject, one.payload, stored)) is not None:
                    claims.setdefault(one.subject, []).append(claimed)
        found: dict[str, HeldValue] = {}
        unsure, forged = set[str](), 0
        for looked, (subject, those) in enumerate(claims.items()):
            if looked % _AT_ONCE == 0:
                await asyncio.sleep(0)
            # Of several with one number the first stored, which stays the first where they are sorted.
            for claimed in sorted(those, key=lambda one: -one.value.number)[:_CLAIMS]:
                if await self.is_genuine(claimed, payload_type):
                    found[subject] = replace(claimed.value, last=sequences[subject])
                    break
                forged += 1
            else:
                if len(those) > _CLAIMS:
                    unsure.add(subject)
        return Part(found, last, frozenset(unsure), forged)

    async def _messages(
        self, pattern: str, first: int, last: int, within: float, *, headers_only: bool = False
    ) -> AsyncGenerator[tuple[Delivery, int], None]:
        """Yield what is stored under `pattern` from sequence `first` to `last`, with its sequence."""
        source = self._transport.read(HELD, [pattern], start=first, headers_only=headers_only)
        try:
            async with asyncio.timeout(within), aclosing(source) as batches:
                async for batch in batches:
                    for one in batch:
                        # Whoever runs the broker may deliver more than was asked for.
                        if one.arrival is None or not matches(pattern, one.subject):
                            continue
                        if one.arrival.sequence > last:
                            return
                        yield one, one.arrival.sequence
                        if one.arrival.sequence == last:
                            return
        except TimeoutError as error:
            raise BusUnavailable(f"{HELD} was not read within {within:g} s") from error

    async def standing(
        self, subject: str, payload_type: str, *, since: int = 0, within: float = 10.0
    ) -> tuple[HeldValue | None, int]:
        """Return what counts under `subject`, and the last sequence there, 0 if nothing was stored there since `since`.

        With both a write can follow bytes of others where nothing that counts stands. Raises as `newest` does.
        """
        reading = await self._read(subject, payload_type, since, within)
        value, last = reading.values.get(subject), reading.last.get(subject, 0)
        return (replace(value, last=last) if value is not None else None), last

    def following(self, subject: str, payload_type: str) -> HeldSubject:
        """Return a reader of `subject` that goes on where it was: no number of forgeries hides from it what is genuine."""
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

        The value is that of the SPIFFE ID that `sealer` proves. `last` is the last sequence of the subject where nothing
        genuine stands (`standing`). Raises `SealError` for what no reader would take: a value that is too large, the subject
        of another owner, keys beyond the codec's bounds; `BusUnavailable` as `KeyValue.create` does.
        """
        if before is not None and before.subject != subject:
            raise SealError(f"{subject}: the version before it is another's")
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
        # A version that nobody can read would stand in the way of the next one.
        claimed = self._claimed(subject, raw, self._clock())
        if claimed is None:
            raise SealError(f"{subject}: not what its owner can hold there")
        follows = before.last if before is not None else last
        sequence = await self._keyed.replace(subject, raw, last=follows, within=within)
        return replace(claimed.value, last=sequence) if sequence is not None else None

    async def _read(
        self,
        pattern: str,
        payload_type: str,
        since: int,
        within: float,
        *,
        flooded: bool = True,
        fresh: bool = False,
        patient: bool = False,
    ) -> _HeldReading:
        reading = _HeldReading(pattern)
        try:
            async with (
                asyncio.timeout(within) as deadline,
                aclosing(self.stored(pattern, since=since)) as messages,
            ):
                looked = 0
                async for subject, stored in messages:
                    looked += 1
                    if patient and looked % _AT_ONCE == 1:
                        deadline.reschedule(asyncio.get_running_loop().time() + within)
                    reading.saw(subject, stored.sequence)
                    known = reading.values.get(subject)
                    claimed = self.claimed(subject, stored) if subject not in reading.flooded else None
                    if claimed is None or (known is not None and claimed.value.number <= known.number):
                        continue
                    if await self.is_genuine(claimed, payload_type):
                        reading.values[subject] = claimed.value
                        reading.saw(subject, stored.sequence)
                        continue
                    if fresh and self.is_fresh(stored):
                        raise StateUnavailable(f"{subject}: what was stored a moment ago does not verify yet")
                    reading.forgery(subject)
                    if subject in reading.flooded:
                        if flooded:
                            raise StateUnavailable(f"{subject}: over {FORGERIES} that are not genuine")
                        reading.values.pop(subject, None)
                        self._said.warning("%s is left out: over %d there are not genuine", subject, FORGERIES)
        except TimeoutError as error:
            raise _slow(within) from error
        return reading

    async def stored(self, pattern: str, *, since: int = 0) -> AsyncGenerator[tuple[str, StoredValue], None]:
        """Yield what HELD holds now on the subjects of `pattern`, genuine or not, in order.

        With `since` (microseconds) only what was stored from then on. Raises as `Transport.values` does.
        """
        looked = 0
        async with aclosing(self._transport.values(HELD, pattern, since=since)) as batches:
            async for batch in batches:
                for subject, stored in batch:
                    looked += 1
                    if looked % _AT_ONCE == 0:
                        await asyncio.sleep(0)
                    # Whoever runs the broker may deliver more than was asked for.
                    if matches(pattern, subject):
                        yield subject, stored

    def is_fresh(self, stored: StoredValue) -> bool:
        """Return whether a message was stored so lately that its key may be too new for our bundle."""
        return self._clock() < stored.stored + DEFAULT_LIMITS.key_awaited

    def claimed(self, subject: str, stored: StoredValue) -> ClaimedValue | None:
        """Return what a message claims to be, or `None` for what cannot be a value of `subject` that was stored then."""
        return self._claimed(subject, stored.payload, stored.stored)

    def _claimed(self, subject: str, raw: bytes, stored: int) -> ClaimedValue | None:
        if len(raw) > VALUE_BYTES:
            return None
        try:
            array = decode(raw, items=PARTS + 1, step=0)
            parts = tuple(one for one in array if isinstance(one, bytes)) if isinstance(array, list) else ()
            if len(parts) != PARTS + 1:
                return None
            if len(parts[0]) > PAYLOAD_BYTES:
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
        # What was made long before it was stored would bring back a key that has been rotated away since.
        if not at - DEFAULT_LIMITS.clock_skew <= stored <= at + DEFAULT_LIMITS.stored_within:
            return None
        value = HeldValue(
            subject=subject, own=own, keys=keys, extra=parts[PARTS], number=number, at=at, stored=stored, last=0
        )
        return ClaimedValue(value, parts[:PARTS])

    async def is_genuine(self, claimed: ClaimedValue, payload_type: str) -> bool:
        """Return whether its owner signed a value; raises `StateUnavailable` where that is not known now."""
        own, at = claimed.value.own, claimed.value.at
        if is_own(claimed.parts, payload_type, own=own, at=at, trust=self._trust(), caches=self._caches):
            return True
        return any(
            is_own(claimed.parts, payload_type, own=own, at=at, trust=past, caches=self._caches)
            for past in await self._past.at(at)
        )


class HeldSubject:
    """What counts under one subject, read on from where the last reading ended; made by `Held.following`.

    Each message is verified once, so that what others store there delays a reader and hides nothing from it: a reading that
    has no time left goes on with the next one.
    """

    def __init__(self, held: Held, subject: str, payload_type: str) -> None:
        self._held = held
        self._subject = subject
        self._type = payload_type
        self._known: StoredValue | None = None
        """The message with what counts."""
        self._number = 0
        """Its number."""
        self._read = _Position()

    async def standing(self, *, since: int = 0, within: float = 10.0) -> tuple[HeldValue | None, int]:
        """Return what counts of what was stored from `since` on (microseconds), and the last sequence of the subject.

        That is 0 where nothing was ever read. A later call has no earlier `since`. Raises as `Held.newest` does, but not for
        how much stands there.
        """
        if self._known is not None and self._known.stored < since:
            # Its number stands no longer in the way of those that have come since.
            self._forget(_Position(sequence=self._read.sequence))
        again: _Position | None = None
        waiting = 0
        begin = max(since, self._read.stored - DEFAULT_LIMITS.clock_skew)
        try:
            async with asyncio.timeout(within), aclosing(self._held.stored(self._subject, since=begin)) as messages:
                async for _, stored in messages:
                    if stored.sequence <= self._read.sequence:
                        # A broker's clock may step back a little, and its numbers only where the stream was made again.
                        if stored.stored <= self._read.stored:
                            continue
                        self._forget(_Position())
                    before = self._read
                    if await self._counts(stored):
                        self._known = stored
                    elif self._held.is_fresh(stored) and self._is_newer(stored):
                        again, waiting = again or before, waiting + 1
                    self._read = _Position(max(before.stored, stored.stored), stored.sequence)
        except TimeoutError as error:
            raise _slow(within) from error
        last = self._read.sequence
        if again is not None and waiting <= FORGERIES:
            # Our bundle may lag behind their key: they are looked at once more.
            self._read = again
        # Parsed anew: a reader takes the keys out of it.
        claimed = self._held.claimed(self._subject, self._known) if self._known is not None else None
        return (replace(claimed.value, last=last) if claimed is not None else None), last

    async def _counts(self, stored: StoredValue) -> bool:
        claimed = self._held.claimed(self._subject, stored)
        if claimed is None or claimed.value.number <= self._number:
            return False
        if not await self._held.is_genuine(claimed, self._type):
            return False
        self._number = claimed.value.number
        return True

    def _is_newer(self, stored: StoredValue) -> bool:
        claimed = self._held.claimed(self._subject, stored)
        return claimed is not None and claimed.value.number > self._number

    def _forget(self, read: _Position) -> None:
        self._known, self._number, self._read = None, 0, read


class _Position(NamedTuple):
    """How far a subject was read: the latest stored time, and the last sequence."""

    stored: int = 0
    sequence: int = 0


def _slow(within: float) -> BusUnavailable:
    return BusUnavailable(f"{HELD} was not read within {within:g} s")

"""A tick: one instant of one schedule, which one process of its owner claims, sends and marks (SPEC.md section 7).

::

    nothing --create--> claimed --published--> sent          sent or void: done, by whichever process
                         |   `--left out-----> void
                         `--its time is over--> claimed by another process, which sends the same id

Claims are signed: bytes of others in the place of a claim are no claim. A claim lasts for less time than the stream remembers
ids. So if a process sends a tick and dies, the message of the next process is a duplicate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple

from sealbus.bus.ports import StoredValue
from sealbus.bus.site import Site
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.streams.signed_value import PARTS, is_own, signed
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import EnvelopeError, SealbusError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.fields import ExtValue, RecordMap

CLAIMED_FOR: Final = 45.0
"""Seconds for which a process has a tick to itself; streams remember ids for 120 s."""
TICK_MARK: Final = "_tick"
"""The mark of a task that a schedule sent: the instant of its tick, in microseconds."""

_TYPE: Final = "application/vnd.sealbus.tick.v1"
_LAST_TYPE: Final = "application/vnd.sealbus.last-tick.v1"
_BYTES: Final = 8_192
_MARKS: Final = 3
AGAIN: Final = SECOND
"""Microseconds until the next try, if another process was quicker."""


class Tick(NamedTuple):
    """The instant `time` (microseconds) of the schedule that the message with H(header) `grant` asked for."""

    grant: bytes
    time: int

    @property
    def digest(self) -> bytes:
        """The hash that names the tick."""
        return sha256(self.grant + self.time.to_bytes(8, "big")).digest()

    @property
    def message_id(self) -> bytes:
        """The id of its task, the same in every process; it has the form of a UUIDv7."""
        rest = bytearray(self.digest[16:26])
        rest[0] = 0x70 | (rest[0] & 0x0F)
        rest[2] = 0x80 | (rest[2] & 0x3F)
        return (self.time // 1_000).to_bytes(6, "big") + bytes(rest)

    @property
    def idempotency_key(self) -> str:
        """The idempotency key of its task, which `once` remembers for longer than a stream remembers the id."""
        return f"tick-{self.digest.hex()[:32]}"

    def subject(self, token: str) -> str:
        """Return the subject of its claim; `token` is the owner's."""
        return f"state.{token}.tick.{self.digest.hex()}"


class TickStage(StrEnum):
    """The progress of a tick."""

    CLAIMED = "claimed"
    SENT = "sent"
    VOID = "void"
    """It was left out: its predecessor had not ended, or the schedule no longer ticks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenTick:
    """A tick that this process has until `until`, and sends before `send_by` or not at all (both microseconds).

    `last` is the sequence of the claim. `fresh` means that no process of the owner can have sent the tick before.
    """

    tick: Tick
    last: int
    send_by: int
    until: int
    fresh: bool


class WaitingTick(NamedTuple):
    """A tick that another process has; try again at `until` (microseconds)."""

    until: int


class _Stored(NamedTuple):
    stage: TickStage
    until: int


class TickClaims:
    """The claims of one identity on ticks, each for `claimed_for` seconds, and which task each schedule sent last."""

    def __init__(self, site: Site, *, claimed_for: float = CLAIMED_FOR) -> None:
        self._site = site
        self._keyed = KeyValue(site.transport)
        self._token = site.token
        self._claimed_for = int(claimed_for * SECOND)

    async def claim(self, tick: Tick) -> TakenTick | WaitingTick | None:
        """Claim a tick; return the claim, or when to try again, or `None` if the tick was sent or left out.

        Raises `BusUnavailable`, `IdentityUnavailable`.
        """
        subject, now = tick.subject(self._token), self._site.bus_clock()
        until = now + self._claimed_for
        # Another process takes over at the end of the claim, by a clock that may differ from ours.
        send_by = until - self._claimed_for // 9
        claim = self._claim(subject, TickStage.CLAIMED, until=until)
        last = await self._keyed.create(subject, claim)
        if last is not None:
            return TakenTick(tick=tick, last=last, send_by=send_by, until=until, fresh=True)
        value = await self._keyed.get(subject)
        if value is None:
            # A replica that is behind answered.
            return WaitingTick(now + AGAIN)
        stored = self._parsed(subject, value)
        if stored is None:
            self._site.counters.add("sealbus_ticks_unverified_total", 1)
        elif stored.stage is not TickStage.CLAIMED:
            return None
        elif now < stored.until:
            return WaitingTick(stored.until)
        last = await self._keyed.replace(subject, claim, last=value.sequence)
        if last is None:
            return WaitingTick(now + AGAIN)
        return TakenTick(tick=tick, last=last, send_by=send_by, until=until, fresh=False)

    async def mark(self, taken: TakenTick, stage: TickStage) -> bool:
        """Write the outcome of a tick that this process has; return whether it was stored. Raises nothing."""
        subject = taken.tick.subject(self._token)
        for _ in range(_MARKS):
            try:
                stored = self._claim(subject, stage, until=taken.until)
                # If not, an earlier try was stored but not acknowledged, or our time was over.
                return await self._keyed.replace(subject, stored, last=taken.last) is not None
            except SealbusError:
                continue
        self._site.counters.add("sealbus_ticks_unmarked_total", 1)
        return False

    async def sent_last(self, name: str) -> tuple[int, PendingRequest] | None:
        """Return the time of the tick that the schedule `name` sent last, and its task, if known. Raises `BusUnavailable`."""
        subject = self._last_subject(name)
        value = await self._keyed.get(subject)
        keys = self._own(subject, value, _LAST_TYPE) if value is not None else None
        if keys is None:
            return None
        try:
            return keys.uint("t"), PendingRequest.parse(keys.octets("task"))
        except EnvelopeError:
            return None

    async def keep_sent(self, name: str, tick: Tick, task: PendingRequest) -> None:
        """Store which task a schedule sent last. Raises `BusUnavailable`, `IdentityUnavailable`."""
        subject = self._last_subject(name)
        fields: dict[str, Value] = {"t": tick.time, "task": task.encode()}
        stored = self._sign(subject, fields, _LAST_TYPE)
        value = await self._keyed.get(subject)
        await self._keyed.replace(subject, stored, last=value.sequence if value is not None else 0)

    def _last_subject(self, name: str) -> str:
        return f"state.{self._token}.last.{name}"

    def _claim(self, subject: str, stage: TickStage, *, until: int) -> bytes:
        return self._sign(subject, {"stage": stage.value, "until": until}, _TYPE)

    def _sign(self, subject: str, fields: dict[str, Value], payload_type: str) -> bytes:
        payload = encode({**fields, "v": 1, "sub": subject, "at": self._site.bus_clock()}, text_bytes=_BYTES)
        return encode([*signed(payload, payload_type, self._site.identity.sealer())], text_bytes=_BYTES)

    def _parsed(self, subject: str, value: StoredValue) -> _Stored | None:
        keys = self._own(subject, value, _TYPE)
        try:
            return _Stored(TickStage(keys.text("stage")), keys.uint("until")) if keys is not None else None
        except (EnvelopeError, ValueError):
            return None

    def _own(self, subject: str, value: StoredValue, payload_type: str) -> RecordMap | None:
        """Return the payload of a value that we signed for this place when it was stored; `None` for other values."""
        try:
            array = decode(value.payload, text_bytes=_BYTES, step=0) if len(value.payload) <= PARTS * _BYTES else None
            if not isinstance(array, list):
                return None
            parts = [part for part in array if isinstance(part, bytes)]
            if len(parts) != PARTS or len(array) != PARTS:
                return None
            keys = RecordMap(decode(parts[0], text_bytes=_BYTES, step=0))
            place, at = keys.text("sub"), keys.uint("at")
        except EnvelopeError:
            return None
        timely = at - DEFAULT_LIMITS.clock_skew <= value.stored <= at + DEFAULT_LIMITS.stored_within
        if place != subject or not timely:
            return None
        if not is_own(
            parts, payload_type, own=self._site.own, at=at, trust=self._site.trust(), caches=self._site.caches
        ):
            return None
        return keys


def tick_of(ext: Mapping[str, ExtValue] | None) -> int | None:
    """Return the instant of the tick of a task with these marks, in microseconds; `None` if no schedule sent it."""
    mark = (ext or {}).get(TICK_MARK)
    return mark if type(mark) is int else None

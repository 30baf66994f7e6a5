"""Poison messages: tasks and events whose handler ends its process, for instance because memory runs out.

A killed process reports nothing. The messages that it handled are delivered again and may end the next process, too. So a
redelivery is counted in STATE before its handler runs, unless this process knows how the previous attempt ended (SPEC.md
section 7, "Poison messages"):

::

    redelivered --> counted, handled beside others --> redelivered --> handled alone --> redelivered --> handled alone
                                                                                                              |
                                                             a dead letter, `killed` <-- redelivered <--------'

A message that is handled alone ends no other message's attempt, and no other message is blamed. A count is closed when the
handler has ended in this process, whatever its result, and when this process is told to stop. Counts are signed: if another
agent has stored bytes at the place of a count, the count starts again. Handlers declared `once` are not counted, because
their claim in STATE keeps them from running again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.work.executor.work import Work
from sealbus.bus.work.idempotency.claim_store import BusyEffect
from sealbus.bus.work.timely_arrays import TimelyArrays
from sealbus.envelopes.errors import (
    BusUnavailable,
    Code,
    HandlingError,
    IdentityUnavailable,
    SealbusError,
    StateUnavailable,
)
from sealbus.envelopes.trust.caches import BoundedMap

_logger = logging.getLogger(__name__)

ATTEMPTS: Final = "attempts"
"""The name of the counts."""

OWN_DEATHS: Final = 2
"""Processes that ended while they handled a message alone, after which it is a dead letter."""

ALONE_WITHIN: Final = 10.0
"""Seconds that a message waits until nothing else is handled; no other task or event begins meanwhile."""
ALONE_AGAIN: Final = 5.0
"""Seconds until the next try if the other messages took longer."""

REMEMBERED: Final = 65_536
"""Messages that this process put off, as many as it remembers."""


class InFlight(Protocol):
    """A table of the messages that this process handles now. It outlives the process in its parent's memory."""

    def enter(self, digest: bytes) -> int:
        """Note a message by the hash of its header (32 bytes) and return its place in the table."""

    def leave(self, place: int) -> None:
        """Free a place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptCount:
    """How a message's attempts ended: `deaths` of them ended their process while no other message was handled.

    While `open`, an attempt has begun whose end is not known; `alone` tells whether no other message was handled beside it.
    """

    deaths: int = 0
    alone: bool = False
    open: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.deaths < OWN_DEATHS:
            raise ValueError("too many deaths")

    def following(self) -> AttemptCount:
        """Return the count of the next attempt. Raises `HandlingError` `killed` if there is to be none."""
        if not self.open:
            return AttemptCount(deaths=self.deaths)
        deaths = self.deaths + self.alone
        if deaths >= OWN_DEATHS:
            raise HandlingError(Code.KILLED, f"{deaths} processes ended while they handled it alone")
        return AttemptCount(deaths=deaths, alone=True)


class _Counted(NamedTuple):
    attempts: AttemptCount
    sequence: int


_UNCOUNTED: Final = _Counted(AttemptCount(open=False), 0)


class PoisonGuard:
    """Keeps the messages of one worker from ending process after process, by its `counts` of the name `ATTEMPTS`.

    `running` holds the messages that are handled now. `apart` says that no other may begin, because one is handled alone.
    `in_flight` is read by the process after this one.
    """

    def __init__(
        self,
        *,
        counts: TimelyArrays,
        in_flight: InFlight | None = None,
    ) -> None:
        self._counts = counts
        self.in_flight = in_flight
        self._places: dict[Work, int] = {}
        self._counted: dict[Work, _Counted] = {}
        """The open counts of what is handled now."""
        self._put_off: BoundedMap[bytes, int] = BoundedMap(REMEMBERED)
        """The delivery of each message that this process put off once its handler had ended."""
        self._turn = asyncio.Lock()
        self._alone: Work | None = None
        self._quiet = asyncio.Event()
        self._over = asyncio.Event()
        self._operator_log = OperatorLog(_logger)
        self._stopping = False
        self.running: set[Work] = set()
        self.apart = False

    async def begin(self, work: Work) -> None:
        """Count an attempt if it is to be counted, and wait until the message may be handled; `end` it afterwards.

        Raises `HandlingError` `killed` for a poison message, `StateUnavailable` if its count cannot be read and written, and
        `BusyEffect` if other messages were handled for too long.
        """
        known = await self._known(work) if self._is_suspect(work) else None
        if known is not None and known.attempts.alone:
            await self._stand_alone(work)
        else:
            while self.apart:
                await self._over.wait()
            self.running.add(work)
        if known is not None:
            # After the wait: a message that waits is delivered again if this process hangs, and must not be blamed for that.
            try:
                await self._count(work, known)
            except StateUnavailable:
                self.end(work)
                raise
        if self.in_flight is not None:
            self._places[work] = self.in_flight.enter(work.header.digest)

    def end(self, work: Work) -> None:
        """Note that the handler has ended, or was given up. May be called again."""
        self.running.discard(work)
        if self.in_flight is not None and (place := self._places.pop(work, None)) is not None:
            self.in_flight.leave(place)
        if work is self._alone:
            self._alone, self.apart = None, False
            self._over.set()
            self._turn.release()
        elif self.apart and not self.running:
            self._quiet.set()

    async def close(self, work: Work) -> None:
        """Close the count of an attempt that has ended, if there is one. Raises nothing."""
        counted = self._counted.pop(work, None)
        if counted is None:
            return
        closed = AttemptCount(deaths=counted.attempts.deaths, open=False)
        try:
            await self._write(work.header.digest, closed, counted.sequence)
        except SealbusError as error:
            # The next attempt is then counted as if this one had ended its process.
            self._operator_log.warning("the end of an attempt is not counted: %s", error)

    def put_off(self, work: Work) -> None:
        """Remember that the attempt of this delivery has ended, so that the next one is not counted here."""
        self._put_off.put(work.header.digest, work.tried.number)

    async def suspect(self, digests: Iterable[bytes]) -> None:
        """Open a count for each message that the previous process was handling when it ended. Raises nothing."""
        for digest in digests:
            try:
                counted = await self._read(digest)
                if not counted.attempts.open:
                    await self._write(digest, AttemptCount(deaths=counted.attempts.deaths), counted.sequence)
            except SealbusError as error:
                self._operator_log.warning("what a process handled when it ended is not counted: %s", error)

    async def forgive(self) -> None:
        """Close all counts and open none any more: the process was told to stop, and may be ended. Raises nothing."""
        self._stopping = True
        # Together, because each waits for its whole time if STATE does not answer.
        await asyncio.gather(*[self.close(work) for work in list(self._counted)])

    def _is_suspect(self, work: Work) -> bool:
        number = work.tried.number
        known = self._put_off.get(work.header.digest)
        return number > 1 and not work.permitted.route.options.once and (known is None or known + 1 != number)

    async def _known(self, work: Work) -> _Counted:
        """Return the count of this attempt, and the sequence of the one that it replaces."""
        try:
            counted = await self._read(work.header.digest)
        except BusUnavailable as error:
            raise StateUnavailable("the count of attempts cannot be read") from error
        return counted._replace(attempts=counted.attempts.following())

    async def _count(self, work: Work, known: _Counted) -> None:
        if self._stopping:
            return
        try:
            sequence = await self._write(work.header.digest, known.attempts, known.sequence)
        except (BusUnavailable, IdentityUnavailable) as error:
            raise StateUnavailable("an attempt cannot be counted") from error
        if sequence is None:
            raise StateUnavailable("another process counts an attempt of the same message")
        self._counted[work] = _Counted(known.attempts, sequence)

    async def _stand_alone(self, work: Work) -> None:
        """Wait until nothing else is handled. Raises `BusyEffect` if that takes too long."""
        try:
            async with asyncio.timeout(ALONE_WITHIN):
                await self._turn.acquire()
                try:
                    self.apart = True
                    self._over.clear()
                    while self.running:
                        self._quiet.clear()
                        await self._quiet.wait()
                except BaseException:
                    self.apart = False
                    self._over.set()
                    self._turn.release()
                    raise
        except TimeoutError as error:
            raise BusyEffect(ALONE_AGAIN) from error
        self._alone = work
        self.running.add(work)

    async def _read(self, digest: bytes) -> _Counted:
        stored = await self._counts.read(digest)
        # A value that is no count of ours says nothing, and is replaced.
        return _Counted(_count_of(stored.fields), stored.sequence) if stored is not None else _UNCOUNTED

    async def _write(self, digest: bytes, count: AttemptCount, last: int) -> int | None:
        return await self._counts.write(digest, [count.deaths, count.alone, count.open], last)


def _count_of(fields: Sequence[object] | None) -> AttemptCount:
    match fields:
        case [int(deaths), bool(alone), bool(is_open)] if not isinstance(deaths, bool) and deaths < OWN_DEATHS:
            return AttemptCount(deaths=deaths, alone=alone, open=is_open)
        case _:
            return AttemptCount(open=False)

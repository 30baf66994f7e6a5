"""A result in parts: each part is a status, and the final status has their number and hash. Pure.

::

    part 0, part 1, ..., part n-1 --> completed(n, hash)          of one delivery
            `-- another delivery --> part 0, ...                   begins again

A part's header is marked with its number (`_prt`); `hash` is H over the H(body) of all parts, in order (SPEC.md section 7).
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import PER_DELIVERY, Status
from sealbus.envelopes.errors import Code, HandlingError

PARTS_TYPE: Final = "application/vnd.sealbus.parts.v1+json"
"""Media type of the result of a task that was answered in parts."""

PART_BYTES: Final = 65_536
MOST_PARTS: Final = 2_048
PARTS_BYTES: Final = 16_777_216
"""Most bytes of one part, most parts of one result, and most bytes of all of them."""


class PartsTally:
    """The number and hash of the parts of one delivery so far."""

    def __init__(self) -> None:
        self.count = 0
        self._bytes = 0
        self._hash = sha256()

    def add(self, part: Content) -> int:
        """Count one part and return its number; raise `HandlingError` (`bad_result`) beyond the limits."""
        number, size = self.count, len(part.body)
        if size > PART_BYTES or number >= MOST_PARTS or self._bytes + size > PARTS_BYTES:
            raise HandlingError(Code.BAD_RESULT, "too many or too large parts")
        self.count += 1
        self._bytes += size
        self._hash.update(sha256(part.body).digest())
        return number

    def result(self) -> Content:
        """Return the result that stands for all parts."""
        return Content.of_json({"v": 1, "parts": self.count, "hash": self._hash.hexdigest()}, PARTS_TYPE)


class PartsReading:
    """Checks the parts of one task as its statuses come: in order, without gaps, from one delivery.

    `resumed` is for a reader that has read earlier parts before: the first part may then have any number.
    """

    def __init__(self, *, resumed: bool = False) -> None:
        self._resumed = resumed
        self._delivery = -1
        self._next = 0
        self._tally = PartsTally()

    def take(self, status: Status) -> bool:
        """Take the next part; return whether it begins again, so that the earlier parts no longer count.

        Raises `HandlingError` (`bad_result`) if a part is missing.
        """
        if status.part is None:
            raise ValueError("this status is no part")
        delivery = status.sequence // PER_DELIVERY
        begins = delivery > self._delivery
        again = begins and self._next > 0
        if begins:
            self._delivery, self._next, self._tally = delivery, 0, PartsTally()
            if self._resumed:
                self._resumed, self._next = False, status.number
        if delivery < self._delivery or status.number != self._next:
            raise HandlingError(Code.BAD_RESULT, "a part is missing")
        self._next += 1
        self._tally.add(status.part)
        return again

    def check(self, result: Content) -> None:
        """Raise `HandlingError` (`bad_result`) unless the parts taken are exactly those of this result."""
        if result.typ != PARTS_TYPE:
            return
        if result != self._tally.result():
            raise HandlingError(Code.BAD_RESULT, "the parts are not those of the result")


class GatheredParts:
    """The parts of one task, kept as its statuses come: `contents` are those of the delivery that counts so far."""

    def __init__(self) -> None:
        self.contents: list[Content] = []
        self._reading = PartsReading()

    def take(self, status: Status) -> None:
        """Take any status; raise `HandlingError` (`bad_result`) for a part that is missing, or a result of other parts."""
        if status.part is not None:
            if self._reading.take(status):
                self.contents.clear()
            self.contents.append(status.part)
        elif status.result is not None:
            self._reading.check(status.result)

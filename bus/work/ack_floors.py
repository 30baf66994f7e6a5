"""How far durable consumers were acknowledged, stored in STATE for all processes of an agent (SPEC.md section 7).

A consumer of one replica is lost with its server. The next one begins at the stored floor. A floor that is too low costs
repeated deliveries. A floor that is too high would lose messages, as would a subject that is missing in a consumer which
versions of the agent share. So only what this agent has signed counts.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from sealbus.bus.cells import cell_prefix
from sealbus.bus.ports import MOST_LISTENED, StoredFloor
from sealbus.bus.site import Site
from sealbus.bus.work.timely_arrays import StoredArray, TimelyArrays
from sealbus.envelopes.encoding.codec import encode

FLOOR: Final = "floor"
"""The name of these values."""

_FIELDS: Final = 3
_ITEMS: Final = _FIELDS + 2 * MOST_LISTENED + 3
_BYTES: Final = 196_608
"""Longest stored floor: each of its subjects has at most 255 bytes."""


def floor_key(stream: str, consumer: str) -> bytes:
    """Return the hash at which the floor of a consumer stands: H of an encoded array of the two names."""
    return sha256(encode([stream, consumer])).digest()


class StoredFloors:
    """The `AckFloors` of one agent in STATE."""

    def __init__(self, site: Site) -> None:
        self._values = TimelyArrays(FLOOR, site, most=_ITEMS, size=_BYTES)
        self._transport = site.transport
        self._place = f"state.{site.token}.{FLOOR}"

    async def read(self, stream: str, consumer: str) -> StoredFloor:
        """Return what is stored. Whatever is no floor of this agent is floor 0. Raises `BusUnavailable`."""
        value = await self._stored(stream, consumer)
        if value is None:
            return StoredFloor()
        fields = value.fields or ()
        numbers = [field for field in (*fields[:_FIELDS], *fields[_FIELDS + 1 :: 2]) if type(field) is int]
        subjects = [field for field in fields[_FIELDS::2] if isinstance(field, str)]
        if len(numbers) != _FIELDS + len(set(subjects)) or len(fields) != _FIELDS + 2 * len(subjects):
            return StoredFloor(last=value.sequence)
        created, floor, moves, *times = numbers
        return StoredFloor(created, floor, moves, value.sequence, tuple(zip(subjects, times, strict=True)))

    async def _stored(self, stream: str, consumer: str) -> StoredArray | None:
        """Return what is stored for a consumer, also by this agent before it was moved to another cell."""
        (own, present), *before = self._transport.cells_of(self._place).items()
        value = await self._values.read(floor_key(stream, consumer), present)
        for cell, transport in before if value is None else ():
            # What is our own stream now was one of another cell then, and the other way round.
            prefix = cell_prefix(cell)
            then = stream.removeprefix(prefix) if stream.startswith(prefix) else stream
            then = then if "." in stream else cell_prefix(own) + stream
            older = await self._values.read(floor_key(then, consumer), transport)
            return older._replace(sequence=0) if older is not None else None
        return value

    async def replace(self, stream: str, consumer: str, floor: StoredFloor) -> StoredFloor | None:
        """Store `floor` in the place of the value with its `last`; return what is stored, or `None` if `last` is not current.

        Raises `BusUnavailable` or `IdentityUnavailable`; the value may be stored nevertheless.
        """
        fields: list[int | str] = [floor.created, floor.floor, floor.moves]
        for subject, since in floor.listened:
            fields += [subject, since]
        stored = await self._values.write(floor_key(stream, consumer), fields, floor.last)
        return None if stored is None else floor._replace(last=stored)

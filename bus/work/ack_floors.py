"""How far durable consumers were acknowledged, stored in STATE for all processes of an agent (SPEC.md section 7).

A consumer of one replica is lost with its server. The next one begins at the stored floor. A floor that is too low costs
repeated deliveries. A floor that is too high would lose messages, so only what this agent has signed counts.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from sealbus.bus.ports import StoredFloor
from sealbus.bus.site import Site
from sealbus.bus.work.timely_integers import TimelyIntegers
from sealbus.envelopes.encoding.codec import encode

FLOOR: Final = "floor"
"""The name of these values."""

_FIELDS: Final = 3


def floor_key(stream: str, consumer: str) -> bytes:
    """Return the hash at which the floor of a consumer stands: H of an encoded array of the two names."""
    return sha256(encode([stream, consumer])).digest()


class StoredFloors:
    """The `AckFloors` of one agent in STATE."""

    def __init__(self, site: Site) -> None:
        self._values = TimelyIntegers(FLOOR, site)

    async def read(self, stream: str, consumer: str) -> StoredFloor:
        """Return what is stored. Whatever is no floor of this agent is floor 0. Raises `BusUnavailable`."""
        value = await self._values.read(floor_key(stream, consumer))
        if value is None:
            return StoredFloor()
        fields = [field for field in value.fields or () if type(field) is int and field >= 0]
        if len(fields) != _FIELDS or len(value.fields or ()) != _FIELDS:
            return StoredFloor(last=value.sequence)
        created, floor, moves = fields
        return StoredFloor(created, floor, moves, value.sequence)

    async def replace(self, stream: str, consumer: str, floor: StoredFloor) -> StoredFloor | None:
        """Store `floor` in the place of the value with its `last`; return what is stored, or `None` if `last` is not current.

        Raises `BusUnavailable` or `IdentityUnavailable`; the value may be stored nevertheless.
        """
        created, sequence, moves, last = floor
        stored = await self._values.write(floor_key(stream, consumer), [created, sequence, moves], last)
        return None if stored is None else floor._replace(last=stored)

"""Pseudonyms: the names that people have behind the edge, so that their ids are in no message, record or log.

A derived pseudonym is an HMAC-SHA-256 under a key of the deployment. Whoever has the key can check for ever whether it
belongs to a given user. A random pseudonym stands in the one row that leads from the person to it, in the stream PEOPLE::

    people.<HMAC of the person>    random (32 bytes) || HMAC of the row's subject and random (32 bytes)

Once this row is deleted (`sealbus forget`), nobody can say whose pseudonym it was, with the key or without. All edges of
a deployment share the rows and the key: with two names, a person could approve a task of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self

from sealbus.agents.edge.oauth.private_file import KEY_BYTES, read_key
from sealbus.bus.nats.api import api
from sealbus.bus.ports import Request, Transport
from sealbus.bus.stream_names import PEOPLE
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.trust.caches import BoundedMap

PSEUDONYM_PREFIX: Final = "pseudonym:"
"""Prefix of every pseudonym, which distinguishes it from ids of the identity provider."""
PEOPLE_PREFIX: Final = "people."
"""Prefix of the subjects of rows."""

_DERIVED: Final = b"sealbus.pseudonym.v1"
_PERSON: Final = b"sealbus.person.v1"
_ROW: Final = b"sealbus.person-row.v1"
_RANDOM_BYTES: Final = 32

KNOWN: Final = 4_096
"""Rows that one process remembers; the least recently used is read again."""
KNOWN_SECONDS: Final = 60.0
"""How long it remembers a row. A person who was forgotten has the former pseudonym until then, which is denied."""
_LOOKS: Final = 8
_PAUSE: Final = 0.25
"""Seconds between two looks for a row that another process has stored: a replica may be behind the one that stored it."""


class PseudonymKey:
    """A key of 32 bytes: what is derived under it, and the rows of random pseudonyms."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigurationError(f"a pseudonym key has {KEY_BYTES} bytes")
        self._key = key

    def __repr__(self) -> str:
        return "PseudonymKey(...)"

    @classmethod
    def read(cls, file: Path) -> Self:
        """Return the key in `file`; raises as `read_key` does. Blocks."""
        return cls(read_key(file))

    def derived(self, issuer: str, subject: str) -> str:
        """Return the derived pseudonym of the user whom `issuer` calls `subject`; users of two issuers never share one."""
        return PSEUDONYM_PREFIX + self._hmac(_DERIVED, issuer, subject)

    def row(self, issuer: str, subject: str) -> str:
        """Return the subject of the user's row, which tells nobody without the key who it is."""
        return PEOPLE_PREFIX + self._hmac(_PERSON, issuer, subject)

    def row_value(self, row: str, random: bytes) -> bytes:
        """Return the value of `row` for a pseudonym of 32 `random` bytes."""
        return random + hmac.digest(self._key, _ROW + row.encode() + random, hashlib.sha256)

    def pseudonym_in(self, row: str, value: bytes) -> str:
        """Return the pseudonym in the `value` of `row`; raise `BusUnavailable` for bytes that are not the key's for it."""
        random = value[:_RANDOM_BYTES]
        if not hmac.compare_digest(value, self.row_value(row, random)):
            raise BusUnavailable(f"a row of {PEOPLE} was not written under edge.pseudonym_key")
        return PSEUDONYM_PREFIX + random.hex()

    def _hmac(self, context: bytes, issuer: str, subject: str) -> str:
        name = issuer.encode()
        message = context + len(name).to_bytes(4, "big") + name + subject.encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()


class Pseudonyms(Protocol):
    """The pseudonyms of one deployment; `key` also derives those that its users may have had before."""

    @property
    def key(self) -> PseudonymKey:
        """The key."""
        ...

    async def of(self, issuer: str, subject: str) -> str:
        """Return the pseudonym of the user whom `issuer` calls `subject`; raises `BusUnavailable`."""
        ...


class DerivedPseudonyms:
    """The pseudonyms that are derived from `key`."""

    def __init__(self, key: PseudonymKey) -> None:
        self.key: Final = key

    async def of(self, issuer: str, subject: str) -> str:
        """Return the pseudonym of the user whom `issuer` calls `subject`."""
        return self.key.derived(issuer, subject)


class Row(NamedTuple):
    """The pseudonym in a row, and the row's sequence in PEOPLE."""

    pseudonym: str
    sequence: int


class RandomPseudonyms:
    """The pseudonyms in rows of PEOPLE under `key`; `elapsed` counts seconds, by which a row is read again."""

    def __init__(self, key: PseudonymKey, transport: Transport, elapsed: Callable[[], float]) -> None:
        self.key: Final = key
        self._transport = transport
        self._rows = KeyValue(transport, PEOPLE)
        self._elapsed = elapsed
        self._known: BoundedMap[str, tuple[str, float]] = BoundedMap(KNOWN)

    async def of(self, issuer: str, subject: str) -> str:
        """Return the pseudonym of the user whom `issuer` calls `subject`, a new one at the first time.

        Raises `BusUnavailable`, also for a row that is not ours: then the user has no name.
        """
        row = self.key.row(issuer, subject)
        known = self._known.get(row)
        if known is not None and self._elapsed() < known[1]:
            return known[0]
        pseudonym = await self._read_or_create(row)
        self._known.put(row, (pseudonym, self._elapsed() + KNOWN_SECONDS))
        return pseudonym

    async def find(self, issuer: str, subject: str) -> Row | None:
        """Return the row of the user whom `issuer` calls `subject`, or `None` if there is none; raises as `of`."""
        row = self.key.row(issuer, subject)
        stored = await self._rows.get(row)
        return Row(self.key.pseudonym_in(row, stored.payload), stored.sequence) if stored is not None else None

    async def find_pseudonym(self, pseudonym: str) -> Row | None:
        """Return the row with `pseudonym`, or `None` if there is none; reads all rows. Raises as `of`.

        Rows that are not ours are left out.
        """
        async with aclosing(self._transport.values(PEOPLE, f"{PEOPLE_PREFIX}>")) as batches:
            async for batch in batches:
                for row, stored in batch:
                    with suppress(BusUnavailable):
                        if self.key.pseudonym_in(row, stored.payload) == pseudonym:
                            return Row(pseudonym, stored.sequence)
        return None

    async def _read_or_create(self, row: str) -> str:
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(_PAUSE)
            stored = await self._rows.get(row)
            if stored is not None:
                return self.key.pseudonym_in(row, stored.payload)
            value = self.key.row_value(row, secrets.token_bytes(_RANDOM_BYTES))
            if await self._rows.create(row, value) is not None:
                return self.key.pseudonym_in(row, value)
        raise BusUnavailable(f"a row of {PEOPLE} that another process has stored is not seen yet")


async def delete_row(row: Row, request: Request) -> None:
    """Delete `row` from PEOPLE by a `request` of the JetStream API; the server overwrites its bytes.

    Raises `BusUnavailable` if the server does not say that it did.
    """
    answer = await api(request, f"STREAM.MSG.DELETE.{PEOPLE}", {"seq": row.sequence})
    if answer.get("success") is not True:
        raise BusUnavailable(f"row #{row.sequence} of {PEOPLE}: the server does not say that it was deleted")

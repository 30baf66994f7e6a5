"""Bundles in NATS: the bucket that they are pushed to, with the newest and former ones of each part.

An object's name is the part's (`platform`, or a team's), its bytes the current signed bundle; `stock@7` is the part under
serial 7. `revocations` has at most the bytes of one message, so that a writer with no other right can replace it. Nothing
here verifies bundles: readers do, with `PartSet`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.streams.declared import Stream
from sealbus.bus.streams.object_store import ObjectInfo, ObjectStore, bucket_stream
from sealbus.bus.streams.plan import Change, apply, plan, read_streams
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.policies.bundle.ownership import is_part
from sealbus.policies.bundle.revocations import REVOCATIONS

__all__ = ["BEHIND", "BUCKET_BYTES", "SCHEME", "PolicyStore", "StoredPart", "policy_stream"]

SCHEME: Final = "nats://"
"""Prefix by which `policy.bundle` names a bucket: `nats://policies`."""
BUCKET_BYTES: Final = 33_554_432
KEPT: Final = 20
"""Former bundles kept of each part, for `sealbus policy rollback`."""
TRIES: Final = 5
BEHIND: Final = 0.2
"""Seconds that a replica may be behind another: after that an object that does not fit its description is damaged."""

_FORMER: Final = re.compile(r"([a-z0-9_]+)@([1-9][0-9]{0,15})")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """The current bundle of one part as the store holds it; `raw` is empty if the object is damaged.

    `last` is needed to replace it.
    """

    name: str
    raw: bytes
    last: int


def policy_stream(bucket: str, *, replicas: int) -> Stream:
    """Return the declaration of the stream that holds the policies of `bucket`.

    A deployment's is as often replicated as its other streams: without it nobody can deny, revoke or start.
    """
    return bucket_stream(bucket, description="sealbus: policy bundles", max_bytes=BUCKET_BYTES, replicas=replicas)


class PolicyStore:
    """The bucket `bucket` over an entered connection, which outlives it; `create` makes it with so many `replicas`."""

    def __init__(self, connection: Connection, bucket: str, *, replicas: int = 1) -> None:
        self.objects = ObjectStore(connection, bucket)
        self._request = connection.jetstream
        self._declared = policy_stream(bucket, replicas=replicas)

    async def create(self) -> Sequence[Change]:
        """Make the bucket if it does not exist; return what differs in one that does, which `streams apply` changes.

        Needs an operator's identity. Raises `ConfigurationError`, `BusUnavailable`.
        """
        found = await read_streams([self._declared.name], self._request)
        if found[self._declared.name] is None:
            await apply([self._declared], self._request)
            return ()
        return plan([self._declared], found)

    async def current(self) -> dict[str, StoredPart]:
        """Return the current bundles by part name. Raises `BusUnavailable`, `ConfigurationError`."""
        found: dict[str, StoredPart] = {}
        for info in await self.objects.objects():
            if is_part(info.name):
                part = await self.read(info.name)
                if part is not None:
                    found[part.name] = part
        return found

    async def read(self, name: str) -> StoredPart | None:
        """Return the current bundle of the part `name`, None if there is none. Raises `BusUnavailable`."""
        before = 0
        for _ in range(TRIES):
            info = await self.objects.info(name)
            if info is None:
                return None
            raw = await self.objects.get(info)
            if raw is not None or info.sequence == before:
                return StoredPart(name=name, raw=raw or b"", last=info.sequence)
            before = info.sequence
            await asyncio.sleep(BEHIND)
        raise BusUnavailable(f"{name}: replaced each time it was read")

    async def push(self, name: str, raw: bytes, serial: int, *, last: int) -> None:
        """Make `raw` the current bundle of `name`, in place of the one that was read with `last`, 0 for none.

        It is also kept under its serial. Raises `ConfigurationError` if somebody else pushed meanwhile, or for revocations
        that do not fit one message; `BusUnavailable`.
        """
        former = f"{name}@{serial}"
        there = await self.objects.info(former)
        await self.objects.put(former, raw, last=there.sequence if there is not None else 0)
        # The revoker follows and is followed: one that put would remove the chunk that the other describes.
        write = self.objects.replace if name == REVOCATIONS else self.objects.put
        if await write(name, raw, last=last) is None:
            raise ConfigurationError(f"{name}: somebody else pushed at the same time; look at theirs, then push again")
        for old in (await self._formers(name))[:-KEPT]:
            await self.objects.remove(old)

    async def former(self, name: str, serial: int) -> bytes:
        """Return the bundle of `name` under `serial`. Raises `ConfigurationError` if that is not kept."""
        info = await self.objects.info(f"{name}@{serial}")
        raw = await self.objects.get(info) if info is not None else None
        if raw is None:
            kept = ", ".join(str(one) for one in await self.serials(name)) or "none"
            raise ConfigurationError(f"{name}: serial {serial} is not kept; there are {kept}")
        return raw

    async def serials(self, name: str) -> list[int]:
        """Return the serials under which former bundles of `name` are kept, in order."""
        return [_serial(one) for one in await self._formers(name)]

    async def _formers(self, name: str) -> list[ObjectInfo]:
        found = []
        for info in await self.objects.objects():
            matched = _FORMER.fullmatch(info.name)
            if matched is not None and matched[1] == name:
                found.append(info)
        return sorted(found, key=_serial)


def _serial(info: ObjectInfo) -> int:
    return int(info.name.partition("@")[2])

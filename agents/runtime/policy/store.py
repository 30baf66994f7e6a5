"""The bucket in NATS that policy bundles are pushed to, with the current and former bundles of each part.

The object of a part has its name (`platform`, or a team's) and the current signed bundle; `stock@7` is the part `stock` under
serial 7. `revocations` fits one message, so that a writer with no other right can replace it. This module verifies no
bundles: readers do, with `PartSet`.
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

SCHEME: Final = "nats://"
"""Prefix by which `policy.bundle` names a bucket: `nats://policies`."""
BUCKET_BYTES: Final = 33_554_432
KEPT: Final = 20
"""Former bundles kept of each part, for `sealbus policy rollback`."""
TRIES: Final = 5
BEHIND: Final = 0.2
"""Seconds that a replica may be behind another. An object that does not fit its description for longer is damaged."""

_FORMER: Final = re.compile(r"([a-z0-9_]+)@([1-9][0-9]{0,15})")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """The current bundle of one part in the store; `raw` is empty if the object is damaged.

    Pass `last` to replace it.
    """

    name: str
    raw: bytes
    last: int


def policy_stream(bucket: str, *, replicas: int) -> Stream:
    """Return the declaration of the stream that holds the policies of `bucket`.

    Replicate it as the deployment's other streams: without it no one can deny or revoke, and no process can start.
    """
    return bucket_stream(bucket, description="sealbus: policy bundles", max_bytes=BUCKET_BYTES, replicas=replicas)


class PolicyStore:
    """The bucket `bucket` over an entered connection, which outlives it. `create` makes it with `replicas` replicas."""

    def __init__(self, connection: Connection, bucket: str, *, replicas: int = 1) -> None:
        self.objects = ObjectStore(connection, bucket)
        self._request = connection.jetstream
        self._declared = policy_stream(bucket, replicas=replicas)

    async def create(self) -> Sequence[Change]:
        """Make the bucket if it does not exist; return the differences of an existing one, which `streams apply` changes.

        Needs an operator's identity. Raises `ConfigurationError`, `BusUnavailable`.
        """
        states = await read_streams([self._declared.name], self._request)
        if states[self._declared.name] is None:
            await apply([self._declared], self._request)
            return ()
        return plan([self._declared], states)

    async def current(self) -> dict[str, StoredPart]:
        """Return the current bundles by part name. Raises `BusUnavailable`, `ConfigurationError`."""
        parts: dict[str, StoredPart] = {}
        for info in await self.objects.objects():
            if is_part(info.name) and (part := await self.read(info.name)) is not None:
                parts[part.name] = part
        return parts

    async def read(self, name: str) -> StoredPart | None:
        """Return the current bundle of the part `name`, None if there is none. Raises `BusUnavailable`."""
        last = 0
        for _ in range(TRIES):
            info = await self.objects.info(name)
            if info is None:
                return None
            raw = await self.objects.get(info)
            if raw is not None or info.sequence == last:
                return StoredPart(name=name, raw=raw or b"", last=info.sequence)
            last = info.sequence
            await asyncio.sleep(BEHIND)
        raise BusUnavailable(f"{name}: replaced each time it was read")

    async def push(self, name: str, raw: bytes, serial: int, *, last: int) -> None:
        """Make `raw` the current bundle of `name`, in place of the one that was read with `last`, 0 for none.

        It is also kept under its serial. Raises `ConfigurationError` if another push came first, or for revocations that do
        not fit one message; `BusUnavailable`.
        """
        former = f"{name}@{serial}"
        info = await self.objects.info(former)
        await self.objects.put(former, raw, last=info.sequence if info is not None else 0)
        # Another revoker may write at the same time: its `put` would remove the chunk that our object describes.
        write = self.objects.replace if name == REVOCATIONS else self.objects.put
        if await write(name, raw, last=last) is None:
            raise ConfigurationError(f"{name}: somebody else pushed at the same time; look at theirs, then push again")
        for old in (await self._formers(name))[:-KEPT]:
            await self.objects.remove(old)

    async def former(self, name: str, serial: int) -> bytes:
        """Return the bundle of `name` under `serial`. Raises `ConfigurationError` if it is not kept."""
        info = await self.objects.info(f"{name}@{serial}")
        raw = await self.objects.get(info) if info is not None else None
        if raw is None:
            serials = ", ".join(map(str, await self.serials(name))) or "none"
            raise ConfigurationError(f"{name}: serial {serial} is not kept; there are {serials}")
        return raw

    async def serials(self, name: str) -> list[int]:
        """Return the serials under which former bundles of `name` are kept, in order."""
        return [_serial(info) for info in await self._formers(name)]

    async def _formers(self, name: str) -> list[ObjectInfo]:
        infos = await self.objects.objects()
        former = [info for info in infos if (match := _FORMER.fullmatch(info.name)) is not None and match[1] == name]
        return sorted(former, key=_serial)


def _serial(info: ObjectInfo) -> int:
    return int(info.name.partition("@")[2])

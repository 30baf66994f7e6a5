"""The bucket of policies in a simulation: what the broker keeps of it, and what a host sees of that over its link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import Final

from sealbus.agents.runtime.policy.store import StoredPart
from sealbus.bus.streams.object_store import ObjectInfo, digest_of
from simulation.broker import Follower, SimulatedBroker
from simulation.network import SimulatedTransport

__all__ = ["Bucket", "SimulatedStore"]

_NAME: Final = "OBJ_policies"
LOOK_AGAIN: Final = 5.0
"""Seconds after which who follows the bucket looks again, in case a change was missed."""


class Bucket:
    """The bucket as the broker has it: the newest version of each part."""

    def __init__(self, broker: SimulatedBroker) -> None:
        self._broker = broker
        self._parts: dict[str, tuple[ObjectInfo, bytes]] = {}
        self._sequence = 0

    def put(self, name: str, content: bytes, last: int) -> ObjectInfo | None:
        """Replace a part whose sequence is `last`, 0 for none; return `None` if it is another."""
        before = self._parts.get(name)
        if (before[0].sequence if before is not None else 0) != last:
            return None
        self._sequence += 1
        info = ObjectInfo(
            name=name, nuid=name, size=len(content), chunks=1, digest=digest_of(content), sequence=self._sequence
        )
        self._parts[name] = info, content
        self._broker.tell_followers(_NAME, name)
        return info

    def get(self, name: str) -> tuple[ObjectInfo, bytes] | None:
        """Return a part."""
        return self._parts.get(name)

    def infos(self) -> list[ObjectInfo]:
        """Return the descriptions of all parts."""
        return [info for info, _ in self._parts.values()]


class _Objects:
    """What is used of `ObjectStore`."""

    def __init__(self, transport: SimulatedTransport, bucket: Bucket) -> None:
        self._bucket = bucket
        self._transport = transport

    async def info(self, name: str) -> ObjectInfo | None:
        """Return the description of a part."""
        found = await self._transport.ask_api(f"description of {name}", lambda: self._bucket.get(name))
        return found[0] if found is not None else None

    async def objects(self) -> Sequence[ObjectInfo]:
        """Return the descriptions of all parts."""
        return await self._transport.ask_api("descriptions", self._bucket.infos)

    async def replace(self, name: str, content: bytes, *, last: int) -> ObjectInfo | None:
        """Replace a part by compare-and-set."""
        return await self._transport.ask_api(f"put {name}", lambda: self._bucket.put(name, content, last))

    async def watch(self) -> AsyncGenerator[Sequence[ObjectInfo], None]:
        """Yield the descriptions of all parts, and again when one has changed."""
        changed, known = asyncio.Event(), None
        transport = self._transport
        followers = transport.broker.followers
        follower = Follower(transport.host, _NAME, (">",), lambda: transport.bring(changed.set))
        followers.append(follower)
        try:
            while True:
                changed.clear()
                infos = await self.objects()
                if infos != known:
                    known = infos
                    yield infos
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN):
                        await changed.wait()
        finally:
            if follower in followers:
                followers.remove(follower)


class SimulatedStore:
    """What is used of `PolicyStore`, by one host. `on_read` is called on the host with each part that has arrived there."""

    def __init__(
        self, transport: SimulatedTransport, bucket: Bucket, *, on_read: Callable[[StoredPart], None] = lambda _: None
    ) -> None:
        self.objects = _Objects(transport, bucket)
        self._bucket = bucket
        self._on_read = on_read
        self._transport = transport

    async def read(self, name: str) -> StoredPart | None:
        """Return a part."""
        found = await self._transport.ask_api(f"part {name}", lambda: self._bucket.get(name))
        if found is None:
            return None
        part = StoredPart(name=name, raw=found[1], last=found[0].sequence)
        self._on_read(part)
        return part

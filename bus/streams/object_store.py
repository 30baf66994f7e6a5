"""A bucket of NATS' object store: larger files by name, in the layout that the `nats` command line reads (ADR-20).

A bucket is the stream `OBJ_<bucket>`. One message on `$O.<bucket>.M.<name in base64url>` describes an object; its bytes are
in chunks on `$O.<bucket>.C.<nuid>`. A writer writes the chunks first, under a new nuid, and the description last, by
compare-and-set. So one of two concurrent writers fails, and a reader sees either the old object or the new one. The
operator of the broker can change objects; content that matters is signed.

`put` removes the chunks that it replaced. That takes `STREAM.PURGE`, and so the right to remove every object. `replace` is
for a writer that may only write one small object.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from sealbus.bus.clocks import HOST_CLOCK, HostClock
from sealbus.bus.nats.api import (
    EXPECTED_LAST,
    EXPECTED_LAST_OF,
    EXPECTED_LAST_OF_STREAM,
    NOT_THE_LAST,
    api,
    existing_stream,
    iso_time,
)
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.reach import NatsCell
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing, PubAck, StreamRefused
from sealbus.bus.streams.declared import Guard, Stream
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.policies.bundle.cells import bucket_and_cell

CHUNK_BYTES: Final = 131_072
"""Bytes of a chunk, as the `nats` command line uses."""
OBJECT_BYTES: Final = 33_554_432
"""Largest object that is read or written."""
ONE_MESSAGE: Final = DEFAULT_LIMITS.envelope_bytes - 1_024
"""Largest object that `replace` writes: the default `max_payload` of nats-server, without 1 KiB for the headers."""
WITHIN: Final = 5.0
"""Seconds for one request or one write."""

CAUGHT_UP: Final = 2.0
"""Seconds within which a replica that was restarted has mostly caught up with the leader."""
_LOOK_AGAIN: Final = 0.2

_NUID: Final = re.compile(r"[0-9A-Za-z]{1,64}")
_NAME_BYTES: Final = 160
"""Most bytes of an object's name. Base64url makes it a third longer, and a subject has at most 255 bytes."""
_INFO_BYTES: Final = 16_384


def bucket_stream(bucket: str, *, description: str, max_bytes: int, replicas: int) -> Stream:
    """Return the declaration of the stream that holds `bucket`, for `sealbus.bus.streams.plan`.

    Raises `ConfigurationError` for a name that no bucket can have, and as `Stream` does.
    """
    if bucket_and_cell(bucket)[1]:
        raise ConfigurationError(f"{bucket[:255]!r}: the stream of a bucket is in its own cell")
    return Stream(
        name=f"OBJ_{bucket}",
        description=description,
        subjects=(f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"),
        guard=Guard.OBJECTS,
        max_bytes=max_bytes,
        max_age=0,
        direct=True,
        rollup=True,
        replicas=replicas,
    )


class ObjectStore:
    """The bucket `bucket`, or `<bucket>@<cell>`, over an entered connection, which outlives it.

    Raises `ConfigurationError` for another form (`bucket_and_cell`).

    Every wait ends, with `BusUnavailable`.
    """

    def __init__(self, connection: Connection, bucket: str, *, clock: HostClock = HOST_CLOCK) -> None:
        self.bucket, cell = bucket_and_cell(bucket)
        self.stream = f"OBJ_{self.bucket}"
        self._cell = NatsCell(connection, cell)
        self._transport = NatsTransport(connection, cell)
        self._clock = clock

    async def request(self, subject: str, payload: bytes) -> bytes:
        """Ask the JetStream API where the bucket is (`Connection.jetstream`)."""
        return await self._cell.request(subject, payload)

    async def info(self, name: str) -> ObjectInfo | None:
        """Return the description of the object `name`, or None if there is none or it was deleted."""
        message = await self._transport.last(self.stream, self._meta(name), within=WITHIN)
        if message is None:
            return None
        info = parse_info(message.payload, sequence=message.sequence)
        return None if info is None or info.deleted else info

    async def get(self, info: ObjectInfo) -> bytes | None:
        """Return the bytes of an object, or None if they do not match `info`.

        They do not match if the object was replaced meanwhile, is broken, or is larger than 32 MiB.
        """
        content = bytearray()
        if info.chunks:
            subject = f"$O.{self.bucket}.C.{info.nuid}"
            async with aclosing(self._transport.read(self.stream, [subject])) as batches:
                async for batch in batches:
                    content += b"".join(delivery.payload for delivery in batch)
                    if len(content) > min(info.size, OBJECT_BYTES):
                        return None
        raw = bytes(content)
        return raw if digest_of(raw) == info.digest else None

    async def put(self, name: str, content: bytes, *, last: int, description: str = "") -> ObjectInfo | None:
        """Replace the object whose `sequence` is `last` (0 for none) with `content`; return None if `last` is not current.

        `description` is a short text about the object. The chunks of the former object are removed. After `BusUnavailable`
        the object may be stored or not.
        """
        if len(content) > OBJECT_BYTES:
            raise ConfigurationError(f"{name}: over {OBJECT_BYTES} bytes")
        before = await self._transport.last(self.stream, self._meta(name), within=WITHIN)
        if before is not None and last == 0:
            marker = parse_info(before.payload, sequence=before.sequence)
            # The `nats` command line leaves a marker in the place of an object that it removed.
            last = before.sequence if marker is not None and marker.deleted else 0
        if (before.sequence if before is not None else 0) != last:
            return None
        nuid = secrets.token_hex(11)
        chunks = [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]
        subject = f"$O.{self.bucket}.C.{nuid}"
        await self._publish([Outgoing(subject=subject, payload=chunk) for chunk in chunks])
        info = ObjectInfo(
            name=name,
            nuid=nuid,
            size=len(content),
            chunks=len(chunks),
            digest=digest_of(content),
            sequence=0,
            description=description,
        )
        sequence = await self._point(info, last)
        if sequence is None:
            await self._purge(subject)
            return None
        old = parse_info(before[1], sequence=last) if before is not None else None
        if old is not None and old.nuid:
            await self._purge(f"$O.{self.bucket}.C.{old.nuid}")
        return replace(info, sequence=sequence)

    async def replace(self, name: str, content: bytes, *, last: int) -> ObjectInfo | None:
        """Replace the object whose `sequence` is `last` (0 for none) with `content`, which fits one message; remove nothing.

        The bytes go to the nuids `<name>0` and `<name>1` in turn, in place of older bytes. They are stored only while the
        description is still the one with `last`, so that the bytes that it points to are not replaced. The new description is
        stored only if nothing else was written to the bucket since. So a description always points to a whole object, even if
        others write or a writer dies. Needs the right to publish these two chunks and the description (nats-server 2.11).

        Returns None if another writer wrote meanwhile, perhaps another object: read again. Raises `ConfigurationError` for a
        name or a size that does not fit, and `BusUnavailable`, after which the object may be stored or not.
        """
        if len(content) > ONE_MESSAGE:
            raise ConfigurationError(f"{name}: over {ONE_MESSAGE} bytes, which one message holds")
        if _NUID.fullmatch(f"{name}0") is None:
            raise ConfigurationError(f"{name[:255]!r}: letters and digits only")
        before = await self._transport.last(self.stream, self._meta(name), within=WITHIN)
        if (before.sequence if before is not None else 0) != last:
            return None
        old = parse_info(before.payload, sequence=last) if before is not None else None
        nuid = f"{name}1" if old is not None and old.nuid == f"{name}0" else f"{name}0"
        chunk = Outgoing(
            subject=f"$O.{self.bucket}.C.{nuid}",
            payload=content,
            headers={"Nats-Rollup": "sub", EXPECTED_LAST: str(last), EXPECTED_LAST_OF: self._meta(name)},
        )
        stored = await self._stored(chunk)
        if stored is None:
            return None
        info = ObjectInfo(name=name, nuid=nuid, size=len(content), chunks=1, digest=digest_of(content), sequence=0)
        sequence = await self._point(info, last, after=stored)
        return replace(info, sequence=sequence) if sequence is not None else None

    async def remove(self, info: ObjectInfo) -> None:
        """Remove an object entirely."""
        await self._purge(self._meta(info.name))
        await self._purge(f"$O.{self.bucket}.C.{info.nuid}")

    async def objects(self) -> list[ObjectInfo]:
        """Return all current objects, by name.

        A replica may answer, and may be behind the leader. Until the last message of the bucket is a description that was
        read, this reads again, for `CAUGHT_UP` seconds: without it the last message may be one that was removed.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + CAUGHT_UP
        while True:
            last = (await existing_stream(self.request, self.stream)).last
            infos: dict[str, ObjectInfo] = {}
            async with aclosing(self._infos(follow=False)) as batches:
                async for batch in batches:
                    infos |= {info.name: info for info in batch}
            if max((info.sequence for info in infos.values()), default=0) >= last or loop.time() >= until:
                return [info for _, info in sorted(infos.items()) if not info.deleted]
            await asyncio.sleep(_LOOK_AGAIN)

    def watch(self) -> AsyncGenerator[list[ObjectInfo], None]:
        """Yield all objects, then each change as it comes, including deletions, until closed.

        Raises as `Transport.read` does, for instance `ConfigurationError` if there is no such bucket.
        """
        return self._infos(follow=True)

    async def _infos(self, *, follow: bool) -> AsyncGenerator[list[ObjectInfo], None]:
        source = self._transport.read(self.stream, [f"$O.{self.bucket}.M.>"], follow=follow)
        async with aclosing(source) as batches:
            async for batch in batches:
                infos: list[ObjectInfo] = []
                for delivery in batch:
                    info = parse_info(delivery.payload, sequence=delivery.sequence)
                    if info is not None and self._meta(info.name) == delivery.subject:
                        infos.append(info)
                yield infos

    def _meta(self, name: str) -> str:
        return f"$O.{self.bucket}.M.{urlsafe_b64encode(name.encode()).decode()}"

    async def _point(self, info: ObjectInfo, last: int, *, after: int | None = None) -> int | None:
        """Write the description of an object; return its sequence, or None if another was written since `last`.

        With `after`, also if anything at all was written to the bucket since that sequence.
        """
        document = {
            "name": info.name,
            **({"description": info.description} if info.description else {}),
            "bucket": self.bucket,
            "nuid": info.nuid,
            "size": info.size,
            "mtime": iso_time(self._clock()),
            "chunks": info.chunks,
            "digest": info.digest,
            "options": {"max_chunk_size": CHUNK_BYTES},
        }
        message = Outgoing(
            subject=self._meta(info.name),
            payload=json.dumps(document).encode(),
            headers={
                "Nats-Rollup": "sub",
                EXPECTED_LAST: str(last),
                **({EXPECTED_LAST_OF_STREAM: str(after)} if after is not None else {}),
            },
        )
        return await self._stored(message)

    async def _stored(self, message: Outgoing) -> int | None:
        """Publish by compare-and-set; return the sequence, or None if the stream does not have the expected last sequence."""
        (answer,) = await self._transport.publish([message], deadline=WITHIN)
        if isinstance(answer, PubAck):
            return answer.sequence
        if isinstance(answer, StreamRefused) and answer.err_code in NOT_THE_LAST:
            return None
        raise BusUnavailable(f"{message.subject} was not stored: {answer}") from answer

    async def _publish(self, messages: list[Outgoing]) -> None:
        for answer in await self._transport.publish(messages, deadline=WITHIN):
            if not isinstance(answer, PubAck):
                raise BusUnavailable(f"{self.stream}: a chunk was not stored: {answer}") from answer

    async def _purge(self, subject: str) -> None:
        await api(self.request, f"STREAM.PURGE.{self.stream}", {"filter": subject})


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One object as its bucket describes it, unverified. `sequence` is the stream sequence of this description.

    `digest` is `SHA-256=` and base64url. A deleted object has neither chunks nor a digest.
    """

    name: str
    nuid: str
    size: int
    chunks: int
    digest: str
    sequence: int
    deleted: bool = False
    description: str = ""


def digest_of(content: bytes) -> str:
    """Return the digest of `content` in the object store's format."""
    return "SHA-256=" + urlsafe_b64encode(hashlib.sha256(content).digest()).decode()


def parse_info(payload: bytes, *, sequence: int) -> ObjectInfo | None:
    """Parse the description of an object; return None for anything else, links included."""
    try:
        document = json.loads(payload) if len(payload) <= _INFO_BYTES else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    name, nuid, digest = document.get("name"), document.get("nuid", ""), document.get("digest", "")
    size, chunks, deleted = document.get("size", 0), document.get("chunks", 0), document.get("deleted", False)
    if not isinstance(name, str) or not 0 < len(name.encode(errors="replace")) <= _NAME_BYTES:
        return None
    description = document.get("description", "")
    if not isinstance(nuid, str) or not isinstance(digest, str) or not isinstance(deleted, bool):
        return None
    if type(size) is not int or type(chunks) is not int or size < 0 or chunks < 0:
        return None
    if not deleted and _NUID.fullmatch(nuid) is None:
        return None
    return ObjectInfo(
        name=name,
        nuid=nuid,
        size=size,
        chunks=chunks,
        digest=digest,
        sequence=sequence,
        deleted=deleted,
        description=description if isinstance(description, str) else "",
    )

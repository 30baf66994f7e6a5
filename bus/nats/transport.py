"""The `Transport` port on NATS: publishing, sending, listening, pulling and reading over one connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence

from sealbus.bus.cells import DEFAULT
from sealbus.bus.nats.api import RECORDS, audit_stream, existing_stream
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.frames import publish_parts
from sealbus.bus.nats.consumer import NatsPull
from sealbus.bus.nats.durable_consumer import DurableSpec
from sealbus.bus.nats.publisher import BulkPublisher
from sealbus.bus.nats.reach import NatsCell
from sealbus.bus.nats.reader import last, read, values
from sealbus.bus.nats.subscription import listen
from sealbus.bus.ports import AckFloors, Delivery, Outgoing, PubAck, Pull, StoredValue, Transport
from sealbus.bus.stream_names import EVENTS
from sealbus.envelopes.errors import BusUnavailable


class NatsTransport:
    """A transport over an entered `Connection`, which outlives it. It reads no payload and trusts no header.

    With `cell` its streams are those of another cell (`sealbus.bus.cells`); only `listen` is as without.

    Beside the port's errors, subjects and headers that NATS would not carry unchanged raise `ConfigurationError`.
    """

    def __init__(self, connection: Connection, cell: str = "") -> None:
        self._connection = connection
        self._cell = NatsCell(connection, cell)
        self._publisher = BulkPublisher(connection)

    async def publish(self, messages: Sequence[Outgoing], *, deadline: float) -> Sequence[PubAck | Exception]:
        """Publish to streams (`BulkPublisher.publish`)."""
        return await self._publisher.publish(self._prefixed(messages), deadline=deadline)

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Publish on core NATS, all or nothing, in one write. Raises `BusUnavailable`."""
        link = self._connection.link
        frames: list[bytes] = []
        for message in self._prefixed(messages):
            before, after, size = publish_parts(message, replied=bool(message.reply))
            if size > link.max_payload:
                raise BusUnavailable(f"{message.subject}: {size} bytes, the server takes at most {link.max_payload}")
            frames += (before, message.reply.encode(), after, message.payload, b"\r\n")
        if frames:
            link.write(b"".join(frames))

    def listen(
        self, subject: str, *, queue: str = "", pending: int = 4096, live: asyncio.Event | None = None
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        """Subscribe on core NATS and yield the waiting messages (`sealbus.bus.nats.subscription.listen`)."""
        return listen(self._connection, subject, queue=queue, pending=pending, live=live)

    def pull(
        self,
        stream: str,
        consumer: str,
        subjects: Sequence[str],
        *,
        batch: int,
        ack_wait: float,
        max_ack_pending: int,
        floors: AckFloors | None = None,
        one_replica: bool = False,
    ) -> Pull:
        """Return the durable consumer of `stream`; it is created or checked when `batches()` is first used."""
        spec = DurableSpec(
            stream=stream,
            name=consumer,
            subjects=tuple(subjects),
            ack_wait=ack_wait,
            max_ack_pending=max_ack_pending,
            shared=stream == EVENTS,
            one_replica=one_replica,
            cell=self._cell.name,
        )
        return NatsPull(self._connection, spec, batch=batch, floors=floors)

    def read(
        self,
        stream: str,
        subjects: Sequence[str],
        *,
        start: int = 1,
        since: int = 0,
        follow: bool = False,
        current: asyncio.Event | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        """Read a stream in order (`sealbus.bus.nats.reader.read`)."""
        return read(
            self._cell,
            stream,
            subjects,
            start=start,
            since=since,
            follow=follow,
            current=current,
            headers_only=headers_only,
        )

    def values(
        self, stream: str, pattern: str, *, since: int = 0
    ) -> AsyncGenerator[Sequence[tuple[str, StoredValue]], None]:
        """Read the messages of a stream once (`sealbus.bus.nats.reader.values`)."""
        return values(self._cell, stream, pattern, since=since)

    async def last(self, stream: str, subject: str, *, within: float) -> StoredValue | None:
        """Return the last message of `subject` (`sealbus.bus.nats.reader.last`); the stream must have `allow_direct`."""
        return await last(self._cell, stream, subject, within=within)

    def cells_of(self, pattern: str) -> Mapping[str, Transport]:
        """Return itself, as the one cell's."""
        return {DEFAULT: self}

    def is_at_home(self, delivery: Delivery, identifier: str) -> bool:
        """Return True: there is one cell."""
        del delivery, identifier
        return True

    async def audit_stream(self) -> tuple[str, int]:
        """Return the current period's stream and when it was created (`sealbus.bus.nats.api.audit_stream`)."""
        state = await audit_stream(self._cell.request)
        return state.name, state.created

    async def created(self, stream: str) -> int:
        """Return when `stream` was created. Raises `ConfigurationError` if it does not exist, `BusUnavailable`."""
        return (await existing_stream(self._cell.request, stream)).created

    async def broker_time(self, stream: str) -> int:
        """Return when the server answered. Raises `ConfigurationError` if `stream` takes no records, `BusUnavailable`."""
        # Each agent asks every few seconds: the list of all streams would take the server and us ten times as long.
        return (await existing_stream(self._cell.request, stream, subject=RECORDS)).answered

    def _prefixed(self, messages: Sequence[Outgoing]) -> Sequence[Outgoing]:
        if not self._cell.prefix:
            return messages
        return [message._replace(subject=self._cell.prefix + message.subject) for message in messages]

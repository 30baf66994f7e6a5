"""Whether the stream still is what the log says of it: computed again from the messages themselves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

from sealbus.agents.control.notary.judging import placed
from sealbus.agents.control.notary.ledger import entry_rows
from sealbus.agents.control.notary.log_store import LogStore
from sealbus.bus.ports import Delivery, Transport
from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.header import parse_header
from sealbus.envelopes.log.entries import Entry, EntryKind, gap_entry, unverified_entry, verified_entry
from sealbus.envelopes.log.places import Place, place_of
from sealbus.envelopes.log.tiles import TILE_WIDTH
from sealbus.envelopes.wire import parse_envelope

__all__ = ["SUBJECTS", "check_beginning", "check_stream"]

SUBJECTS = ("audit.>",)
"""What AUDIT holds."""


def check_beginning(store: LogStore, size: int, beginning: Sequence[Entry]) -> None:
    """Raise `LogError` (`log_mismatch`) unless a log of `size` entries begins with `beginning`."""
    _, entries = entry_rows(store, 0, min(size, TILE_WIDTH))
    if entries[: len(beginning)] != tuple(entry.hash for entry in beginning[:size]):
        raise LogError(Code.LOG_MISMATCH, "the log does not begin with the creation of this stream")


async def check_stream(transport: Transport, stream: str, store: LogStore, size: int, *, first: int) -> None:
    """Raise `LogError` (`log_mismatch`) unless the stream holds what entries `first` to `size` say, and no more before.

    Whether a message that counts as verified verifies is not asked again: its header is compared.
    """
    last = _last(store, size)
    expected = _expected(store, size, first)
    place, entry = next(expected, (None, b""))
    while place is not None and place.kind in (EntryKind.CREATION, EntryKind.PREVIOUS):
        place, entry = next(expected, (None, b""))
    if place is None:
        return
    following = place.sequence
    async with aclosing(_messages(transport, stream, following, last)) as messages:
        async for delivery in messages:
            position = placed(delivery)
            if missing := position.sequence - following:
                _compare(place, entry, gap_entry(following, missing, time=position.stored))
                place, entry = next(expected, (None, b""))
            _compare(place, entry, _computed(place, delivery))
            place, entry = next(expected, (None, b""))
            following = position.sequence + 1
    if place is not None:
        raise LogError(Code.LOG_MISMATCH, f"the stream ends before sequence {place.sequence}, which the log has")


def _expected(store: LogStore, size: int, first: int) -> Iterator[tuple[Place, bytes]]:
    for index in range(first // TILE_WIDTH, -(-size // TILE_WIDTH)):
        places, entries = entry_rows(store, index, min(TILE_WIDTH, size - index * TILE_WIDTH))
        skipped = max(first - index * TILE_WIDTH, 0)
        yield from zip(places[skipped:], entries[skipped:], strict=True)


def _last(store: LogStore, size: int) -> int:
    places, _ = entry_rows(store, (size - 1) // TILE_WIDTH, (size - 1) % TILE_WIDTH + 1)
    return places[-1].sequence


async def _messages(transport: Transport, stream: str, first: int, last: int) -> AsyncGenerator[Delivery, None]:
    source = transport.read(stream, SUBJECTS, start=first)
    async with aclosing(source) as batches:
        async for batch in batches:
            for delivery in batch:
                if placed(delivery).sequence > last:
                    return
                yield delivery


def _computed(place: Place | None, delivery: Delivery) -> Entry | None:
    position = placed(delivery)
    if place is None or place.kind is EntryKind.GAP:
        return None
    if place.kind is EntryKind.UNVERIFIED:
        return unverified_entry(position.sequence, time=position.stored, payload=delivery.payload)
    try:
        header = parse_header(parse_envelope(delivery.payload).header)
    except EnvelopeError:
        return None
    return verified_entry(position.sequence, time=position.stored, header_digest=header.digest)


def _compare(place: Place | None, entry: bytes, computed: Entry | None) -> None:
    if place is None or computed is None or (computed.hash, place_of(computed)) != (entry, place):
        where = place.sequence if place is not None else "the log's last"
        raise LogError(Code.LOG_MISMATCH, f"the stream is not what the log says from sequence {where} on")

"""Resuming a log: its tiles, the stream and the published checkpoints are compared before anything is added."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence, Set
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeAlias, TypeGuard

from sealbus.agents.control.notary.log.ledger import Ledger, entry_rows, stored_checkpoint
from sealbus.agents.control.notary.log.message_verifier import MessageVerifier, placed
from sealbus.agents.control.notary.log.store import TRUST, LogStore
from sealbus.agents.control.notary.policy_archive import RECORDS, PolicyArchive, recall_policies, record_path
from sealbus.agents.control.notary.restored_stream import Restorations, StoredRestoration
from sealbus.bus.ports import Delivery, Identity, Transport
from sealbus.bus.stream_names import AUDIT, SUBJECTS
from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.log.checkpoint import Checkpoint, open_checkpoint
from sealbus.envelopes.log.entries import (
    Entry,
    EntryKind,
    creation_entry,
    gap_entry,
    previous_entry,
    unverified_entry,
    verified_entry,
)
from sealbus.envelopes.log.note import NoteVerifier
from sealbus.envelopes.log.places import Place, place_of
from sealbus.envelopes.log.tiles import TILE_WIDTH, TiledTree, tile_reader
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord, PolicyRecord
from sealbus.envelopes.records.record import parse_record
from sealbus.envelopes.trust.bundles import TrustBundles
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = [
    "LogPlan",
    "Taken",
    "add_restorations",
    "check_beginning",
    "check_stream",
    "own_checkpoint",
    "remembered",
    "take_up",
    "trust_path",
]

_MESSAGES = frozenset({EntryKind.UNVERIFIED, EntryKind.VERIFIED, EntryKind.GAP})
_Own: TypeAlias = BundleRecord | CheckpointRecord | PolicyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlan:
    """Which log of which stream: its origin, the keys that verify its checkpoints, and its first entries.

    `previous` is the last checkpoint of the previous period's log, as a note; empty if there was none. `whole` makes the
    notary compare the whole stream at each start, not only its last messages.
    """

    origin: str
    verifiers: tuple[NoteVerifier, ...]
    stream: str = AUDIT
    previous: bytes = field(default=b"", repr=False)
    whole: bool = False

    def beginning(self, created: int) -> list[Entry]:
        """Return the first entries of the log of a stream that was created at `created`."""
        entries = [creation_entry(self.stream, created=created)]
        if self.previous:
            entries.append(previous_entry(self.previous, created=created))
        return entries


@dataclass(slots=True, kw_only=True)
class Taken:
    """A log that may be continued. Before anything is signed it must reach `floor`, with exactly this root."""

    ledger: Ledger
    last: Checkpoint | None
    floor: Checkpoint | None
    unpublished: bytes | None
    """The last checkpoint's note, if the stream does not hold it."""
    pending: list[StoredRestoration] = field(default_factory=list)
    """Restorations of the stream that the log has to come to."""
    restored: bool = False
    """Whether one was added to `ledger`."""
    streams: tuple[RestoredStream, ...] = ()
    """The other streams that were restored, of which processes learn once the log names all of them."""


async def take_up(
    plan: LogPlan,
    store: LogStore,
    transport: Transport,
    *,
    identity: Identity,
    subject: str,
    verifier: MessageVerifier,
    history: TrustHistory,
    policies: PolicyArchive,
    announced: Checkpoint | None,
    fence: int = 0,
) -> Taken:
    """Return the log in `store`, checked; a new one if there is none.

    `announced` is what another notary was about to sign, `subject` is that of our own records. `history` and `policies` are
    added to. Our own records are also opened with the current bundles: an empty store knows no others. If a restoration is
    still to be logged, all of the stream is compared, and what the store holds of bundles and policies that a restored stream
    does not hold is forgotten under `fence`, so that it is recorded again. Raises `LogError` if tiles or stream do not match
    the last checkpoint, or it is not one of ours; `BusUnavailable`.
    """
    created = await transport.created(plan.stream)
    signed = await asyncio.to_thread(stored_checkpoint, store, plan.origin, plan.verifiers)
    size = signed.checkpoint.size if signed is not None else 0
    restorations = await asyncio.to_thread(
        lambda: Restorations.read(store, size=size, created=created, origin=plan.origin, verifiers=plan.verifiers)
    )
    pending = list(restorations.pending)
    beginning = plan.beginning(restorations.created)
    start: int | None = None
    if signed is None:
        ledger, last, note = Ledger(), None, None
        for entry in beginning:
            ledger.append(entry)
    else:
        last, note = signed.checkpoint, signed.note
        if last.size == 0:
            raise LogError(Code.LOG_MISMATCH, "an empty checkpoint, which this notary never makes")
        ledger = await asyncio.to_thread(Ledger.resume, store, last)
        await asyncio.to_thread(check_beginning, store, last.size, beginning)
        first = 0 if plan.whole or pending else (last.size - 1) // TILE_WIDTH * TILE_WIDTH
        await check_stream(transport, plan.stream, store, last.size, first=first, restorations=restorations)
        if any(ledger.next > one.restoration.last + 1 for one in pending):
            start = 1
        for known in await asyncio.to_thread(remembered, store):
            history.add(known)
    if start is None:
        await recall_policies(store, policies)
    floor, unpublished = announced, note
    held: list[_Own] = []
    async with aclosing(transport.read(plan.stream, [subject], start=start or ledger.next)) as batches:
        async for batch in batches:
            found = await asyncio.to_thread(_own_records, verifier, batch, identity.spiffe_id, identity.bundles())
            if start is not None:
                held += [one for one in found if not isinstance(one, CheckpointRecord)]
            for record in found:
                if isinstance(record, BundleRecord):
                    history.add(record)
                    continue
                if isinstance(record, PolicyRecord):
                    policies.recorded(record)
                    continue
                if record.note == note:
                    unpublished = None
                published = own_checkpoint(record, plan)
                if published is not None and (floor is None or published.size > floor.size):
                    floor = published
    if floor is not None and last is not None and floor.size <= last.size:
        await asyncio.to_thread(_check_floor, store, last, floor)
        floor = None
    if start is not None:
        history.retain([one for one in held if isinstance(one, BundleRecord)])
        kept = {trust_path(one) if isinstance(one, BundleRecord) else record_path(one) for one in held if _is_kept(one)}
        await asyncio.to_thread(lambda: _forget_others(store, fence, kept))
        await recall_policies(store, policies)
    taken = Taken(
        ledger=ledger,
        last=last,
        floor=floor,
        unpublished=unpublished,
        pending=pending,
        streams=restorations.streams,
    )
    taken.restored = bool(add_restorations(taken.ledger, taken.pending)) if floor is None else False
    return taken


def add_restorations(ledger: Ledger, pending: list[StoredRestoration]) -> int:
    """Move those of `pending` that the log has come to into `ledger`; return how many."""
    count = 0
    while pending and ledger.settled and ledger.next > pending[0].restoration.last:
        ledger.append(pending.pop(0).entry)
        count += 1
    return count


def _is_kept(record: _Own) -> TypeGuard[BundleRecord | PolicyRecord]:
    return not isinstance(record, CheckpointRecord)


def _forget_others(store: LogStore, fence: int, kept: Set[str]) -> None:
    """Remove the records that the store holds and the stream does not."""
    store.forget(fence, [path for folder in (TRUST, RECORDS) for path in store.names(folder) if path not in kept])


def _check_floor(store: LogStore, last: Checkpoint, other: Checkpoint) -> None:
    if TiledTree(last.size, tile_reader(store.get)).root(other.size) != other.root:
        raise LogError(Code.INCONSISTENT_LOG, "another notary has signed another history of this stream")


def remembered(store: LogStore) -> list[BundleRecord]:
    """Return the trust bundles in the log so far. Raises `LogError` (`log_mismatch`) for a file that does not hold one."""
    records = []
    for path in store.names(TRUST):
        data = store.get(path) or b""
        try:
            record = parse_record(data)
        except EnvelopeError as error:
            raise LogError(Code.LOG_MISMATCH, f"{path} is not a bundle record") from error
        if not isinstance(record, BundleRecord) or trust_path(record) != path:
            raise LogError(Code.LOG_MISMATCH, f"{path} is not the bundle record of its name")
        records.append(record)
    return records


def trust_path(record: BundleRecord) -> str:
    """Return the path of a bundle record: its time, and the hash of its bytes."""
    return f"{TRUST}/{record.current:016d}-{sha256(record.encode()).hexdigest()[:32]}"


def own_checkpoint(record: CheckpointRecord, plan: LogPlan) -> Checkpoint | None:
    """Return the checkpoint in a record of ours; `None` for one of another log, such as the previous period's.

    Raises `LogError` for a checkpoint of this log that none of our keys signed.
    """
    try:
        return open_checkpoint(record.note, origin=plan.origin, verifiers=plan.verifiers).checkpoint
    except LogError as error:
        # A key replaced long ago, another log, or not a checkpoint: irrelevant to this log now.
        if error.code is Code.BAD_NOTE_SIGNATURE:
            raise
        return None


def _own_records(verifier: MessageVerifier, batch: Sequence[Delivery], own: SpiffeId, now: TrustBundles) -> list[_Own]:
    found: list[_Own] = []
    for delivery in batch:
        try:
            audit = verifier.open(delivery, [now])
        except EnvelopeError:
            continue
        if audit.header.iss == own:
            found += [one for one in audit.body.records.values() if isinstance(one, _Own)]
    return found


def check_beginning(store: LogStore, size: int, beginning: Sequence[Entry]) -> None:
    """Raise `LogError` (`log_mismatch`) unless a log of `size` entries begins with `beginning`."""
    _, entries = entry_rows(store, 0, min(size, TILE_WIDTH))
    if entries[: len(beginning)] != tuple(entry.hash for entry in beginning[:size]):
        raise LogError(Code.LOG_MISMATCH, "the log does not begin with the creation of this stream")


async def check_stream(
    transport: Transport,
    stream: str,
    store: LogStore,
    size: int,
    *,
    first: int,
    restorations: Restorations | None = None,
) -> None:
    """Raise `LogError` (`log_mismatch`) unless the stream matches entries `first` to `size`, with nothing more in between.

    Messages that count as verified are not verified again: their headers are compared. Those that a restored stream does not
    hold, by `restorations`, are left out.
    """
    known = restorations or Restorations(0)
    last = min([_last(store, size), *(one.restoration.last for one in known.pending)])
    expected = _expected(store, size, first, known)
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
        raise LogError(Code.LOG_MISMATCH, f"the stream ends before sequence {place.sequence}, which the log holds")


def _expected(store: LogStore, size: int, first: int, known: Restorations) -> Iterator[tuple[Place, bytes]]:
    for index in range(first // TILE_WIDTH, -(-size // TILE_WIDTH)):
        places, entries = entry_rows(store, index, min(TILE_WIDTH, size - index * TILE_WIDTH))
        skipped = max(first - index * TILE_WIDTH, 0)
        for row, (place, entry) in enumerate(zip(places[skipped:], entries[skipped:], strict=True), skipped):
            if place.kind in _MESSAGES and not known.is_gone(index * TILE_WIDTH + row, size, place.sequence):
                yield place, entry


def _last(store: LogStore, size: int) -> int:
    places, _ = entry_rows(store, (size - 1) // TILE_WIDTH, (size - 1) % TILE_WIDTH + 1)
    return places[-1].sequence


async def _messages(transport: Transport, stream: str, first: int, last: int) -> AsyncGenerator[Delivery, None]:
    source = transport.read(stream, [SUBJECTS[AUDIT]], start=first)
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
        raise LogError(Code.LOG_MISMATCH, f"the stream differs from the log from sequence {where} on")

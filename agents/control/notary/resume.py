"""Resuming a log: tiles, stream and published checkpoints are compared before an entry is added."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, MutableMapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeAlias

from sealbus.agents.control.notary.log.folder_store import TRUST, FolderStore
from sealbus.agents.control.notary.log.ledger import Ledger, entry_rows, last_place, stored_checkpoint, stored_record
from sealbus.agents.control.notary.log.message_verifier import MessageVerifier, placed
from sealbus.agents.control.notary.policy_archive import RECORDS, StoredPolicies, record_path, stored_policies
from sealbus.agents.control.notary.publisher import NotarySite
from sealbus.agents.control.notary.restored_stream import Restorations, StoredRestoration
from sealbus.agents.identity.threads import in_thread
from sealbus.bus.ports import Delivery, Transport
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
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord, PolicyRecord
from sealbus.envelopes.trust.bundles import TrustBundles

_MESSAGES = frozenset({EntryKind.UNVERIFIED, EntryKind.VERIFIED, EntryKind.GAP})
_OwnRecord: TypeAlias = BundleRecord | CheckpointRecord | PolicyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlan:
    """The stream that a log is of, its origin, the keys that verify its checkpoints, and its first entries.

    `previous` is the last checkpoint of the previous period's log, as a note; empty if there was none. With `whole` the
    notary compares the whole stream at each start, and not only its last messages.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumedLog:
    """A log that may be continued. Before a checkpoint is signed it must reach `floor`, with exactly this root."""

    ledger: Ledger
    last: Checkpoint | None
    floor: Checkpoint | None
    unpublished: bytes | None
    """The last checkpoint's note, if the stream does not hold it."""
    note: bytes | None
    """The last checkpoint's note, as the log signed it."""
    verifier: MessageVerifier
    """The verifier of the next messages, by the bundles in `history`."""
    history: TrustHistory
    """The bundles that the log and the notary's own records name."""
    policies: StoredPolicies
    """The policies that the folder holds."""
    recorded: tuple[PolicyRecord, ...]
    """The policies that the notary's own records name after the log's end."""
    pending: tuple[StoredRestoration, ...]
    """Restorations of the stream that `ledger` does not hold."""
    streams: tuple[RestoredStream, ...]
    """The other streams that were restored. Processes learn of them once the log holds every restoration."""


async def resume_log(
    plan: LogPlan,
    site: NotarySite,
    store: FolderStore,
    *,
    sent: MutableMapping[int, int],
    announced: Checkpoint | None,
    fence: int,
) -> ResumedLog:
    """Return the log in `store`, checked against the stream; a new log if there is none.

    `announced` is the checkpoint that another notary was about to sign, `sent` as in `MessageVerifier`. The notary's own
    records are also opened with the current bundles, because an empty store knows no others. If a restoration is still to
    be logged, the whole stream is compared. Bundles and policies that the store holds and a restored stream does not are
    then removed under `fence`, so that they are recorded again. Raises `LogError` if tiles or stream do not match the last
    checkpoint, or if this log's keys did not sign it; `BusUnavailable`, `StateUnavailable`.
    """
    created = await site.transport.created(plan.stream)
    signed = await asyncio.to_thread(stored_checkpoint, store, plan.origin, plan.verifiers)
    last, note = (signed.checkpoint, signed.note) if signed is not None else (None, None)
    size = last.size if last is not None else 0
    restorations = await asyncio.to_thread(
        lambda: Restorations.read(store, size=size, created=created, origin=plan.origin, verifiers=plan.verifiers)
    )
    pending, history = restorations.pending, TrustHistory()
    if last is None:
        ledger = Ledger()
        for entry in plan.beginning(restorations.created):
            ledger.append(entry)
    else:
        ledger = await _checked_ledger(plan, site.transport, store, last, restorations)
        for known in await asyncio.to_thread(remembered, store):
            history.add(known)
    # The log holds messages that the restored stream lacks. The stream is then read from its start, to learn which
    # of the notary's own records it still holds.
    behind = last is not None and any(ledger.next > waiting.restoration.last + 1 for waiting in pending)
    profile, own = ArchiveProfile(names=site.names), site.identity.spiffe_id
    verifier = MessageVerifier(profile=profile, own=own, history=history, sent=sent)
    records = await _own_records(plan, site, verifier, history, note=note, start=1 if behind else ledger.next)
    verifier.earlier = records.last
    claims = [claim for claim in (announced, records.largest) if claim is not None]
    floor = max(claims, key=lambda claim: claim.size, default=None)
    if floor is not None and last is not None and floor.size <= last.size:
        await asyncio.to_thread(_check_floor, store, last, floor)
        floor = None
    if behind:
        history.retain(records.bundles)
        held = {*map(trust_path, records.bundles), *map(record_path, records.policies)}
        await asyncio.to_thread(
            lambda: store.forget(fence, {*store.names(TRUST), *store.names(RECORDS)}.difference(held))
        )
    return ResumedLog(
        ledger=ledger,
        last=last,
        floor=floor,
        unpublished=None if records.has_note else note,
        note=note,
        verifier=verifier,
        history=history,
        policies=await in_thread(lambda: stored_policies(store)),
        recorded=tuple(records.policies),
        pending=pending,
        streams=restorations.streams,
    )


async def _checked_ledger(
    plan: LogPlan, transport: Transport, store: FolderStore, last: Checkpoint, restorations: Restorations
) -> Ledger:
    """Return the ledger that continues after `last`, once tiles and stream match it."""
    if last.size == 0:
        raise LogError(Code.LOG_MISMATCH, "an empty checkpoint, which this notary never makes")
    ledger = await asyncio.to_thread(Ledger.resume, store, last)
    await asyncio.to_thread(check_beginning, store, last.size, plan.beginning(restorations.created))
    first = 0 if plan.whole or restorations.pending else (last.size - 1) // TILE_WIDTH * TILE_WIDTH
    await check_stream(transport, plan.stream, store, last.size, first=first, restorations=restorations)
    return ledger


def _check_floor(store: FolderStore, last: Checkpoint, other: Checkpoint) -> None:
    if TiledTree(last.size, tile_reader(store.get)).root(other.size) != other.root:
        raise LogError(Code.INCONSISTENT_LOG, "another notary has signed another history of this stream")


def remembered(store: FolderStore) -> list[BundleRecord]:
    """Return the trust bundles in the log so far. Raises `LogError` (`log_mismatch`) for a file that holds no bundle."""
    return [stored_record(store, path, BundleRecord, trust_path) for path in store.names(TRUST)]


def trust_path(record: BundleRecord) -> str:
    """Return the path of a bundle record: its time, and the hash of its bytes."""
    return f"{TRUST}/{record.current:016d}-{sha256(record.encode()).hexdigest()[:32]}"


def own_checkpoint(record: CheckpointRecord, plan: LogPlan) -> Checkpoint | None:
    """Return the checkpoint in a record of this notary; `None` for a checkpoint of another log, as of the previous period.

    Raises `LogError` for a checkpoint of this log that none of its keys signed.
    """
    try:
        return open_checkpoint(record.note, origin=plan.origin, verifiers=plan.verifiers).checkpoint
    except LogError as error:
        # A key that was replaced long ago, another log, or no checkpoint: irrelevant to this log.
        if error.code is Code.BAD_NOTE_SIGNATURE:
            raise
        return None


@dataclass(slots=True)
class _OwnRecords:
    """The notary's own records in the stream; of its checkpoints the largest, and whether one has the last note.

    `last` is the sequence of the last message on the notary's subject.
    """

    bundles: list[BundleRecord] = field(default_factory=list)
    policies: list[PolicyRecord] = field(default_factory=list)
    largest: Checkpoint | None = None
    has_note: bool = False
    last: int = 0


async def _own_records(
    plan: LogPlan,
    site: NotarySite,
    verifier: MessageVerifier,
    history: TrustHistory,
    *,
    note: bytes | None,
    start: int,
) -> _OwnRecords:
    """Return the notary's own records from the sequence `start` on, of messages that open.

    Bundles are added to `history`, so that `verifier` opens the messages after them.
    """
    records = _OwnRecords()
    async with aclosing(site.transport.read(plan.stream, [site.subject], start=start)) as batches:
        async for batch in batches:
            records.last = placed(batch[-1]).sequence
            for record in await asyncio.to_thread(_opened_records, site, verifier, batch, site.identity.bundles()):
                if isinstance(record, BundleRecord):
                    history.add(record)
                    records.bundles.append(record)
                elif isinstance(record, PolicyRecord):
                    records.policies.append(record)
                else:
                    records.has_note = records.has_note or record.note == note
                    published = own_checkpoint(record, plan)
                    if published is not None and (records.largest is None or published.size > records.largest.size):
                        records.largest = published
    return records


def _opened_records(
    site: NotarySite, verifier: MessageVerifier, batch: Sequence[Delivery], now: TrustBundles
) -> list[_OwnRecord]:
    records: list[_OwnRecord] = []
    for delivery in batch:
        try:
            audit = verifier.open(delivery, [now])
        except EnvelopeError:
            continue
        if audit.header.iss == site.identity.spiffe_id:
            records += [record for record in audit.body.records.values() if isinstance(record, _OwnRecord)]
    return records


def check_beginning(store: FolderStore, size: int, beginning: Sequence[Entry]) -> None:
    """Raise `LogError` (`log_mismatch`) unless a log of `size` entries begins with `beginning`."""
    _, entries = entry_rows(store, 0, min(size, TILE_WIDTH))
    if entries[: len(beginning)] != tuple(entry.hash for entry in beginning[:size]):
        raise LogError(Code.LOG_MISMATCH, "the log does not begin with the creation of this stream")


async def check_stream(
    transport: Transport,
    stream: str,
    store: FolderStore,
    size: int,
    *,
    first: int,
    restorations: Restorations | None = None,
) -> None:
    """Raise `LogError` (`log_mismatch`) unless the stream holds the messages of entries `first` to `size`, and no others.

    Messages that the log holds as verified are not verified again: their headers are compared. Messages that a restored
    stream lacks, by `restorations`, are left out.
    """
    known = restorations or Restorations(0)
    last = min([last_place(store, size).sequence, *(waiting.restoration.last for waiting in known.pending)])
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


def _expected(store: FolderStore, size: int, first: int, known: Restorations) -> Iterator[tuple[Place, bytes]]:
    for index in range(first // TILE_WIDTH, -(-size // TILE_WIDTH)):
        places, entries = entry_rows(store, index, min(TILE_WIDTH, size - index * TILE_WIDTH))
        skipped = max(first - index * TILE_WIDTH, 0)
        for row, (place, entry) in enumerate(zip(places[skipped:], entries[skipped:], strict=True), skipped):
            if place.kind in _MESSAGES and not known.is_gone(index * TILE_WIDTH + row, size, place.sequence):
                yield place, entry


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

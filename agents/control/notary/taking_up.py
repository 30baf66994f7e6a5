"""Taking a log up where it was: its own tiles, the stream, and what was published are compared before anything is added."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeAlias

from sealbus.agents.control.notary.judging import Judging
from sealbus.agents.control.notary.kept_policies import recall_policies
from sealbus.agents.control.notary.ledger import Ledger, stored_checkpoint
from sealbus.agents.control.notary.log_store import TRUST, LogStore
from sealbus.agents.control.notary.policy_archive import PolicyArchive
from sealbus.agents.control.notary.stream_match import check_beginning, check_stream
from sealbus.bus.ports import Delivery, Identity, Transport
from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.log.checkpoint import Checkpoint, open_checkpoint
from sealbus.envelopes.log.entries import Entry, creation_entry, previous_entry
from sealbus.envelopes.log.note_keys import NoteVerifier
from sealbus.envelopes.log.tiled_tree import TiledTree
from sealbus.envelopes.log.tiles import TILE_WIDTH, tile_reader
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.notary_records import BundleRecord, CheckpointRecord, PolicyRecord
from sealbus.envelopes.records import parse_record
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.trust import TrustBundles

__all__ = ["LogPlan", "Taken", "own_checkpoint", "remembered", "take_up", "trust_path"]

_Own: TypeAlias = BundleRecord | CheckpointRecord | PolicyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlan:
    """Which log of which stream: its origin, the keys that its checkpoints are verified with, and what it begins with.

    `previous` is the last checkpoint of the previous period's log, as a note; empty where there was none. `whole` makes
    the notary compare all of the stream at each start, not only its last messages.
    """

    origin: str
    verifiers: tuple[NoteVerifier, ...]
    stream: str = "AUDIT"
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
    """A log that may go on. `floor` is what it must come to before anything is signed, with exactly this root."""

    ledger: Ledger
    last: Checkpoint | None
    floor: Checkpoint | None
    unpublished: bytes | None
    """The last checkpoint's note, where the stream does not hold it."""


async def take_up(
    plan: LogPlan,
    store: LogStore,
    transport: Transport,
    *,
    identity: Identity,
    subject: str,
    judging: Judging,
    history: TrustHistory,
    policies: PolicyArchive,
    announced: Checkpoint | None,
) -> Taken:
    """Return the log in `store`, checked; a new one where there is none.

    `announced` is what another notary was about to sign, `subject` is where our own records are. `history` and `policies`
    are added to.
    Our own records are opened with the bundles that are current now as well: a store that is empty knows no others.
    Raises `LogError` if tiles or stream do not match the last checkpoint, or it is not one of ours; `BusUnavailable`.
    """
    created = await transport.created(plan.stream)
    beginning = plan.beginning(created)
    signed = await asyncio.to_thread(stored_checkpoint, store, plan.origin, plan.verifiers)
    if signed is None:
        ledger, last, note = Ledger(), None, None
        for entry in beginning:
            ledger.append(entry)
    else:
        last, note = signed.checkpoint, signed.note
        if last.size == 0:
            raise LogError(Code.LOG_MISMATCH, "a checkpoint of nothing, which this notary never makes")
        ledger = await asyncio.to_thread(Ledger.resume, store, last)
        await asyncio.to_thread(check_beginning, store, last.size, beginning)
        first = 0 if plan.whole else (last.size - 1) // TILE_WIDTH * TILE_WIDTH
        await check_stream(transport, plan.stream, store, last.size, first=first)
        for known in await asyncio.to_thread(remembered, store):
            history.add(known)
    await recall_policies(store, policies)
    floor, unpublished = announced, note
    async with aclosing(transport.read(plan.stream, [subject], start=ledger.next)) as batches:
        async for batch in batches:
            found = await asyncio.to_thread(_own_records, judging, batch, identity.spiffe_id, identity.bundles())
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
        await asyncio.to_thread(_compare, store, last, floor)
        floor = None
    return Taken(ledger=ledger, last=last, floor=floor, unpublished=unpublished)


def _compare(store: LogStore, last: Checkpoint, other: Checkpoint) -> None:
    if TiledTree(last.size, tile_reader(store.get)).root(other.size) != other.root:
        raise LogError(Code.INCONSISTENT_LOG, "another notary has signed another history of this stream")


def remembered(store: LogStore) -> list[BundleRecord]:
    """Return the trust bundles that the log holds so far. Raises `LogError` (`log_mismatch`) for a file that is no such."""
    records = []
    for path in store.names(TRUST):
        data = store.get(path) or b""
        try:
            record = parse_record(data)
        except EnvelopeError as error:
            raise LogError(Code.LOG_MISMATCH, f"{path} is no bundle record") from error
        if not isinstance(record, BundleRecord) or trust_path(record) != path:
            raise LogError(Code.LOG_MISMATCH, f"{path} is not the bundle record of its name")
        records.append(record)
    return records


def trust_path(record: BundleRecord) -> str:
    """Return where a bundle record is kept: by its time, and the hash of its bytes."""
    return f"{TRUST}/{record.current:016d}-{sha256(record.encode()).hexdigest()[:32]}"


def own_checkpoint(record: CheckpointRecord, plan: LogPlan) -> Checkpoint | None:
    """Return the checkpoint of this log that a record of ours holds, `None` if it is of another, the previous for one.

    Raises `LogError` for one of this log that no key of ours has signed.
    """
    try:
        return open_checkpoint(record.note, origin=plan.origin, verifiers=plan.verifiers).checkpoint
    except LogError as error:
        # A key that was replaced long ago, another log, or no checkpoint: it says nothing about this log now.
        if error.code is Code.BAD_NOTE_SIGNATURE:
            raise
        return None


def _own_records(judging: Judging, batch: Sequence[Delivery], own: SpiffeId, now: TrustBundles) -> list[_Own]:
    found: list[_Own] = []
    for delivery in batch:
        try:
            audit = judging.open(delivery, [now])
        except EnvelopeError:
            continue
        if audit.header.iss == own:
            found += [one for one in audit.body.records.values() if isinstance(one, _Own)]
    return found

"""One term of a notary: it follows the stream until the lease or the broker is lost, or the term is cancelled."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

from sealbus.agents.control.notary.cosigning import CosignedNote, Cosigning
from sealbus.agents.control.notary.key_book import KeyBookWriter
from sealbus.agents.control.notary.lease import Lease
from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.log.message_verifier import LoggedMessage, placed
from sealbus.agents.control.notary.policy_archive import PolicyArchive, archive_policies, record_path
from sealbus.agents.control.notary.publisher import NotarySite, RecordPublisher
from sealbus.agents.control.notary.resume import LogPlan, ResumedLog, own_checkpoint, trust_path
from sealbus.agents.identity.threads import in_thread
from sealbus.bus.ports import Delivery
from sealbus.bus.stream_names import AUDIT, SUBJECTS
from sealbus.envelopes.errors import Code, LogError, SealbusError
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.log.tiles import TiledTree, tile_reader
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord, PolicyRecord

ENTRIES: Final = 1_000
SECONDS: Final = 1.0
"""A checkpoint is due after this many entries, or when the first entry that counts is this old (SPEC.md section 13)."""

_AT_ONCE: Final = 200
_BYTES_AT_ONCE: Final = 2 * 1_048_576
"""Most messages, and most bytes, verified by one call in a thread; the lease is renewed in between."""
_TICK: Final = 1.0
"""Seconds until a message with an unknown key is verified again, unless bundles change before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotaryParts:
    """The parts of one notary, which all its terms use."""

    plan: LogPlan
    signers: Sequence[NoteSigner]
    site: NotarySite
    store: FolderStore
    lease: Lease
    publisher: RecordPublisher
    policies: PolicyArchive
    key_book: KeyBookWriter
    cosigning: Cosigning | None = None


class Term:
    """The following of the stream for one log, resumed under a lease. `changed` is set when trust bundles change."""

    def __init__(self, parts: NotaryParts, log: ResumedLog, changed: asyncio.Event) -> None:
        self._parts = parts
        self._log = log
        self._ledger = log.ledger
        self._last = log.last
        self._floor = log.floor
        self._unpublished = log.unpublished
        self._restorations = log.pending
        self._changed = changed
        self._waiting: deque[Delivery] = deque()
        self._arrived: asyncio.Queue[Sequence[Delivery] | SealbusError] = asyncio.Queue(1)
        self._records: dict[str, bytes] = {}
        """The notary's own records that the next checkpoint covers, by their path in the store."""
        self._pending = 0
        self._due: float | None = None
        self._named = asyncio.Event()
        """Set once every restoration of the stream is under a stored checkpoint."""
        if not log.pending:
            self._named.set()
        if log.last is None:
            # A new log already has entries to sign.
            self._make_due()

    async def follow(self) -> None:
        """Follow the stream until an error ends the term, such as `LeaseLost`, `BusUnavailable` or `LogError`; raise it."""
        failure: SealbusError | None = None
        # First, because reading begins where the ledger ends: a log that is ahead of a restored stream goes back.
        self._add_restorations()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read(), name="notary-reading")
            # A task of its own: the lease is renewed even while a book takes long to write.
            beside = [group.create_task(self._write_key_book(), name="notary-key-book")]
            if (cosigning := self._parts.cosigning) is not None:
                if self._last is not None and self._log.note is not None:
                    cosigning.offer(self._last, self._log.note)
                beside.append(group.create_task(cosigning.run(), name="notary-witnesses"))
            try:
                await self._work()
            except SealbusError as error:
                # Raised after the group, which would wrap it in an exception group.
                failure = error
            finally:
                reading.cancel()
                for task in beside:
                    task.cancel()
        if failure is not None:
            raise failure

    async def _write_key_book(self) -> None:
        # An earlier book would not name the restored streams: agents would refuse the waiting messages for good.
        await self._named.wait()
        await self._parts.key_book.write_books(self._log.history, self._log.streams)

    async def _read(self) -> None:
        try:
            source = self._parts.site.transport.read(
                self._parts.plan.stream, [SUBJECTS[AUDIT]], start=self._ledger.next, follow=True
            )
            async with aclosing(source) as batches:
                async for batch in batches:
                    await self._arrived.put(batch)
        except SealbusError as error:
            # `_work` raises it.
            await self._arrived.put(error)

    async def _work(self) -> None:
        parts, loop = self._parts, asyncio.get_running_loop()
        while True:
            if parts.cosigning is not None and (found := parts.cosigning.take()) is not None:
                await in_thread(partial(self._keep_cosigned, found))
            if self._unpublished is not None:
                await parts.publisher.publish_record(CheckpointRecord(note=self._unpublished))
                self._unpublished = None
                parts.site.counters.add("sealbus_notary_checkpoints_total")
            if self._changed.is_set():
                self._changed.clear()
                if await parts.publisher.publish_new_bundles(self._log.history, self._ledger.latest):
                    parts.key_book.changed()
            if parts.policies.next_offered() is not None:
                archived = await archive_policies(parts.store, parts.lease.number, parts.policies, parts.publisher)
                parts.site.counters.add("sealbus_notary_policies_total", archived)
            self._add_restorations()
            blocked = await self._judge()
            now = loop.time()
            due = self._due if self._may_sign() else None
            if due is not None and (self._pending >= ENTRIES or now >= due):
                await self._checkpoint()
            elif now >= parts.lease.due:
                await parts.lease.keep()
            elif blocked or not self._waiting:
                until = min(parts.lease.due, now + _TICK)
                await self._rest(min(until, due) if due is not None else until, blocked=blocked)

    def _keep_cosigned(self, found: CosignedNote) -> None:
        parts = self._parts
        parts.store.keep_cosigned(parts.lease.number, found.signed, found.cosigned, quorum=found.quorum)

    async def _rest(self, until: float, *, blocked: bool) -> None:
        """Wait for messages, until `until` at most; if the next message is `blocked`, wait for other bundles."""
        try:
            async with asyncio.timeout_at(until):
                if blocked:
                    await self._changed.wait()
                    return
                item = await self._arrived.get()
        except TimeoutError:
            return
        if isinstance(item, SealbusError):
            raise item
        self._waiting.extend(item)

    async def _judge(self) -> bool:
        """Add waiting messages to the ledger, up to a full checkpoint; return whether the next message has to wait."""
        if not self._waiting:
            return False
        batch, size = list[Delivery](), 0
        last = self._restorations[0].restoration.last if self._restorations else None
        for delivery in self._waiting:
            if last is not None and placed(delivery).sequence > last:
                break
            batch.append(delivery)
            size += len(delivery.payload)
            if len(batch) == _AT_ONCE or size >= _BYTES_AT_ONCE:
                break
        if not batch:
            # The restoration comes before these messages, but could not be added.
            raise LogError(Code.LOG_MISMATCH, f"the stream was restored up to {self._ledger.next - 1}, not to {last}")
        following, now = self._ledger.next, self._parts.site.clock()
        messages = await asyncio.to_thread(lambda: list(self._log.verifier.verify(batch, following, now)))
        for message in messages:
            self._waiting.popleft()
            await self._add_message(message)
        return len(messages) < len(batch)

    def _add_restorations(self) -> None:
        """Add the restorations that the log has reached, whatever others have signed after them."""
        while (
            self._restorations and self._ledger.settled and self._ledger.next > self._restorations[0].restoration.last
        ):
            restored, *waiting = self._restorations
            self._ledger.append(restored.entry)
            self._restorations = tuple(waiting)
            self._pending += 1
            self._make_due()
            self._compare_floor()

    def _compare_floor(self) -> None:
        """Compare the log with what another notary has signed, once it is as long. Raises `LogError` (`log_mismatch`)."""
        floor = self._floor
        if floor is not None and self._ledger.size >= floor.size:
            if (self._ledger.size, self._ledger.root()) != (floor.size, floor.root):
                raise LogError(Code.LOG_MISMATCH, "another notary has signed another history of this stream")
            self._floor = None

    def _make_due(self) -> None:
        """Let a checkpoint be due in `SECONDS`, unless one is due before."""
        if self._due is None:
            self._due = asyncio.get_running_loop().time() + SECONDS

    async def _add_message(self, message: LoggedMessage) -> None:
        for record in message.own:
            if isinstance(record, BundleRecord):
                if self._log.history.add(record):
                    self._parts.key_book.changed()
                self._records[trust_path(record)] = record.encode()
            elif isinstance(record, PolicyRecord):
                self._parts.policies.note_recorded(record)
                self._records[record_path(record)] = record.encode()
            elif isinstance(record, CheckpointRecord):
                await self._check_checkpoint(record)
        self._parts.policies.note_revisions(message.revisions)
        for entry in message.entries:
            self._ledger.append(entry)
        self._pending += len(message.entries)
        if message.counts:
            self._make_due()
        self._parts.site.counters.add("sealbus_notary_entries_total", len(message.entries))
        self._compare_floor()

    async def _check_checkpoint(self, record: CheckpointRecord) -> None:
        """Raise `LogError` for a checkpoint in the stream that this notary signed and that does not match the log."""
        published = own_checkpoint(record, self._parts.plan)
        if published is None:
            return
        if published.size <= (self._log.floor.size if self._log.floor is not None else 0):
            # The floor covers this checkpoint, and is compared once the log reaches it. A checkpoint covers only messages
            # before itself in the stream: a larger one is not of this log, and waiting for its size would sign nothing.
            if self._ledger.size < published.size:
                raise LogError(
                    Code.INCONSISTENT_LOG, "a published checkpoint is ahead of what precedes it in the stream"
                )
            return
        if self._last is None or published.size > self._last.size:
            # If another notary took over while this one was paused, it signed the checkpoint, and `keep` raises `LeaseLost`.
            await self._parts.lease.keep()
            raise LogError(Code.INCONSISTENT_LOG, "a published checkpoint is ahead of this log")
        tree = TiledTree(self._last.size, tile_reader(self._parts.store.get))
        if await asyncio.to_thread(tree.root, published.size) != published.root:
            raise LogError(Code.INCONSISTENT_LOG, "a published checkpoint is not of this log")

    def _may_sign(self) -> bool:
        return self._floor is None and self._ledger.settled and self._unpublished is None

    async def _checkpoint(self) -> None:
        """Announce, sign and store a checkpoint; its note is published in the next round of `_work`."""
        ledger = self._ledger
        checkpoint = Checkpoint(self._parts.plan.origin, ledger.size, ledger.root())
        await self._parts.lease.renew(checkpoint.size, checkpoint.root)
        note = sign_checkpoint(checkpoint, self._parts.signers)
        files = {**self._records, **ledger.files()}
        await in_thread(lambda: self._parts.store.commit(self._parts.lease.number, files, note))
        ledger.stored()
        self._records.clear()
        self._last, self._unpublished = checkpoint, note
        if self._parts.cosigning is not None:
            self._parts.cosigning.offer(checkpoint, note)
        self._pending, self._due = 0, None
        if not self._restorations:
            self._named.set()

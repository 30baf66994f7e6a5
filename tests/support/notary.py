"""A notary in memory, agents that record, and what everybody who reads such a log afterwards must find."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, FolderStore
from sealbus.agents.control.notary.log.ledger import entry_rows, last_place
from sealbus.agents.control.notary.notary import Notary, NotaryOptions
from sealbus.agents.control.notary.policy_archive import PolicyArchive
from sealbus.agents.control.notary.publisher import NotarySite
from sealbus.agents.control.notary.resume import LogPlan
from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.bus.clocks import BusClock, wall_clock
from sealbus.bus.ports import Clock, Delivery, Transport
from sealbus.bus.sending.outbox import Outbox
from sealbus.envelopes.errors import EnvelopeError
from sealbus.envelopes.log.checkpoint import Checkpoint, open_checkpoint
from sealbus.envelopes.log.entries import Entry, EntryKind, gap_entry, unverified_entry, verified_entry
from sealbus.envelopes.log.note import NoteSigner, NoteVerifier
from sealbus.envelopes.log.places import Place
from sealbus.envelopes.log.tiles import TILE_WIDTH, TiledTree, tile_reader
from sealbus.envelopes.log.tree_builder import check_tiles
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft, seal
from sealbus.envelopes.message.subjects import audit_subject
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.archive import ArchiveProfile, accept_record
from sealbus.envelopes.records.batch import AuditBatch
from sealbus.envelopes.records.body import parse_audit_body
from sealbus.envelopes.records.decision import CorePlace, DecisionRecord
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord
from sealbus.envelopes.records.record import Record
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.proof import Proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = [
    "NAMES",
    "NOTARY",
    "ORIGIN",
    "SIGNER",
    "Bench",
    "Found",
    "last_place",
    "own_records",
    "read_log",
    "record_wire",
]

ORIGIN = "log.example.org/audit"
SIGNER = NoteSigner(ORIGIN, bytes(range(32)))
NAMES = Names(TrustDomain("example.org"))
NOTARY = NAMES.id_of("notary")


def record_wire(identity: MemoryIdentity, number: int, now: int, record: Record | None = None) -> tuple[str, bytes]:
    """Return subject and payload of an audit message with one record, an outcome unless it is given."""
    batch = AuditBatch()
    outcome = OutcomeRecord.of(decision=number.to_bytes(32, "big"), code=None, micros=1, delivery=1, sent=())
    batch.add((record or outcome).encode())
    closed = batch.close()
    to = audit_subject(NAMES.token(identity.spiffe_id))
    id_ = bytearray(number.to_bytes(16, "big"))
    id_[6], id_[8] = 0x70, 0x80
    draft = Draft(
        kind=Kind.RECORD,
        id=bytes(id_),
        to=to,
        iat=now,
        exp=now + 60_000_000,
        body=closed.body,
        dig=closed.dig,
        typ="application/vnd.sealbus.audit.v1",
    )
    [sealed] = seal([draft], identity.sealer())
    return to, sealed.wire


@dataclass
class Bench:
    """A broker in memory with AUDIT, STATE and HELD, and notaries on it."""

    folder: Path
    clock: Clock = wall_clock
    broker: MemoryBroker = field(init=False)
    authority: DevelopmentAuthority = field(init=False)
    agent: MemoryIdentity = field(init=False)
    numbers: int = 0

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(self.now)
        self.broker.add_stream("AUDIT", ["audit.>"])
        self.broker.add_stream("STATE", ["state.>"])
        self.broker.add_stream("HELD", ["held.>"])
        self.authority = DevelopmentAuthority(TrustDomain("example.org"))
        self.agent = MemoryIdentity(self.authority, NAMES.id_of("shop"))

    def now(self) -> int:
        """Return the time of everybody here, which a test may change by changing `clock`."""
        return self.clock()

    def record(self, count: int = 1, identity: MemoryIdentity | None = None) -> None:
        """Store audit messages of an agent."""
        for _ in range(count):
            self.numbers += 1
            subject, payload = record_wire(identity or self.agent, self.numbers, self.now())
            self.broker.inject(subject, payload)

    def decide(self, revision: str, *, engine: str = "e") -> None:
        """Store a decision that was made by the policy of `revision`; the decided message is none."""
        self.numbers += 1
        decision = DecisionRecord(
            b"header", Proof(1, 0, (), bytes(64)), "a.b", CorePlace(opened=self.now()), 1, True, None, b"{}",
            revision=revision, policy="p", engine=engine, micros=1,
        )  # fmt: skip
        subject, payload = record_wire(self.agent, self.numbers, self.now(), decision)
        self.broker.inject(subject, payload)

    def garbage(self, payload: bytes = b"garbage") -> None:
        self.broker.inject("audit.shop", payload)

    def options(self, **changes: object) -> NotaryOptions:
        values: dict[str, object] = {"origin": ORIGIN, "verifiers": (SIGNER.verifier,), **changes}
        return NotaryOptions(plan=LogPlan(**values), signers=(SIGNER,), lease=1.0)  # type: ignore[arg-type]

    @asynccontextmanager
    async def notary(
        self,
        store: FolderStore | None = None,
        options: NotaryOptions | None = None,
        identity: MemoryIdentity | None = None,
        policies: PolicyArchive | None = None,
        clock: Clock | None = None,
    ) -> AsyncIterator[Notary]:
        """A notary that is not run yet."""
        identity = identity or MemoryIdentity(self.authority, NOTARY)
        transport = self.broker.connect()
        async with Outbox(identity=identity, transport=transport, clock=BusClock(self.now)) as outbox:
            site = NotarySite(
                identity=identity, transport=transport, outbox=outbox, names=NAMES, clock=clock or self.now
            )
            yield Notary(options or self.options(), site, store=store or FolderStore(self.folder), policies=policies)

    @asynccontextmanager
    async def running(
        self,
        store: FolderStore | None = None,
        options: NotaryOptions | None = None,
        identity: MemoryIdentity | None = None,
        policies: PolicyArchive | None = None,
    ) -> AsyncIterator[Notary]:
        """A notary that follows the stream until the end of the block."""
        async with self.notary(store, options, identity, policies) as notary:
            task = asyncio.create_task(notary.run())
            try:
                yield notary
            finally:
                task.cancel()
                await asyncio.wait({task})
            if not task.cancelled():
                task.result()

    def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint in the folder."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return None
        return open_checkpoint(path.read_bytes(), origin=ORIGIN, verifiers=[SIGNER.verifier]).checkpoint

    def stored(self) -> int:
        """Return how many messages the stream holds now."""
        return len(self.broker.streams["AUDIT"].stored)

    async def sealed(self, sequence: int, folder: Path | None = None) -> None:
        """Wait until the log has a checkpoint over the message `sequence` of the stream."""
        store = FolderStore(folder or self.folder)

        def reached() -> bool:
            note = store.get(CHECKPOINT)
            if note is None:
                return False
            size = open_checkpoint(note, origin=ORIGIN, verifiers=[SIGNER.verifier]).checkpoint.size
            return last_place(store, size).sequence >= sequence

        await self.until(reached)

    async def published(self, count: int) -> None:
        """Wait until the stream holds so many checkpoints, and the last of the folder."""

        def there() -> bool:
            notes = [
                record.note
                for record in own_records(self.broker.streams["AUDIT"].stored)
                if isinstance(record, CheckpointRecord)
            ]
            return len(notes) >= count and notes[-1] == (self.folder / CHECKPOINT).read_bytes()

        await self.until(there)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110  files of another task: there is no event to wait for
                await asyncio.sleep(0.02)


@dataclass
class Found:
    """What a reader found of a log: places, checkpoints that were published, records of bundles."""

    size: int
    places: list[Place]
    published: list[Checkpoint]
    bundles: list[BundleRecord]

    def kinds(self, kind: EntryKind) -> list[int]:
        """Return the sequences of the entries of one kind."""
        return [place.sequence for place in self.places if place.kind is kind]


async def read_log(
    transport: Transport,
    folder: Path,
    notary: SpiffeId,
    *,
    verifiers: Sequence[NoteVerifier] = (SIGNER.verifier,),
    stream: str = "AUDIT",
    origin: str = ORIGIN,
    whole: bool = True,
) -> Found:
    """Read a log and its stream anew, and assert all that must hold of them, sharing no state with any notary.

    Every tile follows from the entries; every entry is computed again from the stream, in order, nothing left out and
    nothing twice; what counts as verified verifies with recorded bundles alone; every published checkpoint is of this
    very log, and so consistent with every other. `whole`: no published checkpoint is larger than the log.
    """
    store = FolderStore(folder)
    note = store.get(CHECKPOINT)
    assert note is not None
    last = open_checkpoint(note, origin=origin, verifiers=verifiers).checkpoint
    check_tiles(last.size, last.root, tile_reader(store.get))
    places, entries = list[Place](), list[bytes]()
    for index in range(-(-last.size // TILE_WIDTH)):
        some = entry_rows(store, index, min(TILE_WIDTH, last.size - index * TILE_WIDTH))
        places += some[0]
        entries += some[1]
    stored: list[Delivery] = []
    async for batch in transport.read(stream, ["audit.>"]):
        stored += batch
    history, published = bundles_and_checkpoints(stored, notary)
    again = recomputed(stored, history, places[-1].sequence)
    begins = [place for place in places if place.sequence == 0]
    assert [entry.hash for entry in again] == entries[len(begins) :]
    assert begins[0].kind is EntryKind.CREATION
    tree, notes = TiledTree(last.size, tile_reader(store.get)), []
    for one in published:
        checkpoint = open_checkpoint(one.note, origin=origin, verifiers=verifiers).checkpoint
        if checkpoint.size > last.size and not whole:
            continue
        assert checkpoint.size <= last.size
        assert tree.root(checkpoint.size) == checkpoint.root
        notes.append(checkpoint)
    return Found(last.size, places, notes, bundle_records(stored, notary))


def own_records(stored: Sequence[Delivery], notary: SpiffeId = NOTARY) -> list[Record]:
    """Return the records of messages that say they are the notary's, nothing verified."""
    found: list[Record] = []
    for delivery in stored:
        try:
            envelope = parse_envelope(delivery.payload)
            if parse_header(envelope.header).iss == notary:
                found += parse_audit_body(envelope.body).records.values()
        except EnvelopeError:
            continue
    return found


def bundle_records(stored: Sequence[Delivery], notary: SpiffeId) -> list[BundleRecord]:
    return [one for one in own_records(stored, notary) if isinstance(one, BundleRecord)]


def bundles_and_checkpoints(
    stored: Sequence[Delivery], notary: SpiffeId
) -> tuple[TrustHistory, list[CheckpointRecord]]:
    """Return the history of trust that the stream itself tells, and the notary's checkpoints in order."""
    history, published, caches = TrustHistory(bundle_records(stored, notary)), list[CheckpointRecord](), Caches()
    for delivery in stored:
        assert delivery.arrival is not None
        for bundles in history.at(delivery.arrival.stored):
            try:
                audit = accept_record(
                    delivery.payload,
                    delivery.subject,
                    ArchiveProfile(names=NAMES),
                    time=delivery.arrival.stored,
                    bundles=bundles,
                    caches=caches,
                )
            except EnvelopeError:
                continue
            if audit.header.iss == notary:
                published += [one for one in audit.body.records.values() if isinstance(one, CheckpointRecord)]
            break
    return history, published


def recomputed(stored: Sequence[Delivery], history: TrustHistory, until: int) -> list[Entry]:
    """Return the entries that the stream up to sequence `until` must have."""
    caches, entries, following = Caches(), list[Entry](), 1
    for delivery in stored:
        position = delivery.arrival
        assert position is not None
        if position.sequence > until:
            break
        if position.sequence > following:
            entries.append(gap_entry(following, position.sequence - following, time=position.stored))
        following = position.sequence + 1
        for bundles in history.at(position.stored):
            try:
                audit = accept_record(
                    delivery.payload,
                    delivery.subject,
                    ArchiveProfile(names=NAMES),
                    time=position.stored,
                    bundles=bundles,
                    caches=caches,
                )
            except EnvelopeError:
                continue
            entries.append(verified_entry(position.sequence, time=position.stored, header_digest=audit.header.digest))
            break
        else:
            entries.append(unverified_entry(position.sequence, time=position.stored, payload=delivery.payload))
    return entries

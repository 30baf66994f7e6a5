"""The policies by which the log's decisions were made: followed, stored in the log's folder, and recorded in the log.

Decisions name the revision of their policy. `follow_policy` offers each policy of the deployment that becomes current. A
decision may name a revision that was not offered, because the notary was away, or because another process composed other
parts while a push spread. Such a revision is wanted, and looked for among former bundles. The log does not wait for policies:
their problems are reported and retried, and stop nothing.

::

    policies/<sha256>.tar.gz      a bundle, complete and durable before its record is published
    policy-records/<sha256>       its `policy` record, once a checkpoint covers it

A process that is killed in between leaves a bundle without a record, which is recorded at the next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.log.ledger import stored_record
from sealbus.agents.control.notary.publisher import RecordPublisher
from sealbus.agents.identity.threads import in_thread
from sealbus.agents.runtime.policy.history import former_policy
from sealbus.agents.runtime.policy.source import PolicySource, anchors_of, open_source
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable, Code, ConfigurationError, LogError
from sealbus.envelopes.export.policy_files import policy_digest, policy_path
from sealbus.envelopes.records.notary import PolicyRecord
from sealbus.policies.bundle.format import Bundle, read_bundle
from sealbus.policies.lint.module import PolicyRefused

OFFERED: Final = 16
"""Most bundles waiting in memory to be recorded; beyond it the first is dropped, and wanted once a decision names it."""
WANTED: Final = 256
"""Most revisions waiting to be looked for: a recorder that invents revisions cannot fill the memory."""
GIVEN_UP: Final = 1_024
"""Most revisions remembered as not found, so that not every decision starts another search."""

_logger: Final = logging.getLogger(__name__)

AGAIN_AFTER: Final = 1.0
"""Seconds until the next try if there is no policy, or the store cannot be read."""
NONE: Final = "policies are not archived: neither a bucket nor a file is set (policy.bundle)"

_POLICIES: Final = "policies"
RECORDS: Final = "policy-records"
"""Folder of the `policy` records in the log so far."""


@dataclass(frozen=True, slots=True)
class StoredPolicies:
    """The policies in the folder of a log: the hashes of all bundles, all records, and the bundles without a record."""

    bundles: tuple[bytes, ...]
    records: tuple[PolicyRecord, ...]
    unrecorded: tuple[Bundle, ...]


class PolicyArchive:
    """The bundles to archive, and the archived bundles. Used from one event loop; nothing in it blocks."""

    def __init__(self) -> None:
        self.why: Callable[[], str] = lambda: "no policy is followed"
        self._records: dict[bytes, str] = {}
        self._stored: set[bytes] = set()
        self._revisions: set[str] = set()
        self._offered: OrderedDict[bytes, Bundle] = OrderedDict()
        self._wanted: OrderedDict[str, None] = OrderedDict()
        self._given_up: OrderedDict[str, None] = OrderedDict()
        self._wanting = asyncio.Event()

    @property
    def problem(self) -> str:
        """Why policies may be missing, in a few words; empty if the deployment's policy is followed."""
        return self.why()

    def offer(self, bundle: Bundle) -> None:
        """Offer a bundle that is or was current, unless it is already recorded and kept."""
        digest = bundle.digest
        self._wanted.pop(bundle.revision, None)
        if not (digest in self._records and digest in self._stored):
            self._offered[digest] = bundle
            if len(self._offered) > OFFERED:
                self._offered.popitem(last=False)

    def recall(self, stored: StoredPolicies) -> None:
        """Note the policies that the folder holds; bundles that were never recorded are offered again."""
        for digest in stored.bundles:
            self.note_kept(digest)
        for record in stored.records:
            self.note_recorded(record)
        for bundle in stored.unrecorded:
            self.offer(bundle)

    def next_offered(self) -> Bundle | None:
        """Return a bundle to keep and record; None if all are."""
        return next(iter(self._offered.values()), None)

    def note_kept(self, digest: bytes) -> None:
        """Note that the folder holds the bundle with this hash."""
        self._stored.add(digest)
        self._settle(digest)

    def is_kept(self, digest: bytes) -> bool:
        """Return whether the folder holds the bundle with this hash."""
        return digest in self._stored

    def note_recorded(self, record: PolicyRecord) -> None:
        """Note that the stream holds `record`, by any notary of this log; its bundle is wanted if it is not kept."""
        self._records[record.digest] = record.revision
        self._settle(record.digest)
        if record.digest not in self._stored and record.digest not in self._offered:
            self._want(record.revision)

    def is_recorded(self, digest: bytes) -> bool:
        """Return whether the stream holds a record of the bundle with this hash."""
        return digest in self._records

    def note_revisions(self, revisions: Iterable[str]) -> None:
        """Note the revisions that verified decisions name."""
        for revision in revisions:
            known = revision in self._revisions or revision in self._given_up
            if not known and all(bundle.revision != revision for bundle in self._offered.values()):
                self._want(revision)

    async def next_wanted(self) -> str:
        """Wait for a revision to look for and return it; the caller then offers its bundle or gives it up."""
        while not self._wanted:
            self._wanting.clear()
            await self._wanting.wait()
        return next(iter(self._wanted))

    def give_up(self, revision: str) -> None:
        """Note that no bundle has this revision: its decisions cannot be made again."""
        self._wanted.pop(revision, None)
        self._given_up[revision] = None
        if len(self._given_up) > GIVEN_UP:
            self._given_up.popitem(last=False)

    def _want(self, revision: str) -> None:
        if len(self._wanted) < WANTED:
            self._wanted[revision] = None
            self._wanting.set()

    def _settle(self, digest: bytes) -> None:
        if digest in self._records and digest in self._stored:
            self._revisions.add(self._records[digest])
            self._offered.pop(digest, None)
            self._wanted.pop(self._records[digest], None)


async def follow_policy(
    name: str, policy: PolicyTable, connection: Connection, archive: PolicyArchive, *, counters: Counters
) -> None:
    """Offer `archive` each policy that becomes current, and former policies that it wants, until cancelled.

    `name` is the name of the folder in `policy.cache`. Without a bucket or a file this logs a warning and returns.
    """
    logged = ""
    while True:
        try:
            async with open_source(name, policy, connection, counters=counters) as source:
                if source.in_force.bundle is None:
                    archive.why = partial(str, NONE)
                    _logger.warning("%s", NONE)
                    return
                archive.why = partial(_unarchived, source)
                async with source.in_force.taken(partial(_offer_packed, archive)):
                    await _look_for_former(policy, connection, archive)
        except ConfigurationError as error:
            archive.why = partial(str, f"policies are not archived: {error.detail}")
            if archive.problem != logged:
                logged = archive.problem
                _logger.warning("%s", logged)
        await asyncio.sleep(AGAIN_AFTER)


async def _offer_packed(archive: PolicyArchive, bundle: Bundle) -> None:
    """Offer `bundle` once it is packed, which takes seconds for a large one that a denial has extended."""
    await in_thread(lambda: bundle.digest)
    archive.offer(bundle)


def _unarchived(source: PolicySource) -> str:
    refused = source.in_force.problem
    return f"the newest policy is not archived: {refused}" if refused else source.problem()


async def _look_for_former(policy: PolicyTable, connection: Connection, archive: PolicyArchive) -> None:
    if policy.bucket is None:
        await asyncio.get_running_loop().create_future()
        return
    store, anchors = PolicyStore(connection, policy.bucket), await asyncio.to_thread(anchors_of, policy)
    while True:
        revision = await archive.next_wanted()
        try:
            bundle = await former_policy(store, anchors, revision)
        except BusUnavailable:
            await asyncio.sleep(AGAIN_AFTER)
            continue
        if bundle is None:
            _logger.warning("no bundle is kept of policy %s: decisions by it cannot be made again", revision)
            archive.give_up(revision)
        else:
            await _offer_packed(archive, bundle)


def policy_record(bundle: Bundle) -> PolicyRecord:
    """Return the record that `bundle` came into force."""
    return PolicyRecord(
        revision=bundle.revision, digest=bundle.digest, size=len(bundle.raw), location=policy_path(bundle.digest)
    )


def record_path(record: PolicyRecord) -> str:
    """Return the path of the record in the store, once the log holds it."""
    return f"{RECORDS}/{record.digest.hex()}"


async def archive_policies(store: FolderStore, fence: int, archive: PolicyArchive, publisher: RecordPublisher) -> int:
    """Store each offered bundle of `archive` durably, then record it; return how many. Raises as both do."""
    count = 0
    while (bundle := archive.next_offered()) is not None:
        if not archive.is_kept(bundle.digest):
            files = {policy_path(bundle.digest): bundle.raw}
            await in_thread(partial(store.keep, fence, files))
            archive.note_kept(bundle.digest)
        if not archive.is_recorded(bundle.digest):
            record = policy_record(bundle)
            await publisher.publish_record(record)
            archive.note_recorded(record)
            count += 1
    return count


def stored_policies(store: FolderStore) -> StoredPolicies:
    """Return the bundles and records that the folder of the log holds. Blocks.

    Raises `LogError` (`log_mismatch`) for a file that does not match its name, `StateUnavailable`.
    """
    kept = tuple(digest for path in store.names(_POLICIES) if (digest := policy_digest(path)) is not None)
    records = tuple(stored_record(store, path, PolicyRecord, record_path) for path in store.names(RECORDS))
    unrecorded = []
    for digest in set(kept).difference(record.digest for record in records):
        try:
            unrecorded.append(read_bundle(store.get(policy_path(digest)) or b""))
        except PolicyRefused as error:
            raise LogError(Code.LOG_MISMATCH, f"{policy_path(digest)} is not a policy bundle") from error
        if unrecorded[-1].digest != digest:
            raise LogError(Code.LOG_MISMATCH, f"{policy_path(digest)} is not the bundle of its name")
    return StoredPolicies(kept, records, tuple(unrecorded))

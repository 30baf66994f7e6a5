"""The policies in a log's folder: bundles by their hash, and the records about them that the log holds.

::

    policies/<sha256>.tar.gz      a bundle, complete and durable before its record is published
    policy-records/<sha256>       its `policy` record, once a checkpoint covers it

A bundle without a record is what a process left that was killed in between: it is recorded at the next start.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from sealbus.agents.control.notary.log_store import LogStore
from sealbus.agents.control.notary.policy_archive import PolicyArchive
from sealbus.agents.control.notary.recording import Recording
from sealbus.agents.control.notary.threads import in_thread
from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.export.policy_files import policy_digest, policy_path
from sealbus.envelopes.notary_records import PolicyRecord
from sealbus.envelopes.records import parse_record
from sealbus.policies.bundle_format import Bundle, read_bundle
from sealbus.policies.problems import PolicyRefused

__all__ = ["archive_policies", "policy_record", "recall_policies", "record_path"]

_POLICIES: Final = "policies"
_RECORDS: Final = "policy-records"


def policy_record(bundle: Bundle) -> PolicyRecord:
    """Return the record that `bundle` came into force."""
    return PolicyRecord(
        revision=bundle.revision, digest=bundle.digest, size=len(bundle.raw), location=policy_path(bundle.digest)
    )


def record_path(record: PolicyRecord) -> str:
    """Return where the record is kept once the log holds it."""
    return f"{_RECORDS}/{record.digest.hex()}"


async def recall_policies(store: LogStore, archive: PolicyArchive) -> None:
    """Tell `archive` what the folder holds; what was never recorded is offered again.

    Raises `LogError` (`log_mismatch`) for a file that is not what its name says, `StateUnavailable`.
    """
    kept, records, orphans = await in_thread(lambda: _read(store))
    for digest in kept:
        archive.kept(digest)
    for record in records:
        archive.recorded(record)
    for bundle in orphans:
        archive.offer(bundle)


async def archive_policies(store: LogStore, fence: int, archive: PolicyArchive, recording: Recording) -> int:
    """Keep what `archive` was offered, each durably before it is recorded; return how many. Raises as both do."""
    count = 0
    while (bundle := archive.next()) is not None:
        if not archive.is_kept(bundle.digest):
            files = {policy_path(bundle.digest): bundle.raw}
            await in_thread(partial(store.keep, fence, files))
            archive.kept(bundle.digest)
        if not archive.is_recorded(bundle.digest):
            record = policy_record(bundle)
            await recording.policy(record)
            archive.recorded(record)
            count += 1
    return count


def _read(store: LogStore) -> tuple[list[bytes], list[PolicyRecord], list[Bundle]]:
    kept = [digest for path in store.names(_POLICIES) if (digest := policy_digest(path)) is not None]
    records = [_record(store, path) for path in store.names(_RECORDS)]
    orphans = []
    for digest in set(kept).difference(record.digest for record in records):
        try:
            orphans.append(read_bundle(store.get(policy_path(digest)) or b""))
        except PolicyRefused as error:
            raise LogError(Code.LOG_MISMATCH, f"{policy_path(digest)} is no policy bundle") from error
        if orphans[-1].digest != digest:
            raise LogError(Code.LOG_MISMATCH, f"{policy_path(digest)} is not the bundle of its name")
    return kept, records, orphans


def _record(store: LogStore, path: str) -> PolicyRecord:
    try:
        record = parse_record(store.get(path) or b"")
    except EnvelopeError as error:
        raise LogError(Code.LOG_MISMATCH, f"{path} is no policy record") from error
    if not isinstance(record, PolicyRecord) or record_path(record) != path:
        raise LogError(Code.LOG_MISMATCH, f"{path} is not the policy record of its name")
    return record

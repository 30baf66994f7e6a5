"""Batches of records to spool, and a folder of its own to spool them in."""

from __future__ import annotations

from pathlib import Path

from sealbus.bus.audit.spool_files import SpoolFiles
from sealbus.envelopes.records.batch import AuditBatch, ClosedBatch
from sealbus.envelopes.records.work import OutcomeRecord

__all__ = ["batch_of", "contents", "open_files", "outcome"]


def outcome(number: int) -> OutcomeRecord:
    """Return a record that no other number gives."""
    return OutcomeRecord.of(decision=number.to_bytes(32, "big"), code=None, micros=1, delivery=1, sent=())


def batch_of(*numbers: int) -> ClosedBatch:
    """Return the records of these numbers as they are spooled: together."""
    batch = AuditBatch()
    for number in numbers:
        batch.add(outcome(number).encode())
    return batch.close()


def open_files(folder: Path, *, max_bytes: int = 1 << 20, segment_bytes: int = 1 << 20) -> SpoolFiles:
    """Open the spool in `folder`."""
    return SpoolFiles.open(folder, max_bytes=max_bytes, segment_bytes=segment_bytes)


def contents(folder: Path) -> list[ClosedBatch]:
    """Return what another process finds in `folder`, in order."""
    files = open_files(folder)
    try:
        return [frame.closed for frame in files.peek(1_000, 1 << 30)]
    finally:
        files.close()

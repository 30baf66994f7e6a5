"""Waits until a notary's log has what its stream has, so that an export of it has everything."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.notary import last_place

from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, FolderStore
from sealbus.agents.control.notary.log.message_verifier import placed
from sealbus.agents.runtime.open import open_connection
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.stream_names import AUDIT, SUBJECTS
from sealbus.envelopes.errors import EnvelopeError
from sealbus.envelopes.log.checkpoint import open_checkpoint
from sealbus.envelopes.log.note import NoteVerifier
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.body import parse_audit_body
from sealbus.envelopes.records.notary import CheckpointRecord

__all__ = ["sealed"]


async def sealed(settings: Settings, log: Path, verifier: NoteVerifier, *, operator: str = "operator") -> None:
    """Wait until everything that AUDIT holds now is under a checkpoint, but the checkpoints after the rest."""
    last = 0
    async with open_connection(operator, settings) as (_, connection):
        async for batch in NatsTransport(connection).read(AUDIT, [SUBJECTS[AUDIT]]):
            # A checkpoint alone is followed by none of its own: it may be the last that the stream gets.
            last = max([last, *(placed(one).sequence for one in batch if not is_checkpoint(one.payload))])
    store = FolderStore(log)
    async with asyncio.timeout(60):
        while True:
            note = store.get(CHECKPOINT)
            if note is not None:
                size = open_checkpoint(note, origin=verifier.name, verifiers=[verifier]).checkpoint.size
                if last_place(store, size).sequence >= last:
                    return
            await asyncio.sleep(0.05)


def is_checkpoint(payload: bytes) -> bool:
    """Return whether the message has checkpoints alone."""
    try:
        records = parse_audit_body(parse_envelope(payload).body).records.values()
    except EnvelopeError:
        return False
    return all(isinstance(one, CheckpointRecord) for one in records)

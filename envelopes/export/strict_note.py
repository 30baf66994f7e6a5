"""Checkpoints of which every byte counts: a C2SP verifier ignores what an unknown key signed, an export may not."""

from __future__ import annotations

from collections.abc import Sequence

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.checkpoint import SignedCheckpoint, open_checkpoint
from sealbus.envelopes.log.note_keys import NoteVerifier
from sealbus.envelopes.log.notes import parse_note

__all__ = ["open_strictly"]


def open_strictly(note: bytes, origin: str, keys: Sequence[NoteVerifier]) -> SignedCheckpoint:
    """Return the checkpoint of the log `origin` that `note` is, every signature by one of `keys`, none of them twice.

    Raises `LogError` as `open_checkpoint` does; `untrusted_note` for a signature by any other key, `bad_note` for a
    second one by the same.
    """
    signed = open_checkpoint(note, origin=origin, verifiers=keys)
    signatures = parse_note(note).signatures
    known = {(key.name, key.key_id) for key in keys}
    by = [(one.name, one.key_id) for one in signatures]
    if not known.issuperset(by):
        raise LogError(Code.UNTRUSTED_NOTE, "signed by a key that is not in the root file")
    if len(set(by)) != len(by):
        raise LogError(Code.BAD_NOTE, "signed twice by one key")
    return signed

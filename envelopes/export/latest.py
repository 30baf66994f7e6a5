"""The file `latest` of an export: a later checkpoint without a quorum, so that a verifier can say what follows.

Its form is that of a request to a witness (C2SP tlog-witness, `add-checkpoint`): a size, a consistency path, a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.checkpoint import Checkpoint
from sealbus.envelopes.log.note import base64_text, parse_base64
from sealbus.envelopes.log.tree_proofs import verify_consistency

LATEST: Final = "latest"
LATEST_BYTES: Final = DEFAULT_LIMITS.note_bytes + 4_096
"""A note, after the size and the nodes of the longest path."""


def encode_latest(old: int, path: Iterable[bytes], note: bytes) -> bytes:
    """Return the file: `note` is the later checkpoint, and `path` proves that it extends the one of `old` entries."""
    return "\n".join([_size_line(old), *map(base64_text, path), "", ""]).encode() + note


def check_latest(data: bytes, checkpoint: Checkpoint, root: Root) -> Checkpoint:
    """Return the later checkpoint in the file `data` of the export at `checkpoint`.

    Raises `LogError` as `Root.open_note` and `verify_consistency` do, and `bad_note` for other bytes, for a checkpoint that
    is not later, and for one with a quorum: the export should have been of that one.
    """
    head, _, note = data.partition(b"\n\n")
    try:
        first, *nodes = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise LogError(Code.BAD_NOTE, "latest: not ASCII before the checkpoint") from error
    if first != _size_line(checkpoint.size):
        raise LogError(Code.BAD_NOTE, "latest: its first line is not the size of the export")
    signed = root.open_note(note)
    later = signed.checkpoint
    if later.size <= checkpoint.size or root.has_quorum(signed):
        raise LogError(Code.BAD_NOTE, "latest: not a later checkpoint without a quorum")
    path = [parse_base64(node, "node") for node in nodes]
    verify_consistency(checkpoint.size, checkpoint.root, later.size, later.root, path)
    return later


def _size_line(size: int) -> str:
    return f"old {size}"

"""Receipts: proofs that an entry is in a log, which verify offline (C2SP tlog-proof)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.checkpoint import Checkpoint, open_checkpoint
from sealbus.envelopes.log.note import NoteVerifier, base64_text, parse_base64, parse_number
from sealbus.envelopes.log.tree_proofs import verify_inclusion

_FIRST: Final = "c2sp.org/tlog-proof@v1"
_EXTRA: Final = "extra "
_INDEX: Final = "index "
_NODES: Final = 63
"""More nodes than any path in a tree of 2^53 leaves has; a longer path cannot verify."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The index of an entry, its path to the root, and the checkpoint as a note. Nothing is verified.

    `extra` is opaque and not authenticated, and may be empty.
    """

    index: int
    path: tuple[bytes, ...]
    note: bytes = field(repr=False)
    extra: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.index <= DEFAULT_LIMITS.max_integer or len(self.path) > _NODES:
            raise LogError(Code.BAD_NOTE, "receipt: index or path")
        if any(len(node) != 32 for node in self.path):
            raise LogError(Code.BAD_NOTE, "receipt: a node is 32 bytes")


def encode_receipt(receipt: Receipt) -> bytes:
    """Return the receipt as text; raise `LogError` (`bad_note`) if it is over 2 MiB."""
    lines = [_FIRST]
    if receipt.extra:
        lines.append(_EXTRA + base64_text(receipt.extra))
    lines += [f"{_INDEX}{receipt.index}", *map(base64_text, receipt.path), "", ""]
    data = "\n".join(lines).encode() + receipt.note
    if len(data) > DEFAULT_LIMITS.receipt_bytes:
        raise LogError(Code.BAD_NOTE, "receipt: too large")
    return data


def parse_receipt(data: bytes) -> Receipt:
    """Parse a receipt; raise `LogError` (`bad_note`) for malformed bytes. `verify_receipt` checks its checkpoint."""
    if len(data) > DEFAULT_LIMITS.receipt_bytes:
        raise LogError(Code.BAD_NOTE, "receipt: too large")
    head, blank, note = data.partition(b"\n\n")
    if not blank:
        raise LogError(Code.BAD_NOTE, "receipt: no checkpoint")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise LogError(Code.BAD_NOTE, "receipt: not ASCII") from error
    if lines.pop(0) != _FIRST:
        raise LogError(Code.BAD_NOTE, "receipt: first line")
    extra = b""
    if lines and lines[0].startswith(_EXTRA):
        extra = parse_base64(lines.pop(0).removeprefix(_EXTRA), "extra")
        if not extra:
            raise LogError(Code.BAD_NOTE, "receipt: extra without data")
    if not lines or not lines[0].startswith(_INDEX):
        raise LogError(Code.BAD_NOTE, "receipt: no index")
    index = parse_number(lines.pop(0).removeprefix(_INDEX), "index")
    if len(lines) > _NODES:
        raise LogError(Code.BAD_NOTE, "receipt: path too long")
    return Receipt(index, tuple(parse_base64(line, "node") for line in lines), note, extra)


def verify_receipt(receipt: Receipt, leaf: bytes, *, origin: str, verifiers: Iterable[NoteVerifier]) -> Checkpoint:
    """Verify that `leaf`, the hash of an entry, is number `receipt.index` of the log `origin`; return the checkpoint.

    Raises `LogError` as `open_checkpoint` does, and `bad_proof` if the path does not lead to its root. `extra` is
    ignored.
    """
    checkpoint = open_checkpoint(receipt.note, origin=origin, verifiers=verifiers).checkpoint
    verify_inclusion(leaf, receipt.index, checkpoint.size, receipt.path, checkpoint.root)
    return checkpoint

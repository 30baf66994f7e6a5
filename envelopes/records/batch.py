"""A batch of records for one audit message: one signature, evidence stored once (SPEC.md section 8)."""

from __future__ import annotations

from typing import Final, NamedTuple

from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.accept.result import VerifiedResult
from sealbus.envelopes.errors import SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.records.body import ancestor_item, context_item, credential_item, encode_audit_body
from sealbus.envelopes.trust.merkle import leaf_hash, root

_FRAME_BYTES: Final = 8
"""The outer array, its version, and the longest heads of its two arrays."""
_ITEM_HEAD_BYTES: Final = 5
"""The longest head of an item."""


class ClosedBatch(NamedTuple):
    """The body of a record message, and the root that is its `dig`."""

    body: bytes
    dig: bytes

    def __repr__(self) -> str:
        return "ClosedBatch(...)"


class AuditBatch:
    """Records and their evidence, while they wait for their audit message.

    It is full at 917,504 bytes or 4,096 items, evidence included. An empty batch has room for any record with its evidence.
    Evidence comes only from verified messages, whose hashes are known, so evidence is not hashed here.
    """

    __slots__ = ("_bytes", "_evidence", "_leaves", "_records")

    def __init__(self) -> None:
        self._evidence: dict[bytes, bytes] = {}
        self._records: list[bytes] = []
        self._leaves: dict[bytes, None] = {}
        self._bytes = _FRAME_BYTES

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._records)

    @property
    def size(self) -> int:
        """Bytes of the body so far, overestimated by at most a few bytes an item."""
        return self._bytes

    def add(self, record: bytes, message: VerifiedMessage | VerifiedResult | None = None) -> bytes | None:
        """Add an encoded record and return its leaf, which names it. If it has no room, add nothing and return None.

        `message` is the decided message of a `decision` record; other records have no evidence. A record that is in the batch
        already is not added again. Raises `SealError` for a record that does not fit even into an empty batch.
        """
        leaf = leaf_hash(record)
        if leaf in self._leaves:
            return leaf
        fresh = self._missing(message) if message is not None else {}
        grown = self._bytes + len(record) + _ITEM_HEAD_BYTES
        for item in fresh.values():
            grown += len(item) + _ITEM_HEAD_BYTES
        items = len(self._evidence) + len(fresh) + len(self._records) + 1
        if grown > DEFAULT_LIMITS.body_bytes or items > DEFAULT_LIMITS.batch_leaves:
            if not self._records:
                raise SealError("a record too large for any audit message")
            return None
        if fresh:
            self._evidence |= fresh
        self._records.append(record)
        self._leaves[leaf] = None
        self._bytes = grown
        return leaf

    def close(self) -> ClosedBatch:
        """Return the body and its root; raise `SealError` if the batch is empty. Records may be added afterwards."""
        evidence = list(self._evidence.values())
        body = encode_audit_body(evidence, self._records)
        return ClosedBatch(body, root([*map(leaf_hash, evidence), *self._leaves]))

    def _missing(self, message: VerifiedMessage | VerifiedResult) -> dict[bytes, bytes]:
        """Return the evidence items of `message` that are not here yet, by name."""
        have, header = self._evidence, message.header
        fresh: dict[bytes, bytes] = {}
        if header.crd not in have:
            fresh[header.crd] = credential_item(message.credential)
        if isinstance(message, VerifiedResult):
            return fresh
        if header.ctx is not None and header.ctx not in have:
            self._add_context(message, header.ctx, fresh)
        if header.par is not None and header.par not in have:
            self._add_ancestors(message, fresh)
        return fresh

    def _add_context(self, message: VerifiedMessage, ctx: bytes, fresh: dict[bytes, bytes]) -> None:
        statement, context = message.statement, message.context
        if statement is None or context is None:
            raise SealError("a message with ctx and without its context was not verified")
        fresh[ctx] = context_item(statement.payload, statement.proof)
        if context.crd not in self._evidence:
            fresh[context.crd] = credential_item(statement.credential)

    def _add_ancestors(self, message: VerifiedMessage, fresh: dict[bytes, bytes]) -> None:
        # The chain begins with the root and ends with the message. `ancestors` begins with the message.
        for parent, ancestor in zip(message.chain[-2::-1], message.ancestors[1:], strict=True):
            if parent.digest in self._evidence:
                # The batch has its ancestors, too.
                return
            fresh[parent.digest] = ancestor_item(ancestor.header, ancestor.proof)
            if parent.crd not in self._evidence:
                fresh[parent.crd] = credential_item(ancestor.credential)

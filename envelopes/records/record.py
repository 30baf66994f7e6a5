"""Audit records: parses each of the nine kinds, and those of later versions, into a typed value (SPEC.md section 8)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import cast

from sealbus.envelopes.encoding.codec import Value, decode, unpack
from sealbus.envelopes.errors import CODE_FORM, Code, EnvelopeError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.fields import RecordMap
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord, PolicyRecord
from sealbus.envelopes.records.operation import ChangeRecord, ConnectionsRecord, ProcessRecord
from sealbus.envelopes.records.work import SENT_HASHES, DenialsRecord, OutcomeRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId


@dataclass(frozen=True, slots=True)
class LaterRecord:
    """A record of a kind, or form, that this version does not know: well formed, counted, and not interpreted."""

    kind: str
    item: bytes = field(repr=False)
    """The encoded map."""

    def encode(self) -> bytes:
        """Return the encoded map."""
        return self.item


Record = (
    DecisionRecord
    | OutcomeRecord
    | BundleRecord
    | PolicyRecord
    | CheckpointRecord
    | DenialsRecord
    | ChangeRecord
    | ProcessRecord
    | ConnectionsRecord
    | LaterRecord
)

NOTARY_KINDS = frozenset({BundleRecord.kind, PolicyRecord.kind, CheckpointRecord.kind})
"""Kinds that count only if a configured SPIFFE ID of the notary sent them."""

GUARD_ID_BYTES = 16

_CONSTRUCTORS: MappingProxyType[str, Callable[[RecordMap], Record]] = MappingProxyType(
    {
        "decision": DecisionRecord.from_keys,
        "outcome": OutcomeRecord.from_keys,
        "bundle": BundleRecord.from_keys,
        "policy": PolicyRecord.from_keys,
        "checkpoint": CheckpointRecord.from_keys,
        "denials": DenialsRecord.from_keys,
    }
)
"""The kinds of which a record that does not fit its table is refused."""

_LATER: MappingProxyType[str, Callable[[RecordMap], Record]] = MappingProxyType(
    {
        "change": ChangeRecord.from_keys,
        "process": ProcessRecord.from_keys,
        "connections": ConnectionsRecord.from_keys,
    }
)


def parse_record(item: bytes) -> Record:
    """Parse a record; raise `EnvelopeError` (`malformed`, step 0) for any other bytes.

    It must have exactly the keys of its kind's table, with their types and limits. A record of a kind that has no table, or
    that does not fit the table of a kind of after 0.1.0, is a `LaterRecord`, whatever its keys: older readers take it, and
    what a log says must not change. The statements of a record are not verified.
    """
    decoded = unpack(item, items=SENT_HASHES, entries=DEFAULT_LIMITS.text_items, lists=True, step=0)
    if type(decoded) is not dict or not _is_flat(decoded):
        # The largest limits of any record. The constructors check each field's own limit.
        decoded = decode(item, items=SENT_HASHES, text_bytes=DEFAULT_LIMITS.spiffe_id_bytes, negative=True, step=0)
    keys = RecordMap(cast("Value", decoded))
    kind = keys.text("k")
    construct = _CONSTRUCTORS.get(kind)
    if construct is None:
        if CODE_FORM.fullmatch(kind) is None:
            raise EnvelopeError(Code.MALFORMED, 0, "record: k")
        return _later(kind, keys, item)
    return _constructed(construct, keys)


def _later(kind: str, keys: RecordMap, item: bytes) -> Record:
    construct = _LATER.get(kind)
    if construct is not None:
        with suppress(EnvelopeError):
            return _constructed(construct, keys)
    return LaterRecord(kind, item)


def _constructed(construct: Callable[[RecordMap], Record], keys: RecordMap) -> Record:
    try:
        record = construct(keys)
    except SealError as error:
        # Constructors blame the maker of a record; here the sender of the bytes is at fault.
        raise EnvelopeError(Code.MALFORMED, 0, f"record: {error.detail}") from error
    keys.end()
    return record


def _is_flat(decoded: dict[object, object]) -> bool:
    """Return whether this is a decision or an outcome with its keys in order, as nearly all records are.

    The constructors of these two check every node. A walk over the whole record would find no more faults, and would double
    the cost of a record.
    """
    return decoded.get("k") in ("decision", "outcome") and "ext" not in decoded and _are_keys(tuple(decoded))


@lru_cache(maxsize=256)
def _are_keys(keys: tuple[object, ...]) -> bool:
    """Return whether `keys` are in order and have at most three characters, as in the tables of these kinds."""
    return all(type(key) is str and len(key) <= 3 for key in keys) and tuple(sorted(cast("list[str]", keys))) == keys


def guard_id(own: SpiffeId, call_digest: bytes) -> bytes:
    """Return the `id` of the audit message that alone holds the decision on a core call (SPEC.md section 7).

    `own` is the replica's SPIFFE ID, the same for all replicas; `call_digest` is H(header) of the call.
    """
    return hashlib.sha256(b"decision" + str(own).encode() + call_digest).digest()[:GUARD_ID_BYTES]

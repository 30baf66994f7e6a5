"""The one encoding of every value: a canonical subset of msgpack (SPEC.md section 1).

Every value has exactly one encoding, so that two readers refuse the same bytes: shortest forms, map keys that are text
and strictly ascending by their bytes, no float, no extension type, nothing after the value. Form is checked by
encoding again and comparing, types and text by a walk over what was decoded.

A hostile declared length allocates nothing worth having: msgpack's C decoder takes a bound on the length of arrays and
maps before it allocates, and refuses by itself what nests deeper than its own fixed stack.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias, cast

import msgpack

from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS

__all__ = ["Value", "array_length", "decode", "encode", "is_text", "pack", "unpack"]

Value: TypeAlias = "bool | int | str | bytes | list[Value] | dict[str, Value] | None"
"""What can be encoded. Integers are within +-(2^53-1); text is bounded by what each use allows."""

_MAX_INTEGER: Final = DEFAULT_LIMITS.max_integer
_PACKERS: Final = 8
_NESTING: Final = DEFAULT_LIMITS.nesting
_REFUSED_IN_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""C0, DEL, C1 and surrogates. Nothing else is refused and nothing is normalized."""


def is_text(text: str, limit: int = DEFAULT_LIMITS.text_bytes) -> bool:
    """Say whether `text` is at most `limit` bytes of UTF-8 and holds no control character and no surrogate."""
    if text.isascii():
        # For ASCII, printable means 0x20..0x7e exactly; this decides nearly all text without a search.
        return len(text) <= limit and text.isprintable()
    return len(text) <= limit and not _REFUSED_IN_TEXT.search(text) and len(text.encode()) <= limit


_idle_packers: Final[list[msgpack.Packer]] = []
"""Packers between two uses. Making one allocates its buffer, which costs as much as packing a header."""


def pack(value: object) -> bytes:
    """Return the msgpack encoding of a value whose types, text and key order the caller has checked itself.

    Tuples are arrays. Raises what msgpack raises: `ValueError`, `TypeError` or `OverflowError`.
    """
    try:
        packer = _idle_packers.pop()
    except IndexError:
        packer = msgpack.Packer()
    encoded: bytes = packer.pack(value)
    # Taken and given back by atomic operations, so that no packer is ever in two threads. One that failed is left to
    # the collector, and so is one beyond the few that threads can hold at a time.
    if len(_idle_packers) < _PACKERS:
        _idle_packers.append(packer)
    return encoded


def unpack(data: bytes, *, items: int, entries: int, step: int = 1) -> object:
    """Return what `data` encodes, with every form the shortest; arrays are tuples, of at most `items` elements.

    Neither types (float, nil, negative and so on may be inside), nor text, nor the order of keys, nor nesting are
    checked: only for callers that check each node by its exact type afterwards. Everyone else uses `decode`.
    Maps have at most `entries` entries, and no two equal keys. Raises `EnvelopeError` (`malformed`, `step`).
    """
    try:
        value: object = msgpack.unpackb(
            data, use_list=False, max_array_len=items, max_map_len=entries, strict_map_key=True
        )
        if pack(value) == data:
            return value
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise EnvelopeError(Code.MALFORMED, step, "encoding") from error
    raise EnvelopeError(Code.MALFORMED, step, "encoding is not canonical")


def array_length(data: bytes, index: int) -> int | None:
    """Return the declared length of the array that is element `index` of the array `data`, or None if it is no array.

    Decodes nothing and allocates nothing for what is declared: it tells *why* an oversized value was refused.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(data), 1))
    unpacker.feed(data)
    try:
        unpacker.read_array_header()
        for _ in range(index):
            unpacker.skip()
        return cast("int", unpacker.read_array_header())
    except (ValueError, msgpack.UnpackException):
        return None


def encode(value: Value, *, text_bytes: int = DEFAULT_LIMITS.text_bytes) -> bytes:
    """Return the canonical encoding of `value`; the keys of maps are sorted here.

    Raises `SealError` for what format 1 cannot hold: a float, a subclass of a known type, an integer beyond
    +-(2^53-1), text that `is_text` refuses at `text_bytes`, nesting over 5.
    """
    return pack(_ordered(value, text_bytes, 1))


def _ordered(value: Value, text_bytes: int, depth: int) -> object:
    """Return `value` with sorted maps, each node checked; `depth` is that of `value` were it an array or a map."""
    kind = type(value)
    if kind is str:
        if not is_text(cast("str", value), text_bytes):
            raise SealError("text with control characters, surrogates or too many bytes")
        return value
    if value is None or kind is bool or kind is bytes:
        return value
    if kind is int:
        if not -_MAX_INTEGER <= cast("int", value) <= _MAX_INTEGER:
            raise SealError("integer beyond 2^53-1")
        return value
    if depth > _NESTING:
        raise SealError("nested too deep")
    if kind is list or kind is tuple:
        return [_ordered(item, text_bytes, depth + 1) for item in cast("list[Value]", value)]
    if kind is dict:
        entries = cast("dict[str, Value]", value)
        for key in entries:
            if type(key) is not str or not is_text(key, text_bytes):
                raise SealError("map key")
        # Order by code points is order by UTF-8 bytes.
        return {key: _ordered(entries[key], text_bytes, depth + 1) for key in sorted(entries)}
    raise SealError("a type that cannot be encoded")


def decode(
    data: bytes,
    *,
    items: int = DEFAULT_LIMITS.text_items,
    entries: int = DEFAULT_LIMITS.text_items,
    text_bytes: int = DEFAULT_LIMITS.text_bytes,
    negative: bool = False,
    nil: bool = False,
    step: int = 1,
) -> Value:
    """Return the value that `data` canonically encodes.

    `items` and `entries` bound arrays and maps, `text_bytes` every text and key; negative integers and nil only where
    asked for. What the value means is not checked. Raises `EnvelopeError` (`malformed`, `step`) for anything else.
    """
    return _walked(unpack(data, items=items, entries=entries, step=step), text_bytes, negative, nil, step, 1)


def _walked(value: object, text_bytes: int, negative: bool, nil: bool, step: int, depth: int) -> Value:
    """Return `value` with lists for tuples, each node checked."""
    kind = type(value)
    if kind is bytes or kind is bool:
        return cast("bytes | bool", value)
    if kind is str:
        if is_text(cast("str", value), text_bytes):
            return cast("str", value)
        raise EnvelopeError(Code.MALFORMED, step, "text")
    if kind is int:
        if (-_MAX_INTEGER if negative else 0) <= cast("int", value) <= _MAX_INTEGER:
            return cast("int", value)
        raise EnvelopeError(Code.MALFORMED, step, "integer")
    if value is None:
        if nil:
            return None
        raise EnvelopeError(Code.MALFORMED, step, "nil")
    if depth > _NESTING:
        raise EnvelopeError(Code.MALFORMED, step, "nested too deep")
    if kind is tuple:
        return [_walked(item, text_bytes, negative, nil, step, depth + 1) for item in cast("tuple[object, ...]", value)]
    if kind is dict:
        entries = cast("dict[object, object]", value)
        walked: dict[str, Value] = {}
        last = ""
        for key, item in entries.items():
            # An empty first key is in order; "" is below every other text.
            if type(key) is not str or not is_text(key, text_bytes) or (walked and key <= last):
                raise EnvelopeError(Code.MALFORMED, step, "map key")
            last = key
            walked[key] = _walked(item, text_bytes, negative, nil, step, depth + 1)
        return walked
    raise EnvelopeError(Code.MALFORMED, step, "type")

"""The one encoding of every value: a canonical subset of msgpack (SPEC.md section 1).

Every value has exactly one encoding, so that all readers refuse the same bytes. Forms are the shortest. Map keys are text,
strictly ascending by their bytes. There is no float, no extension type, and no byte after the value. `unpack` checks forms
by encoding the value again; `decode` checks types and text by a walk over the decoded value.

Declared lengths cannot make a reader allocate much. The C decoder checks the bounds of arrays and maps before it
allocates, and refuses nesting deeper than its stack of 1,024. So at most 1,024 arrays of `items` are open at a time, with 8
bytes per item.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NoReturn, TypeAlias, cast

import msgpack  # type: ignore[import-untyped]  # it is untyped; its results are narrowed here

from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS

Value: TypeAlias = "bool | int | str | bytes | list[Value] | dict[str, Value] | None"
"""Values that can be encoded. Integers are within +-(2^53-1); each use sets its own bound for text."""

_MAX_INTEGER: Final = DEFAULT_LIMITS.max_integer
_NESTING: Final = DEFAULT_LIMITS.nesting
_REFUSED_IN_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""C0, DEL, C1 and surrogates. No other character is refused, and none is normalized."""

_idle_packers: Final[list[msgpack.Packer]] = []
"""Idle packers. A new packer allocates its buffer, which costs as much as packing a header."""


def is_text(text: str, limit: int = DEFAULT_LIMITS.text_bytes) -> bool:
    """Return whether `text` is at most `limit` bytes of UTF-8 without control characters and surrogates."""
    if text.isascii():
        # For ASCII, printable means exactly 0x20..0x7e. Nearly all texts need no search.
        return len(text) <= limit and text.isprintable()
    return len(text) <= limit and not _REFUSED_IN_TEXT.search(text) and len(text.encode()) <= limit


def pack(value: object) -> bytes:
    """Return the msgpack encoding of a value whose types, text and key order the caller has checked.

    Tuples are arrays. Raises the errors of msgpack: `ValueError`, `TypeError` or `OverflowError`.
    """
    try:
        packer = _idle_packers.pop()
    except IndexError:
        packer = msgpack.Packer()
    encoded: bytes = packer.pack(value)
    # `pop` and `append` are atomic, so that no two threads use one packer, and there are never more packers than threads.
    # A packer that raised is dropped.
    _idle_packers.append(packer)
    return encoded


def unpack(data: bytes, *, items: int, entries: int, lists: bool = False, step: int = 1) -> object:
    """Return the value that `data` encodes, if every form is the shortest; arrays are tuples unless `lists` is set.

    Arrays have at most `items` elements, maps at most `entries` entries and no two equal keys; with `entries` 0 there
    are no maps at all. Types, text, the order of keys and nesting are not checked: the value may contain floats, nil and
    extensions. Call this only if you check each node by its exact type; otherwise call `decode`.
    Raises `EnvelopeError` (`malformed`, `step`).
    """
    try:
        value: object = msgpack.unpackb(
            data,
            use_list=lists,
            max_array_len=items,
            max_map_len=entries,
            strict_map_key=True,
            object_hook=None if entries else _refuse_map,
        )
        if pack(value) == data:
            return value
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise EnvelopeError(Code.MALFORMED, step, "encoding") from error
    raise EnvelopeError(Code.MALFORMED, step, "encoding is not canonical")


def _refuse_map(entries: object) -> NoReturn:
    # An empty map is one byte on the wire and 64 in memory. A megabyte of maps is refused at the first.
    raise ValueError("a map where there can be none")


def array_length(data: bytes, outer: int, index: int) -> int | None:
    """Return the declared length of the array that is element `index` of `data`, an array of `outer`; else None.

    Nothing is decoded or allocated for the declared length. A caller learns *why* an oversized value was refused.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(data), 1))
    unpacker.feed(data)
    try:
        if unpacker.read_array_header() != outer:
            return None
        for _ in range(index):
            unpacker.skip()
        return cast("int", unpacker.read_array_header())
    except (ValueError, msgpack.UnpackException):
        return None


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

    `items` and `entries` bound arrays and maps, `text_bytes` every text and key; `negative` and `nil` allow negative
    integers and nil. The value's meaning is not checked. Raises `EnvelopeError` (`malformed`, `step`) for other bytes.
    """
    value = cast("Value", unpack(data, items=items, entries=entries, lists=True, step=step))
    try:
        _check((value,), 0, -_MAX_INTEGER if negative else 0, text_bytes, nil)
    except ValueError as error:
        raise EnvelopeError(Code.MALFORMED, step, str(error)) from None
    return value


def encode(value: Value, *, text_bytes: int = DEFAULT_LIMITS.text_bytes) -> bytes:
    """Return the canonical encoding of `value`; the keys of maps are sorted here.

    Raises `SealError` for a value that format 1 cannot hold: a float or any other type, or a subclass of an allowed type; an
    integer beyond +-(2^53-1); text that `is_text` refuses at `text_bytes`; nesting over 5.
    """
    try:
        ordered = _ordered(value, 1)
        _check((ordered,), 0, -_MAX_INTEGER, text_bytes, nil=True)
    except ValueError as error:
        raise SealError(str(error)) from None
    return pack(ordered)


def _check(values: Iterable[object], depth: int, least: int, text_bytes: int, nil: bool) -> None:
    """Raise `ValueError` unless each of `values`, at nesting `depth`, is a value of section 1."""
    for value in values:
        kind = type(value)
        if kind is bytes or kind is bool:
            continue
        if kind is str:
            if not is_text(cast("str", value), text_bytes):
                raise ValueError("text")
        elif kind is int:
            if not least <= cast("int", value) <= _MAX_INTEGER:
                raise ValueError("integer")
        elif kind is list or kind is dict:
            if depth == _NESTING:
                raise ValueError("nested too deep")
            inner = cast("list[object] | dict[object, object]", value)
            if isinstance(inner, dict):
                _check_keys(inner, text_bytes)
                _check(inner.values(), depth + 1, least, text_bytes, nil)
            else:
                _check(inner, depth + 1, least, text_bytes, nil)
        elif value is not None or not nil:
            raise ValueError("nil" if value is None else "type")


def _check_keys(entries: dict[object, object], text_bytes: int) -> None:
    """Raise `ValueError` unless the keys are text in ascending order. Order by code point is order by UTF-8 bytes."""
    last: str | None = None
    for key in entries:
        if type(key) is not str or not is_text(key, text_bytes):
            raise ValueError("key of a map")
        if last is not None and key < last:
            raise ValueError("order of keys")
        last = key


def _ordered(value: object, depth: int) -> object:
    """Return `value` with its maps in key order. Values that are nested too deep stay as they are; `_check` refuses them."""
    if depth <= _NESTING:
        if type(value) is dict:
            entries = cast("dict[str, object]", value)
            if not all(type(key) is str for key in entries):
                raise ValueError("key of a map")
            return {key: _ordered(entries[key], depth + 1) for key in sorted(entries)}
        if type(value) is list:
            return [_ordered(item, depth + 1) for item in cast("list[object]", value)]
    return value

"""JSON that both engines read alike: input documents as exact bytes, and the data documents of a bundle.

Numbers are whole and within 2^53-1, because OPA computes with decimal and regorus with binary fractions. There is no -0,
which OPA keeps and regorus does not. Names do not repeat.

While json writes a value or an engine reads one, all other threads of Python wait, also the event loop. So large documents
are written in pieces (`canonical`) and read in parts (`in_parts`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NoReturn, TypeAlias, TypeVar, cast

from pydantic_core import PydanticSerializationError, to_json

from sealbus.envelopes.encoding.strict_json import Json, deeper_than
from sealbus.envelopes.errors import PolicyFailed
from sealbus.envelopes.limits import DEFAULT_LIMITS

NESTING: Final = 32
"""Deepest nesting of objects and arrays; regorus refuses over 128."""
PIECE: Final = 16_384
"""Values that are written or read at a time. This takes some ten milliseconds."""

T = TypeVar("T")

DataDocument: TypeAlias = "dict[str, Json]"


class InputDocument(bytes):
    """The exact bytes of one JSON object, at most 65,536, that passed the rules of this module.

    Only the functions that build such documents, and `checked_document`, make it. Engines join these bytes into one question
    without a check: bytes that are not one JSON value could shift the answers of other documents.
    """

    __slots__ = ()


def checked_document(data: bytes) -> InputDocument:
    """Check `data` and return it as an input document; raise `PolicyFailed` for anything else.

    It is for documents that were not built here, such as recorded documents and those of tests. Keys are not checked. An
    `InputDocument` has passed already, and is returned unchanged.
    """
    if isinstance(data, InputDocument):
        return data
    document = bounded_document(data)
    try:
        _check_whole(data)
    except ValueError as error:
        raise PolicyFailed(f"the input document is refused: {error}") from None
    return document


def bounded_document(encoded: bytes) -> InputDocument:
    """Return `encoded`, JSON that was built by these rules; raise `PolicyFailed` for over 65,536 bytes."""
    if len(encoded) > DEFAULT_LIMITS.input_document_bytes:
        raise PolicyFailed(f"the input document has {len(encoded)} bytes")
    return InputDocument(encoded)


def encoded_json(value: object) -> bytes:
    """Return `value` as compact JSON; raise `PolicyFailed` for a text that is not Unicode."""
    try:
        return to_json(value)
    except PydanticSerializationError as error:
        raise PolicyFailed("a text of the input document is not Unicode") from error


def extended_document(document: InputDocument, members: Mapping[bytes, InputDocument]) -> InputDocument:
    """Return `document` with more members at its end; raise `PolicyFailed` as `checked_document` does of the whole.

    The names of `members` are lower-case letters.
    """
    added = b"".join([b',"%b":%b' % member for member in members.items()])
    whole = document[:-1] + added + b"}"
    # Checked parts can be wrong together in three ways: by their length, by a repeated name, and by nesting one deeper.
    repeated = document.count(b"\\") or any(document.count(b'"%b"' % name) for name in members)
    fits = len(whole) <= DEFAULT_LIMITS.input_document_bytes and not deeper_than(added.decode(), NESTING - 1)
    if repeated or not fits or not document.count(b'"') or not document.endswith(b"}"):
        return checked_document(whole)
    return InputDocument(whole)


def _check_whole(data: bytes) -> None:
    """Raise `ValueError` if `parse_data` would, in half the time, because a log has many documents."""
    value = _parsed(data)
    if b"\\u" in data:
        # A lone surrogate can only come from an escape, because UTF-8 has none.
        whole_numbers(value)


def _parsed(data: bytes) -> DataDocument:
    text = data.decode()
    if deeper_than(text, NESTING):
        raise ValueError("nested too deep")
    value = _WHOLE.decode(text)
    if type(value) is not dict:
        raise ValueError("not an object")
    return cast("DataDocument", value)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def _whole_number(text: str) -> int:
    if text == "-0":
        raise ValueError("0 has no minus")
    # `int` itself raises ValueError over 4,300 digits.
    number = int(text)
    if abs(number) > DEFAULT_LIMITS.max_integer:
        raise ValueError("an integer is beyond 9007199254740991")
    return number


def _refuse_number(_: str) -> NoReturn:
    raise ValueError("a number has a fraction or an exponent")


_WHOLE: Final = json.JSONDecoder(
    object_pairs_hook=_distinct, parse_int=_whole_number, parse_float=_refuse_number, parse_constant=_refuse_number
)


def parse_data(data: bytes) -> DataDocument:
    """Parse a data document; raise `ValueError` for anything that the engines might read differently."""
    document = _parsed(data)
    whole_numbers(document)
    return document


def canonical(value: Json) -> bytes:
    """Return `value` as compact JSON with sorted names, equal for equal values."""
    return "".join(_pieces(value)).encode()


def in_parts(data: DataDocument) -> Iterator[bytes]:
    """Yield one or more objects in canonical form, which give `data` when they are merged.

    Each has at most `PIECE` values, or more if one array has more, because arrays are not divided.
    """
    return (_CANONICAL.encode(part).encode() for part in _parts(data))


_CANONICAL: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _pieces(value: Json) -> Iterator[str]:
    if isinstance(value, dict) and not _few(value):
        before = "{"
        for entries in _divided(value):
            if len(entries) > 1:
                yield before + _CANONICAL.encode(entries)[1:-1]
            else:
                [(name, entry)] = entries.items()
                yield f"{before}{_CANONICAL.encode(name)}:"
                yield from _pieces(entry)
            before = ","
        yield "}"
    elif isinstance(value, list) and not _few(value):
        before = "["
        for run in _runs(value, _size):
            if len(run) > 1:
                yield before + _CANONICAL.encode(run)[1:-1]
            else:
                yield before
                yield from _pieces(run[0])
            before = ","
        yield "]"
    else:
        yield _CANONICAL.encode(value)


def _parts(data: DataDocument) -> Iterator[DataDocument]:
    if _few(data):
        yield data
        return
    for entries in _divided(data):
        name, *others = entries
        entry = entries[name]
        if others or not isinstance(entry, dict):
            yield entries
        else:
            for part in _parts(entry):
                yield {name: part}


def _divided(data: DataDocument) -> Iterator[DataDocument]:
    """Yield groups of entries of `data`, in order: at most `PIECE` values each, or a single larger entry."""
    for names in _runs(sorted(data), lambda name: _size(data[name])):
        yield {name: data[name] for name in names}


def _runs(items: list[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield runs of `items`, in order: at most `PIECE` values each, or a single larger item."""
    start = total = 0
    for place, item in enumerate(items):
        size = size_of(item)
        if place > start and total + size > PIECE:
            yield items[start:place]
            start, total = place, 0
        total += size
    yield items[start:]


def _few(value: Json) -> bool:
    return _size(value) <= PIECE


def _size(value: Json) -> int:
    """Return how many values `value` has, itself included. Counting ends soon after `PIECE`."""
    if not isinstance(value, dict | list):
        return 1
    values: list[Json] = [value]
    for item in values:  # the list grows meanwhile
        if isinstance(item, dict):
            values.extend(item.values())
        elif isinstance(item, list):
            values.extend(item)
        if len(values) > PIECE:
            break
    return len(values)


def whole_numbers(value: Json) -> None:
    """Raise `ValueError` for a fraction, an exponent, an integer beyond 2^53-1 or a lone surrogate inside `value`."""
    match value:
        case bool() | None:
            return
        case int():
            if abs(value) > DEFAULT_LIMITS.max_integer:
                raise ValueError("an integer is beyond 9007199254740991")
        case float():
            raise ValueError("a number has a fraction or an exponent")
        case str():
            _valid_text(value)
        case list():
            for item in value:
                whole_numbers(item)
        case _:
            for name, item in value.items():
                _valid_text(name)
                whole_numbers(item)


def _valid_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("a text has a lone surrogate") from None

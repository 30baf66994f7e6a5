"""Checks shared by all record kinds: the values of fields, and the reading of an exact key table.

The `check_*` functions are for constructors and raise `SealError`, because the caller is at fault. `RecordMap` is for
parsing and raises `EnvelopeError`, because the sender of the bytes is at fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar, cast

from sealbus.envelopes.encoding.codec import Value, is_text
from sealbus.envelopes.errors import CODE_FORM, Code, EnvelopeError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.trust.proof import Proof

DIGEST_BYTES = 32
"""Length of a SHA-256 digest."""

_DIGEST_LENGTHS = frozenset({DIGEST_BYTES})

SIGNATURE_BYTES = 64
"""Length of an ES256 signature, r || s."""


_CODES = frozenset(code.value for code in Code)

_MAX_INTEGER = DEFAULT_LIMITS.max_integer

T = TypeVar("T")

ExtValue: TypeAlias = "bool | int | str | bytes"
"""Values of `ext`; integers within +-(2^53-1), text as everywhere."""

NO_EXTENSIONS: Final[Mapping[str, ExtValue]] = MappingProxyType({})
"""The `ext` of what has none."""


def check_uint(name: str, value: int, *, least: int = 0) -> None:
    """Raise `SealError` unless `value` is an integer from `least` to 2^53-1, and not a bool (SPEC.md section 1)."""
    if type(value) is not int or not least <= value <= _MAX_INTEGER:
        raise SealError(f"{name} is not an integer from {least} to 2^53-1")


def check_text(name: str, value: str, *, least: int = 0, most: int = DEFAULT_LIMITS.text_bytes) -> None:
    """Raise `SealError` unless `value` is text by SPEC.md section 1, of `least` to `most` bytes."""
    if len(value) < least or not is_text(value, most):
        raise SealError(f"{name} is not text of {least} to {most} bytes without control characters")


def check_texts(name: str, values: Sequence[str]) -> None:
    """Raise `SealError` unless `values` are at most 32 texts of at most 256 bytes each (SPEC.md section 1)."""
    if len(values) > DEFAULT_LIMITS.text_items:
        raise SealError(f"{name} has over {DEFAULT_LIMITS.text_items} items")
    for value in values:
        check_text(name, value)


def check_bytes(name: str, value: bytes, *, least: int = 1, most: int) -> None:
    """Raise `SealError` unless `value` has `least` to `most` bytes."""
    if not least <= len(value) <= most:
        raise SealError(f"{name} is not {least} to {most} bytes")


def check_code(name: str, value: str) -> None:
    """Raise `SealError` unless `value` has the form of a code. `Code` need not list it: newer writers have more."""
    if CODE_FORM.fullmatch(value) is None:
        raise SealError(f"{name} is not a code")


def check_extensions(entries: Mapping[str, ExtValue]) -> None:
    """Raise `SealError` unless `entries` can be the `ext` of a header or a record (SPEC.md section 3)."""
    if len(entries) > DEFAULT_LIMITS.ext_items:
        raise SealError("size of ext")
    if not all(type(key) is str and is_text(key) for key in entries):
        raise SealError("key in ext")
    keys = list(entries)
    if keys != sorted(keys):
        raise SealError("order of keys in ext")
    if not all(map(_is_extension, entries.values())):
        raise SealError("value in ext")


def _is_extension(value: object) -> bool:
    kind = type(value)
    if kind is str:
        return is_text(cast("str", value))
    if kind is int:
        return -_MAX_INTEGER <= cast("int", value) <= _MAX_INTEGER
    return kind is bytes or kind is bool


def check_proof(name: str, proof: Proof) -> None:
    """Raise `SealError` unless `proof` is within the limits of SPEC.md section 2. It is not verified."""
    size, index, path, signature = proof
    if not 1 <= size <= DEFAULT_LIMITS.batch_leaves or not 0 <= index < size:
        raise SealError(f"{name}: size or index")
    if len(path) > DEFAULT_LIMITS.proof_nodes or not _DIGEST_LENGTHS.issuperset(map(len, path)):
        raise SealError(f"{name}: path")
    if len(signature) != SIGNATURE_BYTES:
        raise SealError(f"{name}: signature")


def parse_proof(name: str, value: Value) -> Proof:
    """Parse `value` as a proof; raise `EnvelopeError` (`malformed`, step 0) for any other value. Nothing is verified."""
    if not isinstance(value, list) or len(value) != 4:
        raise _malformed(name)
    size, index, path, signature = value
    nodes = tuple(_typed(name, node, bytes) for node in _typed(name, path, list))
    proof = Proof(_typed(name, size, int), _typed(name, index, int), nodes, _typed(name, signature, bytes))
    try:
        check_proof(name, proof)
    except SealError as error:
        raise _malformed(name) from error
    return proof


class RecordMap:
    """A decoded record. Readers take its keys one by one, each with its type; `end` refuses left-over keys.

    Every method raises `EnvelopeError` (`malformed`, step 0) that names the key, never its content. The record's constructor
    checks ranges.
    """

    def __init__(self, value: Value) -> None:
        if not isinstance(value, dict):
            raise _malformed("record")
        self._left: dict[str, Value] = dict(value)
        if self.uint("v") != 1:
            raise _malformed("v")

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def value(self, key: str) -> Value:
        """Take a key of any type."""
        if key not in self._left:
            raise _malformed(key)
        return self._left.pop(key)

    def uint(self, key: str) -> int:
        """Take an integer."""
        return _typed(key, self.value(key), int)

    def flag(self, key: str) -> bool:
        """Take a bool."""
        return _typed(key, self.value(key), bool)

    def text(self, key: str) -> str:
        """Take text."""
        return _typed(key, self.value(key), str)

    def some_text(self, key: str) -> str:
        """Take text that is not empty; return an empty one if the key is absent."""
        if key not in self._left:
            return ""
        text = self.text(key)
        if not text:
            raise _malformed(key)
        return text

    def octets(self, key: str) -> bytes:
        """Take bytes."""
        return _typed(key, self.value(key), bytes)

    def proof(self, key: str) -> Proof:
        """Take a proof, within its limits."""
        return parse_proof(key, self.value(key))

    def code(self, key: str) -> str:
        """Take a code: a `Code`, or the text of an unknown code of the same form."""
        return _code(key, self.text(key))

    def some_texts(self, key: str) -> tuple[str, ...]:
        """Take an array of text that is not empty; return an empty tuple if the key is absent."""
        return tuple(_typed(key, item, str) for item in self._some(key))

    def some_octets(self, key: str) -> tuple[bytes, ...]:
        """Take an array of bytes that is not empty; return an empty tuple if the key is absent."""
        return tuple(_typed(key, item, bytes) for item in self._some(key))

    def counts(self, key: str) -> Mapping[str, int]:
        """Take a map of codes to integers."""
        counts = _typed(key, self.value(key), dict)
        return {_code(key, code): _typed(key, number, int) for code, number in counts.items()}

    def extensions(self, key: str) -> Mapping[str, ExtValue]:
        """Take a map that is not empty; return an empty one if the key is absent. The constructor checks it."""
        if key not in self._left:
            return NO_EXTENSIONS
        entries = _typed(key, self._left.pop(key), dict)
        if not entries:
            raise _malformed(key)
        return MappingProxyType(cast("dict[str, ExtValue]", entries))

    def end(self) -> None:
        """Refuse keys that were not taken."""
        if self._left:
            raise _malformed("unknown key")

    def _some(self, key: str) -> list[Value]:
        if key not in self._left:
            return []
        items = _typed(key, self._left.pop(key), list)
        if not items:
            raise _malformed(key)
        return items


def _typed(key: str, value: Value, kind: type[T]) -> T:
    """Return `value`, or refuse it unless its type is exactly `kind`: a bool is no integer."""
    if type(value) is not kind:
        raise _malformed(key)
    return value


def _code(key: str, text: str) -> str:
    if text in _CODES:
        return Code(text)
    if CODE_FORM.fullmatch(text) is None:
        raise _malformed(key)
    return text


def _malformed(key: str) -> EnvelopeError:
    return EnvelopeError(Code.MALFORMED, 0, f"record: {key}")

"""Whether JSON is as a type says: typed dictionaries with exactly their fields, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

__all__ = ["fields_of", "optional_fields", "unlike"]


def unlike(value: object, kind: Any, at: str = "") -> Iterator[str]:
    """Yield where `value`, decoded JSON, is not as `kind` says: a field that is missing, or unknown, or of another type."""
    origin = get_origin(kind)
    if kind is object:
        return
    if is_typeddict(kind):
        if not isinstance(value, dict):
            yield f"{at}: no object"
            return
        hints = get_type_hints(kind)
        yield from (f"{at}.{name}: missing" for name in sorted(hints.keys() - _optional(kind) - value.keys()))
        yield from (f"{at}.{name}: unknown" for name in sorted(value.keys() - hints.keys()))
        for name in value.keys() & hints.keys():
            yield from unlike(value[name], hints[name], f"{at}.{name}")
    elif origin in (Union, UnionType):
        if all(any(unlike(value, one)) for one in get_args(kind)):
            [first, *_] = [one for one in get_args(kind) if one is not NoneType]
            yield from unlike(value, first, at)
    elif origin is Literal:
        if value not in get_args(kind):
            yield f"{at}: {value!r}"
    elif origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            yield f"{at}: no object"
            return
        for name, one in value.items():
            yield from unlike(one, get_args(kind)[1], f"{at}[{name!r}]")
    elif origin is not None and issubclass(origin, Sequence):
        if not isinstance(value, list):
            yield f"{at}: no array"
            return
        for number, one in enumerate(value):
            yield from unlike(one, get_args(kind)[0], f"{at}[{number}]")
    elif not _is(value, kind):
        yield f"{at}: {type(value).__name__}, not {kind.__name__}"


def _is(value: object, kind: type) -> bool:
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind


def fields_of(kind: Any) -> frozenset[str]:
    """Return the names of all fields that are somewhere in `kind`."""
    return frozenset(name for one in _dictionaries(kind, set()) for name in get_type_hints(one))


def optional_fields(kind: Any) -> frozenset[str]:
    """Return the names of those fields in `kind` that a document may be without."""
    return frozenset(name for one in _dictionaries(kind, set()) for name in _optional(one))


def _optional(kind: Any) -> frozenset[str]:
    # A class' own `__optional_keys__` does not know of what its annotations say as texts.
    hints = get_type_hints(kind, include_extras=True)
    return frozenset(name for name, hint in hints.items() if not kind.__total__ or get_origin(hint) is NotRequired)


def _dictionaries(kind: Any, seen: set[Any]) -> Iterator[Any]:
    if get_args(kind):
        for one in get_args(kind):
            yield from _dictionaries(one, seen)
    elif is_typeddict(kind) and kind not in seen:
        seen.add(kind)
        yield kind
        for one in get_type_hints(kind).values():
            yield from _dictionaries(one, seen)

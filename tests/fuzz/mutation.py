"""Mutations that keep a form: of msgpack, JSON, and texts of both, which mutations of bytes seldom leave parsable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # it has no types

__all__ = ["mutated"]

_SPLIT: Final = b"\n\n"
_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 1.5, 2**31, 2**53 - 1, 2**53, 2**63, "", "a", "a" * 257, "\ud800", "\x00", "*", "a.b",
    "spiffe://example.org/agent/planner", [], {}, [[]], {"": 0}, [0] * 33,
)  # fmt: skip
_UNREADABLE: Final = (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException)


class _Nested:
    """Bytes that are msgpack themselves."""

    def __init__(self, value: Any) -> None:
        self.value = value


def mutated(data: bytes, most: int, seed: int, mutate: Callable[[bytes, int], bytes]) -> bytes:
    """Return a mutation of `data` of at most `most` bytes; `mutate` mutates bytes without a form."""
    rng = Random(seed)
    if rng.random() < 0.4:
        return mutate(data, most)
    texts = data.split(_SPLIT)
    place = rng.randrange(len(texts))
    for read, write in ((_read_json, _write_json), (_read_packed, _write_packed)):
        whole = read is _read_packed
        try:
            value = read(data if whole else texts[place])
        except _UNREADABLE:
            continue
        for _ in range(rng.randrange(1, 4)):
            value = _changed(value, rng, mutate)
        try:
            changed = write(value)
        except _UNREADABLE:
            continue
        if not whole:
            changed = _SPLIT.join([*texts[:place], changed, *texts[place + 1 :]])
        if len(changed) <= most:
            return changed
    return mutate(data, most)


def _read_json(data: bytes) -> Any:
    value = json.loads(data)
    if not isinstance(value, dict | list):
        raise ValueError("no object")
    return value


def _write_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _read_packed(data: bytes) -> Any:
    value = msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogatepass")
    if not isinstance(value, dict | list):
        raise ValueError("no array and no map")
    return _opened(value)


def _opened(value: Any) -> Any:
    match value:
        case dict():
            return {key: _opened(item) for key, item in value.items()}
        case list():
            return [_opened(item) for item in value]
        case bytes() if len(value) > 2:
            try:
                return _Nested(_read_packed(value))
            except _UNREADABLE:
                return value
    return value


def _write_packed(value: Any) -> bytes:
    packed: bytes = msgpack.packb(_closed(value), unicode_errors="surrogatepass")
    return packed


def _closed(value: Any) -> Any:
    match value:
        case _Nested():
            return _write_packed(value.value)
        case dict():
            return {key: _closed(value[key]) for key in sorted(value, key=str)}
        case list():
            return [_closed(item) for item in value]
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container and key below `value`."""
    if isinstance(value, _Nested):
        yield value, None
        yield from _places(value.value)
    elif isinstance(value, dict | list):
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from _places(item)


def _changed(value: Any, rng: Random, mutate: Callable[[bytes, int], bytes]) -> Any:
    places = list(_places(value))
    if not places:
        return rng.choice(_VALUES)
    holder, key = rng.choice(places)
    if isinstance(holder, _Nested):
        holder.value = _item(holder.value, rng, mutate)
        return value
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(key, holder[rng.randrange(len(holder))])
        case 1:
            holder[str(_item(key, rng, mutate))] = holder[key]
        case 2:
            other, at = rng.choice(places)
            if not isinstance(other, _Nested) and at in (other if isinstance(other, dict) else range(len(other))):
                holder[key] = _copied(other[at])
        case _:
            holder[key] = _item(holder[key], rng, mutate)
    return value


def _copied(value: Any) -> Any:
    match value:
        case dict():
            return {key: _copied(item) for key, item in value.items()}
        case list():
            return [_copied(item) for item in value]
        case _Nested():
            return _Nested(_copied(value.value))
    return value


def _item(value: Any, rng: Random, mutate: Callable[[bytes, int], bytes]) -> Any:
    if rng.random() < 0.25:
        return _copied(rng.choice(_VALUES))
    match value:
        case bool():
            return not value
        case int():
            return value + rng.choice((-1, 1, -(2**20), 2**20, 60_000_000))
        case str():
            return mutate(value.encode("utf-8", "surrogatepass"), 300).decode("utf-8", "ignore")
        case bytes():
            return mutate(value, len(value) + 8)
    return value

"""The types of a policy's data, which is known when the policy is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.types.value import (
    ANY,
    JSON,
    NEVER,
    NUMBER,
    TEXT,
    DataPath,
    Type,
    join,
    join_all,
)

_COLLECTIONS: Final = frozenset({"array", "set", "object"})


class DataTypes:
    """Types, given the policy's data.

    For a part of a policy only the data below its own `roots` is known: the rest belongs to others and may be anything. If
    nothing at all is `known`, as for OPA's compiler, data may be anything.
    """

    def __init__(self, data: Json, roots: Iterable[DataPath], *, known: bool = True) -> None:
        self._roots = tuple(roots) if known else ()
        self._unknown = JSON if known else ANY
        self._values: dict[DataPath, list[Json]] = {(): [data]}

    def at(self, path: DataPath) -> Type:
        """Return the type of the data at `path`, in which None is any name or index."""
        if not any(path[: len(root)] == root for root in self._roots):
            return self._unknown
        values = self._at(path)
        numbers = [abs(value) for value in values if isinstance(value, int) and not isinstance(value, bool)]
        names = frozenset(map(_name, values))
        return Type(names=names, most=max(numbers, default=0), data=frozenset({path})) if names else NEVER

    def _at(self, path: DataPath) -> list[Json]:
        found = self._values.get(path)
        if found is None:
            found = [below for value in self._at(path[:-1]) for below in _below(value, path[-1])]
            self._values[path] = found
        return found

    def items(self, one: Type) -> Type:
        """Return the type of the items of arrays, sets and objects of this type."""
        if one.scalar:
            return NEVER
        if one.open:
            return ANY if one.open == "any" else JSON
        inside = [inside for _, inside in one.fields] + [self.at((*path, None)) for path in one.data]
        return join_all(inside if one.items is None else [one.items, *inside])

    def keys(self, one: Type) -> Type:
        """Return the type of their keys: indexes, the members of a set, the names of an object."""
        if one.open == "any":
            return NEVER if one.scalar else ANY
        found = NUMBER if "array" in one.names else NEVER
        if "set" in one.names:
            found = join(found, self.items(one))
        if "object" in one.names:
            found = join(found, TEXT if one.keys is None else one.keys)
        return found

    def field(self, one: Type, name: str) -> Type:
        """Return the type of the value under `name` in objects and sets of this type."""
        if one.scalar:
            return NEVER
        if one.open:
            return ANY if one.open == "any" else JSON
        found = [self.at((*path, name)) for path in one.data]
        fields = dict(one.fields)
        if name in fields:
            found.append(fields[name])
        elif one.items is not None:
            found.append(one.items)
        return join_all(found)


def _below(value: Json, step: str | None) -> list[Json]:
    if isinstance(value, dict):
        if step is None:
            return list(value.values())
        return [value[step]] if step in value else []
    return value if isinstance(value, list) and step is None else []


def _name(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "number"
        case str():
            return "text"
        case list():
            return "array"
        case _:
            return "object"

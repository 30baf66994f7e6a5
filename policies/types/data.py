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
    """The types inside values, given the policy's data.

    For a part of a policy, only the data below its own `roots` is known. Other data belongs to other parts and may be
    anything. If `known` is false, as for OPA's compiler, all data may be anything.
    """

    def __init__(self, data: Json, roots: Iterable[DataPath], *, known: bool = True) -> None:
        self._roots = tuple(roots) if known else ()
        self._unknown = JSON if known else ANY
        self._values: dict[DataPath, list[Json]] = {(): [data]}
        self._types: dict[DataPath, Type] = {}

    def at(self, path: DataPath) -> Type:
        """Return the type of the data at `path`. None in a path stands for any name or index."""
        if not any(path[: len(root)] == root for root in self._roots):
            return self._unknown
        if path not in self._types:
            self._types[path] = self._joined(path)
        return self._types[path]

    def _joined(self, path: DataPath) -> Type:
        values = self._at(path)
        numbers = [abs(value) for value in values if isinstance(value, int) and not isinstance(value, bool)]
        names = frozenset(map(_name, values))
        return Type(names=names, most=max(numbers, default=0), data=frozenset({path})) if names else NEVER

    def _at(self, path: DataPath) -> list[Json]:
        values = self._values.get(path)
        if values is None:
            values = [below for value in self._at(path[:-1]) for below in _below(value, path[-1])]
            self._values[path] = values
        return values

    def items(self, type_: Type) -> Type:
        """Return the type of the items of arrays, sets and objects of this type."""
        if type_.scalar:
            return NEVER
        if type_.open:
            return ANY if type_.open == "any" else JSON
        inside = [inside for _, inside in type_.fields] + [self.at((*path, None)) for path in type_.data]
        return join_all(inside if type_.items is None else [type_.items, *inside])

    def keys(self, type_: Type) -> Type:
        """Return the type of the keys of values of this type: indexes, members of a set, names of an object."""
        if type_.open == "any":
            return NEVER if type_.scalar else ANY
        keys = NUMBER if "array" in type_.names else NEVER
        if "set" in type_.names:
            keys = join(keys, self.items(type_))
        if "object" in type_.names:
            keys = join(keys, TEXT if type_.keys is None else type_.keys)
        return keys

    def field(self, type_: Type, name: str) -> Type:
        """Return the type of the value under `name` in objects and sets of this type."""
        if type_.scalar:
            return NEVER
        if type_.open:
            return ANY if type_.open == "any" else JSON
        types = [self.at((*path, name)) for path in type_.data]
        fields = dict(type_.fields)
        if name in fields:
            types.append(fields[name])
        elif type_.items is not None:
            types.append(type_.items)
        return join_all(types)


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

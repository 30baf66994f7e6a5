"""The type of a policy's value, as far as its text, its data and the shape of its questions determine it.

A `Type` may allow values that cannot occur. It never excludes a value that can. It does not say whether there is a value
at all, except that `NEVER` has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from sealbus.envelopes.limits import DEFAULT_LIMITS

DataPath: TypeAlias = "tuple[str | None, ...]"
"""A path in the policy's data; None stands for any name or index."""

UNBOUNDED: Final = 1 << 256
"""The bound of a number without a known smaller bound, and the greatest bound of a product.

Both engines compute exactly and without a limit: in a chain of squares, the 27th did not end in 100 s. Sums may exceed this
bound, because adding makes a number only a few digits longer. The product of four numbers of a request is within 2^212.
"""
_PARTS: Final = 16_384
"""Most types in one type. Without a limit, values that hold the one before twice would double it at each step."""
_SIZE: Final = 1_024
"""Most types in one type with `rows`, which repeat the types in `items`."""
_COLLECTIONS: Final = frozenset({"array", "set", "object"})
_JSON_NAMES: Final = frozenset({"null", "boolean", "number", "text", "array", "object"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Type:
    """The possible types of a value: `names` are those of Rego's types, `text` for a string.

    `most` bounds the magnitude of a number. `items` is the type of the items of arrays and sets, and of an object's values
    outside its `fields`. `keys` is the type of an object's keys, if they are not all texts. With `open` the value may hold
    any JSON value (`json`), or any value (`any`), at every depth. `data` has the places in the policy's data where the value
    may be found. `instant` marks texts that are instants as `rfc3339` writes them. `lengths` are the possible lengths of an
    array literal. Each of `rows` is a possible array: the types of its items in order, or one type for all items. `rows` is
    empty if there are too many, or if they are unknown.

    The contents of a type with more than `_PARTS` types count as unknown.
    """

    names: frozenset[str]
    most: int = 0
    items: Type | None = None
    fields: tuple[tuple[str, Type], ...] = ()
    keys: Type | None = None
    open: Literal["", "json", "any"] = ""
    data: frozenset[DataPath] = frozenset()
    instant: bool = False
    lengths: frozenset[int] = frozenset()
    rows: frozenset[tuple[Type, ...] | Type] = frozenset()
    parts: int = field(init=False, compare=False, repr=False)
    """The number of types in this type, itself included."""
    size: int = field(init=False, compare=False, repr=False)
    """The same number with the types in `rows`, at most `_SIZE`."""

    def __post_init__(self) -> None:
        parts = 1 + sum(type_.parts for type_ in self.inside)
        if parts > _PARTS:
            parts = 1
            for name, nothing in (("items", None), ("fields", ()), ("keys", None), ("open", "any")):
                object.__setattr__(self, name, nothing)
        object.__setattr__(self, "parts", parts)
        rows = [type_ for row in self.rows for type_ in ((row,) if isinstance(row, Type) else row)]
        size = 1 + sum(type_.size for type_ in (*self.inside, *rows))
        if size > _SIZE:
            object.__setattr__(self, "rows", frozenset())
        object.__setattr__(self, "size", min(size, _SIZE))

    @property
    def scalar(self) -> bool:
        """Whether the value cannot hold other values."""
        return not self.names & _COLLECTIONS

    def may_hold(self, name: str) -> bool:
        """Return whether this value may be of the type `name`, or may hold such a value at any depth."""
        if name in self.names:
            return True
        if self.scalar:
            return False
        if self.open == "any" or (name in _JSON_NAMES and (self.open or self.data)):
            return True
        return any(type_.may_hold(name) for type_ in self.inside)

    @property
    def inside(self) -> tuple[Type, ...]:
        """The known types inside this type: those of items, keys and fields."""
        return tuple(
            type_ for type_ in (self.items, self.keys, *(type_ for _, type_ in self.fields)) if type_ is not None
        )

    @property
    def holds_json(self) -> bool:
        """Whether everything in it is JSON as in requests and data: no sets, no larger numbers, only texts as keys."""
        if self.open == "any" or (self.keys is not None and not self.keys.names <= TEXT.names):
            return False
        return all("set" not in type_.names and type_.most <= NUMBER.most and type_.holds_json for type_ in self.inside)


NEVER: Final = Type(names=frozenset())
NULL: Final = Type(names=frozenset({"null"}))
BOOLEAN: Final = Type(names=frozenset({"boolean"}))
TEXT: Final = Type(names=frozenset({"text"}))
INSTANT: Final = Type(names=TEXT.names, instant=True)
NUMBER: Final = Type(names=frozenset({"number"}), most=DEFAULT_LIMITS.max_integer)
JSON: Final = Type(names=_JSON_NAMES, most=DEFAULT_LIMITS.max_integer, open="json")
ANY: Final = Type(names=_JSON_NAMES | {"set"}, most=UNBOUNDED, open="any")


def number(most: int) -> Type:
    """Return the type of whole numbers whose magnitude is at most `most`."""
    return Type(names=NUMBER.names, most=min(most, UNBOUNDED))


def array_of(items: Type) -> Type:
    """Return the type of arrays that hold `items`."""
    return Type(names=frozenset({"array"}), items=items, rows=frozenset({items}))


def row_of(*items: Type) -> Type:
    """Return the type of arrays that hold `items`, one at each place."""
    return Type(
        names=frozenset({"array"}),
        items=join_all(items),
        lengths=frozenset({len(items)}),
        rows=frozenset({items}),
    )


def set_of(items: Type) -> Type:
    """Return the type of sets that hold `items`."""
    return Type(names=frozenset({"set"}), items=items)


def object_of(keys: Type, values: Type) -> Type:
    """Return the type of objects with these keys and values."""
    return Type(names=frozenset({"object"}), keys=keys, items=values)


def record(fields: Mapping[str, Type]) -> Type:
    """Return the type of objects with these names, or with some of them."""
    return Type(names=frozenset({"object"}), fields=tuple(sorted(fields.items())))


def narrowed(type_: Type, names: frozenset[str]) -> Type:
    """Return `type_` narrowed to the types `names`."""
    return replace(type_, names=type_.names & names)


def join_all(types: Iterable[Type]) -> Type:
    """Return the union of `types`."""
    union = NEVER
    for type_ in types:
        union = join(union, type_)
    return union


def join(left: Type, right: Type) -> Type:
    """Return the union of two types."""
    if not right.names or left == right:
        return left
    if not left.names:
        return right
    fields: tuple[tuple[str, Type], ...] = ()
    items = [left.items, right.items]
    if left.fields and right.fields:
        names = {name for name, _ in left.fields + right.fields}
        first, second = dict(left.fields), dict(right.fields)
        fields = tuple((name, join(first.get(name, NEVER), second.get(name, NEVER))) for name in sorted(names))
    elif "object" in left.names & right.names:
        items.extend(inside for _, inside in left.fields + right.fields)
    else:
        fields = left.fields or right.fields
    inside = [item for item in items if item is not None]
    keys = [key for key in (left.keys, right.keys) if key is not None]
    if keys and any("object" in each.names and each.keys is None for each in (left, right)):
        keys.append(TEXT)
    lengths, rows = _written(left, right)
    return Type(
        names=left.names | right.names,
        most=max(left.most, right.most),
        items=join_all(inside) if inside else None,
        fields=fields,
        keys=join_all(keys) if keys else None,
        open=_open(left, right),
        data=left.data | right.data,
        instant=left.instant and right.instant,
        lengths=lengths,
        rows=rows,
    )


def _open(left: Type, right: Type) -> Literal["", "json", "any"]:
    if not left.open and not right.open:
        return ""
    # JSON holds only JSON. The other type may hold more.
    return "json" if left.holds_json and right.holds_json else "any"


def _written(left: Type, right: Type) -> tuple[frozenset[int], frozenset[tuple[Type, ...] | Type]]:
    arrays = [each for each in (left, right) if "array" in each.names]
    lengths: frozenset[int] = frozenset()
    rows: frozenset[tuple[Type, ...] | Type] = frozenset()
    if all(each.lengths for each in arrays):
        lengths = lengths.union(*(each.lengths for each in arrays))
    if all(each.rows for each in arrays):
        rows = rows.union(*(each.rows for each in arrays))
    return lengths, rows

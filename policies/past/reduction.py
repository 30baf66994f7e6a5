"""The smallest input document that is decided as a larger one: members that do not matter are dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias, cast

from sealbus.envelopes.encoding.strict_json import Json

Document: TypeAlias = "dict[str, Json]"
Steps: TypeAlias = "tuple[str | int, ...]"


def reduced(document: Document, same: Callable[[Document], bool]) -> Document:
    """Return `document` without the members of its objects that can be dropped, one after another, while `same` is true.

    Members of outer objects go before those inside them, and in the order of their names. Items of arrays stay: how many
    there are is often what a policy decides about.
    """
    shrinks = True
    while shrinks:
        shrinks = False
        for steps in list(_members(document)):
            smaller = _without(document, steps)
            if smaller is not None and same(smaller):
                document, shrinks = smaller, True
    return document


def _members(document: Document) -> Iterator[Steps]:
    """Yield the place of each member of each object in `document`, the outer ones first."""
    inside: list[tuple[Steps, Json]] = [((), document)]
    for steps, value in inside:  # the list grows meanwhile
        if isinstance(value, dict):
            for name in sorted(value):
                yield (*steps, name)
                inside.append(((*steps, name), value[name]))
        elif isinstance(value, list):
            inside.extend(((*steps, place), item) for place, item in enumerate(value))


def _without(document: Document, steps: Steps) -> Document | None:
    """Return a copy of `document` without the member at `steps`, or None if it went before with an outer member."""
    return cast("Document | None", _copied(document, steps))


def _copied(value: Json, steps: Steps) -> Json:
    step, *inner = steps
    if isinstance(value, list) and isinstance(step, int):
        item = _copied(value[step], tuple(inner))
        return None if item is None else [*value[:step], item, *value[step + 1 :]]
    if not isinstance(value, dict) or step not in value:
        return None
    if not inner:
        return {name: member for name, member in value.items() if name != step}
    member = _copied(value[str(step)], tuple(inner))
    return None if member is None else {**value, str(step): member}

"""Documents lose what does not matter, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.past.reduction import reduced

VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


def members(value: Json) -> int:
    if isinstance(value, dict):
        return len(value) + sum(members(member) for member in value.values())
    return sum(members(item) for item in value) if isinstance(value, list) else 0


def test_members_go_and_items_stay() -> None:
    document: dict[str, Json] = {"a": {"b": 1, "c": 2}, "d": [{"e": 1, "f": 2}, 3], "g": 4}

    def same(found: dict[str, Json]) -> bool:
        inner, items = found.get("a"), found.get("d")
        return isinstance(inner, dict) and "b" in inner and isinstance(items, list) and items[1:] == [3]

    assert reduced(document, same) == {"a": {"b": 1}, "d": [{}, 3]}


def test_what_may_go_only_after_another_goes_too() -> None:
    assert reduced({"a": 1, "b": 2}, lambda found: "a" not in found or "b" not in found) == {}
    assert reduced({"a": 1, "b": 2, "c": 3}, lambda found: "a" not in found or "b" in found) == {}


@given(DOCUMENTS, st.integers(0, 8))
def test_it_ends_where_nothing_more_may_go(document: dict[str, Json], most: int) -> None:
    least = min(most, members(document))
    found = reduced(document, lambda smaller: members(smaller) >= least)
    assert members(found) >= least
    # Objects with members inside may be too large to go; each other member could.
    assert reduced(found, lambda smaller: members(smaller) >= least) == found


@given(DOCUMENTS)
def test_everything_may_go_or_nothing(document: dict[str, Json]) -> None:
    assert reduced(document, lambda _: True) == {}
    assert reduced(document, lambda _: False) == document

"""What a denial tells: remedies of the right form or none, and who denied what, bounded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.denial import (
    DENIERS,
    NOTHING_TOLD,
    REMEDIES,
    Denier,
    Explanation,
    Remedy,
    RemedyKind,
    remedies_of,
    via_of,
)

REMEDY_OBJECTS: list[dict[str, object]] = [
    {"kind": "login"},
    {"kind": "login", "acr": "urn:x:silver phr"},
    {"kind": "login", "acr": "https://example.org/mfa", "max_age": 0},
    {"kind": "login", "max_age": 31_536_000},
    {"kind": "scope", "scope": "stock:write stock:read"},
    {"kind": "approval", "action": "ledger.post"},
    {"kind": "ask", "whom": "the office of Frau Müller, room 7"},
    {"kind": "later", "after": 1},
]
STOCK = Denier("spiffe://example.org/agent/stock", "stock.update", "denied")


@pytest.mark.parametrize("said", REMEDY_OBJECTS)
def test_a_remedy_is_read_as_it_is_said(said: dict[str, object]) -> None:
    (remedy,) = remedies_of([said])
    assert remedy.members() == said
    assert Remedy.parse(said) == remedy
    assert json.loads(json.dumps(Explanation(remedies=(remedy,)).members())) == {"remedy": [said]}


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"kind": "bribe"},
        {"kind": ["login"]},
        {"kind": None},
        {"kind": "scope"},
        {"kind": "scope", "scope": ""},
        {"kind": "approval"},
        {"kind": "ask"},
        {"kind": "later"},
        {"kind": "login", "acr": 'a", error="none'},
        {"kind": "login", "acr": "a\r\nset-cookie: x"},
        {"kind": "login", "acr": "a\\b"},
        {"kind": "login", "acr": "a  b"},
        {"kind": "login", "acr": " a"},
        {"kind": "login", "acr": "ü"},
        {"kind": "login", "acr": "a" * 257},
        {"kind": "login", "acr": 0},
        {"kind": "login", "acr": None},
        {"kind": "login", "acr": ["a"]},
        {"kind": "login", "max_age": -1},
        {"kind": "login", "max_age": 31_536_001},
        {"kind": "login", "max_age": True},
        {"kind": "login", "max_age": 1.5},
        {"kind": "login", "max_age": "300"},
        {"kind": "login", "scope": "a"},
        {"kind": "login", "note": "a"},
        {"kind": "scope", "scope": "a\nb"},
        {"kind": "scope", "scope": "a", "acr": "b"},
        {"kind": "approval", "action": "ledger post"},
        {"kind": "approval", "action": "ledger.post\n"},
        {"kind": "ask", "whom": "\x1b[2J"},
        {"kind": "ask", "whom": "\u202ealice"},
        {"kind": "ask", "whom": "\u2028"},
        {"kind": "ask", "whom": "\ud800"},
        {"kind": "ask", "whom": "ü" * 129},
        {"kind": "ask", "whom": 7},
        {"kind": "later", "after": 0},
        {"kind": "later", "after": 31_536_001},
        {"kind": "later", "after": 10**400},
        "login",
        ["login"],
        None,
        7,
    ],
)
def test_an_invalid_remedy_is_left_out_and_nothing_else(said: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        Remedy.parse(said)
    assert [one.kind for one in remedies_of([said, {"kind": "login"}, said])] == [RemedyKind.LOGIN]


def test_a_remedy_cannot_be_made_with_what_its_kind_has_not() -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        Remedy(kind="bribe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="other members"):
        Remedy(kind=RemedyKind.LATER, after=1, scope="a")


@pytest.mark.parametrize("said", [None, 7, "login", {"kind": "login"}, {"0": {"kind": "login"}}])
def test_remedies_are_an_array(said: object) -> None:
    assert remedies_of(said) == ()


def test_remedies_beyond_the_fourth_are_left_out() -> None:
    found = remedies_of([{"kind": "later", "after": number} for number in range(9)])
    assert [one.after for one in found] == [1, 2, 3, 4]
    assert len(found) == REMEDIES


@pytest.mark.parametrize(
    ("agent", "action", "code"),
    [
        ("", "stock.update", "denied"),
        ("spiffe://example.org", "stock.update", "denied"),
        ("spiffe://Example.org/a", "stock.update", "denied"),
        ("spiffe://example.org/a\x1b[2J", "stock.update", "denied"),
        ("spiffe://example.org/" + "a" * 2_048, "stock.update", "denied"),
        (7, "stock.update", "denied"),
        ("spiffe://example.org/a", "", "denied"),
        ("spiffe://example.org/a", "stock update", "denied"),
        ("spiffe://example.org/a", "a" * 257, "denied"),
        ("spiffe://example.org/a", None, "denied"),
        ("spiffe://example.org/a", "stock.update", ""),
        ("spiffe://example.org/a", "stock.update", "Denied"),
        ("spiffe://example.org/a", "stock.update", "d" * 65),
        ("spiffe://example.org/a", "stock.update", 7),
    ],
)
def test_one_invalid_denier_leaves_out_the_whole_chain(agent: object, action: object, code: object) -> None:
    with pytest.raises(ValueError, match="not the form"):
        Denier(agent, action, code)  # type: ignore[arg-type]
    sound = [STOCK.agent, STOCK.action, STOCK.code]
    assert via_of([sound, [agent, action, code]]) == ()
    assert via_of([sound]) == (STOCK,)


@pytest.mark.parametrize(
    "said",
    [None, 7, {}, "abc", [7], ["abc"], [["spiffe://example.org/a", "a.b"]], [[]], [{"0": 1, "1": 2, "2": 3}]],
)
def test_a_chain_is_an_array_of_threes(said: object) -> None:
    assert via_of(said) == ()


def test_a_longer_chain_than_any_is_none() -> None:
    one = [STOCK.agent, STOCK.action, STOCK.code]
    assert len(via_of([one] * DENIERS)) == DENIERS
    assert via_of([one] * (DENIERS + 1)) == ()


def denier(number: int) -> Denier:
    return Denier(f"spiffe://example.org/agent/a{number}", f"a{number}.do", "denied")


def test_who_passes_it_on_is_in_front_and_the_middle_is_dropped() -> None:
    told = Explanation(reasons=("late",), remedies=(Remedy(kind=RemedyKind.LOGIN),))
    for number in range(12):
        told = told.passed_on(denier(number))
    assert [one.agent[-2:].strip("a") for one in told.via] == ["11", "10", "9", "8", "3", "2", "1", "0"]
    assert told.reasons == ("late",)
    assert told.members()["via"] == [[one.agent, one.action, "denied"] for one in told.via]
    assert via_of(told.members()["via"]) == told.via


def test_a_chain_begins_with_who_tells_it() -> None:
    told = Explanation(("late",), (), (STOCK, denier(1)))
    assert told.told_by(STOCK.agent) == told
    assert told.told_by(denier(1).agent) == Explanation(("late",))
    assert NOTHING_TOLD.told_by(STOCK.agent) == NOTHING_TOLD


def test_nothing_told_has_no_members() -> None:
    assert NOTHING_TOLD.members() == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
LIKELY = st.lists(
    st.fixed_dictionaries(
        {"kind": st.sampled_from([*RemedyKind, "bribe"])},
        optional=dict.fromkeys(("acr", "max_age", "scope", "action", "whom", "after", "type"), JSON),
    ),
    max_size=6,
)


@pytest.mark.slow
@given(JSON | LIKELY)
def test_whatever_is_said_what_is_read_is_what_could_be_said(said: object) -> None:
    found = remedies_of(said)
    assert remedies_of([one.members() for one in found]) == found
    assert len(json.dumps([one.members() for one in found], ensure_ascii=False).encode()) < 2_304
    assert len(via_of(said)) <= DENIERS

"""Claims read by type; above all those of the allow-list, which are dropped rather than refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.envelopes import NOW, TRUST_DOMAIN, Issuer, agent

from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.tokens.jwt import Claims
from sealbus.envelopes.encoding.codec import encode
from sealbus.envelopes.message.user_context import ContextDraft, mint_context

LARGEST = 2**53 - 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("tools", "tools"),
        ("", ""),
        ("a" * 256, "a" * 256),
        (3, 3),
        (LARGEST, LARGEST),
        (-LARGEST, -LARGEST),
        (True, True),
        (["a", "b"], ("a", "b")),
        ([], ()),
        (["a"] * 32, ("a",) * 32),
    ],
)
def test_claims_of_the_allow_list_are_kept_under_our_name(given: Any, kept: Any) -> None:
    found = dict(Claims({"theirs": given, "other": "x"}).allowed({"theirs": "ours", "absent": "absent"}))
    assert found == {"ours": kept}
    assert type(found["ours"]) is type(kept)


@pytest.mark.parametrize(
    "given",
    [
        None, 1.5, LARGEST + 1, -LARGEST - 1, "a" * 257, "\u00e9" * 129, "a\n", "\ud800", {"a": "b"}, ["a", 1], [["a"]],
        ["a" * 257], ["a"] * 33, ["\x00"],
    ],
)  # fmt: skip
def test_claims_that_no_context_can_hold_are_dropped(given: Any) -> None:
    assert dict(Claims({"claim": given}).allowed({"claim": "claim"})) == {}


Anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@given(Anything)
def test_what_is_kept_can_be_minted(value: Any) -> None:
    kept = Claims({"claim": value}).allowed({"claim": "claim"})
    draft = ContextDraft(
        txn=bytes(16), aud=TRUST_DOMAIN, iat=NOW, exp=NOW + 1, end=NOW + 1,
        sub="a", idp="b", sid="c", cid="d", clm=kept,
    )  # fmt: skip
    assert mint_context(draft, SEALER).payload


@given(Anything)
def test_every_reader_returns_or_refuses(value: Any) -> None:
    claims = Claims({"claim": value})
    for read in (claims.text, claims.texts, claims.audiences, claims.scope, claims.time):
        try:
            read("claim")
        except TokenRefused as error:
            assert error.detail == "claim"  # noqa: PT017 -- either outcome is right


def test_a_scope_is_divided_at_single_spaces() -> None:
    assert Claims({"scope": "a b"}).scope("scope") == ("a", "b")
    assert Claims({"scope": ""}).scope("scope") == Claims({}).scope("scope") == ()
    for wrong in (" a", "a ", "a  b", "a\tb"):
        with pytest.raises(TokenRefused):
            Claims({"scope": wrong}).scope("scope")


def test_as_many_as_32_are_read_and_not_one_more() -> None:
    texts = tuple(map(str, range(32)))
    assert Claims({"amr": list(texts)}).texts("amr") == Claims({"scope": " ".join(texts)}).scope("scope") == texts
    for claims in (Claims({"both": [*texts, "32"]}), Claims({"both": " ".join([*texts, "32"])})):
        for read in (claims.texts, claims.scope):
            with pytest.raises(TokenRefused):
                read("both")


@pytest.mark.parametrize("item", ["a\n", "\ud800", 7, None, "x" * 257])
def test_an_array_holds_texts_alone(item: Any) -> None:
    assert Claims({"amr": ["pwd", "mfa"]}).texts("amr") == ("pwd", "mfa")
    with pytest.raises(TokenRefused):
        Claims({"amr": ["pwd", item]}).texts("amr")


def test_a_claim_is_there_under_its_whole_name_alone() -> None:
    assert "cnf" in Claims({"cnf": None})
    assert "cnf" not in Claims({"cn": 1, "cnfirm": 1, "CNF": 1})


def test_times_are_microseconds_that_a_context_can_hold() -> None:
    assert Claims({"exp": 0}).time("exp") == 0
    last = LARGEST // 1_000_000
    assert Claims({"exp": last}).time("exp") == last * 1_000_000
    assert encode({"exp": last * 1_000_000})
    with pytest.raises(TokenRefused):
        Claims({"exp": last + 1}).time("exp")


SEALER = Issuer().sealer(agent("edge"))

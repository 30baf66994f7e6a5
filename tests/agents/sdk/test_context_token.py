"""A user context as text: one text for one statement, and nothing else is taken."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.envelopes import NOW, TRUST_DOMAIN, Issuer, agent

from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.edge.oauth.tokens.user_context import ContextMinter
from sealbus.agents.sdk.token_exchange import CONTEXT_TOKEN_BYTES, context_token, parse_context_token
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError

TOKEN = AccessToken(
    issuer="https://idp.example",
    subject="alice",
    name="alice",
    client="shop-web",
    session="session-1",
    scope=("read",),
    claims={},
    tenant=None,
    acr=None,
    amr=None,
    auth_time=None,
    issued=NOW,
    expires=NOW + 3_600_000_000,
)
STATEMENT = ContextMinter(trust_domain=TRUST_DOMAIN).mint(
    TOKEN, Issuer().sealer(agent("edge")), transaction=bytes(16), now=NOW, workload=agent("web")
)
TEXT = context_token(STATEMENT)


def text_of(value: Value) -> str:
    return base64.urlsafe_b64encode(encode(value)).rstrip(b"=").decode()


def parts() -> list[Value]:
    value = decode(base64.urlsafe_b64decode(TEXT + "=" * (-len(TEXT) % 4)), step=0)
    assert isinstance(value, list | tuple)
    return list(value)


def test_what_is_written_is_read() -> None:
    assert parse_context_token(TEXT) == STATEMENT
    assert context_token(parse_context_token(TEXT)) == TEXT
    assert text_of(parts()) == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "é" + TEXT[1:],
        TEXT + "=",
        TEXT + "\n",
        " " + TEXT,
        TEXT[:-1],
        TEXT[:40] + "\n" + TEXT[40:],
        TEXT[:40] + "+" + TEXT[41:],
        TEXT + "AAAA",
    ],
)
def test_no_other_text_is_taken(text: str) -> None:
    with pytest.raises(EnvelopeError) as raised:
        parse_context_token(text)
    assert raised.value.code is Code.MALFORMED


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("value", [None, 2, True, "x", [], [1], [1, 2], [1, 2, 3, 4], {"a": 1}])
def test_no_part_can_be_another_thing(place: int, value: Value) -> None:
    found = parts()
    found[place] = value
    with pytest.raises(EnvelopeError):
        parse_context_token(text_of(found))


def test_nothing_can_be_added_or_left_out() -> None:
    for value in ([*parts(), b""], parts()[:-1], parts()[0], {"1": 2}):
        with pytest.raises(EnvelopeError):
            parse_context_token(text_of(value))  # type: ignore[arg-type]


def test_the_text_is_bounded_before_it_is_looked_at() -> None:
    with pytest.raises(EnvelopeError) as raised:
        parse_context_token("A" * (CONTEXT_TOKEN_BYTES + 1))
    assert raised.value.code is Code.TOO_LARGE
    with pytest.raises(EnvelopeError) as raised:
        parse_context_token("A" * CONTEXT_TOKEN_BYTES)
    assert raised.value.code is Code.MALFORMED


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_whatever_comes_is_refused_or_is_the_text_of_a_statement(text: str) -> None:
    try:
        statement = parse_context_token(text)
    except EnvelopeError:
        return
    assert context_token(statement) == text

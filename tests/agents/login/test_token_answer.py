"""Tokens as a provider gives them: whole, for anybody who holds them, for a time, or not taken at all."""

from __future__ import annotations

import pytest
from support.envelopes import NOW
from support.scripted_provider import SECRETS, given

from sealbus.agents.login.provider import LoginFailed
from sealbus.agents.login.token_answer import Tokens, is_token
from sealbus.envelopes.limits import SECOND


def test_an_answer_is_read() -> None:
    tokens = Tokens.parse(given(token_type="bearer", scope="read"), scope="openid read", now=NOW)
    assert (tokens.access_token, tokens.refresh_token) == (SECRETS["access"], SECRETS["refresh"])
    assert (tokens.scope, tokens.expires) == ("read", NOW + 600 * SECOND)


def test_what_an_answer_may_leave_out_is_as_it_was() -> None:
    tokens = Tokens.parse(
        given(refresh_token=None, expires_in=None), scope="openid", now=NOW, refresh_token=SECRETS["renewed"]
    )
    assert (tokens.refresh_token, tokens.scope) == (SECRETS["renewed"], "openid")
    assert tokens.expires == NOW + 300 * SECOND
    assert Tokens.parse(given(refresh_token=None), scope="", now=NOW).refresh_token is None


@pytest.mark.parametrize(
    "changed",
    [
        {"access_token": None},
        {"access_token": ""},
        {"access_token": 1},
        {"access_token": "a b"},
        {"access_token": "a\nX-Header: b"},
        {"access_token": "é"},
        {"access_token": "x" * 16_385},
        {"refresh_token": ""},
        {"refresh_token": ["x"]},
        {"token_type": None},
        {"token_type": "DPoP"},
        {"token_type": "N_A"},
        {"expires_in": 0},
        {"expires_in": -1},
        {"expires_in": "600"},
        {"expires_in": 600.0},
        {"expires_in": True},
        {"expires_in": 10**9},
        {"scope": 1},
        {"scope": "a\x1b[2J"},
    ],
)
def test_anything_else_is_refused_and_not_shown(changed: dict[str, object]) -> None:
    with pytest.raises(LoginFailed) as caught:
        Tokens.parse(given(**changed), scope="", now=NOW)
    assert "nobody-may-see" not in str(caught.value)


def test_its_text_shows_no_token() -> None:
    assert "nobody-may-see" not in repr(Tokens.parse(given(), scope="", now=NOW))


@pytest.mark.parametrize("value", ["x\n", "\x7f", " ", "", None, b"x", 1])
def test_what_no_header_can_carry_is_no_token(value: object) -> None:
    assert not is_token(value)

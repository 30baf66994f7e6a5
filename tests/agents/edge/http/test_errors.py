"""The edge's errors: status, code and the word of the RFC."""

from __future__ import annotations

from sealbus.agents.edge.http.problem import EdgeError, KeysUnavailable, TokenRefused
from sealbus.envelopes.errors import Code, SealbusError


def test_a_refused_token_is_401() -> None:
    error = TokenRefused("aud", code=Code.TOKEN_AUDIENCE)
    assert isinstance(error, EdgeError)
    assert isinstance(error, SealbusError)
    assert (error.status, error.code, error.error, error.retry_after) == (
        401,
        Code.TOKEN_AUDIENCE,
        "invalid_token",
        None,
    )
    assert str(error) == "token_audience: aud"
    assert TokenRefused("typ").code is Code.BAD_TOKEN


def test_missing_keys_are_503_and_say_when_to_try_again() -> None:
    error = KeysUnavailable("no keys", retry_after=10)
    assert (error.status, error.code, error.retry_after) == (503, Code.KEYS_UNAVAILABLE, 10)
    assert KeysUnavailable("no keys", retry_after=0).retry_after == 1

"""Where an access token is looked for, what counts as one, and how the answer says what is missing."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers
from starlette.responses import Response
from support.issuer import AUDIENCE

from sealbus.agents.edge.http.problem import EdgeError, TokenRefused
from sealbus.agents.edge.oauth.bearer import NoToken, Presented, Scheme, challenge, needed, presented_token
from sealbus.envelopes.denial import Remedy, RemedyKind
from sealbus.envelopes.errors import Code


def headers(*values: str, name: str = "authorization") -> Headers:
    return Headers(raw=[(name.encode(), value.encode("latin-1")) for value in values])


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer abc.def-1_2~3+/4==", "abc.def-1_2~3+/4=="),
        ("bearer abc", "abc"),
        ("BEARER   abc", "abc"),
        ("  Bearer abc  ", "abc"),
    ],
)
def test_a_token_stands_in_authorization(value: str, token: str) -> None:
    assert presented_token(headers(value)) == Presented(Scheme.BEARER, token)
    other = presented_token(
        headers(value.replace("Bearer", "DPoP").replace("bearer", "dpop").replace("BEARER", "DPOP"))
    )
    assert other == Presented(Scheme.DPOP, token)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic abc",
        "DPoP",
        "D-PoP abc",
        "abc",
        "Bearer\tabc",
        "Bearerabc",
        "Bear abc",
        "Bearer2 abc",
    ],
)
def test_without_one_there_is_none(value: str) -> None:
    with pytest.raises(NoToken) as raised:
        presented_token(headers(value))
    assert (raised.value.status, raised.value.code, raised.value.error) == (401, Code.NO_TOKEN, "")


def test_it_is_looked_for_nowhere_else() -> None:
    for name in ("cookie", "x-authorization", "proxy-authorization", "x-access-token"):
        with pytest.raises(NoToken):
            presented_token(headers("Bearer abc", name=name))
    with pytest.raises(NoToken):
        presented_token(Headers(raw=[]))


@pytest.mark.parametrize("value", ["Bearer a b", "Bearer a,b", "Bearer =", "Bearer a=b", "Bearer a\xe9", 'Bearer "a"'])
def test_what_is_not_of_the_form_is_a_bad_request(value: str) -> None:
    with pytest.raises(EdgeError) as raised:
        presented_token(headers(value))
    assert (raised.value.status, raised.value.code, raised.value.error) == (400, Code.MALFORMED, "invalid_request")


def test_two_fields_are_a_bad_request_even_if_they_are_one() -> None:
    with pytest.raises(EdgeError) as raised:
        presented_token(headers("Bearer abc", "Bearer abc"))
    assert (raised.value.status, raised.value.error) == (400, "invalid_request")


def test_no_error_shows_the_token() -> None:
    assert "secret" not in repr(presented_token(headers("Bearer secret")))
    for values in (("Bearer secret secret",), ("Bearer secret", "Bearer secret"), ("Basic secret",)):
        with pytest.raises(EdgeError) as raised:
            presented_token(headers(*values))
        assert "secret" not in f"{raised.value} {raised.value!r}"


def test_a_challenge_says_where_tokens_are_to_be_had_and_an_error_only_where_there_was_one() -> None:
    where = 'resource_metadata="https://edge.example/.well-known/oauth-protected-resource/api"'
    answer = Response()
    challenge(answer, AUDIENCE, error=NoToken().error, scope=None, acr_values="")
    assert answer.headers["www-authenticate"] == f"Bearer {where}"
    challenge(answer, AUDIENCE, Scheme.DPOP, error=TokenRefused("signature").error)
    assert answer.headers.getlist("www-authenticate") == [
        f"Bearer {where}",
        f'DPoP error="invalid_token", algs="ES256 ES384 Ed25519 PS256", {where}',
    ]


@pytest.mark.parametrize(
    ("remedy", "challenged"),
    [
        (Remedy(kind=RemedyKind.LOGIN), 'error="insufficient_user_authentication"'),
        (
            Remedy(kind=RemedyKind.LOGIN, acr="urn:x:2 phr", max_age=0),
            'error="insufficient_user_authentication", acr_values="urn:x:2 phr", max_age="0"',
        ),
        (Remedy(kind=RemedyKind.SCOPE, scope="a:b c"), 'error="insufficient_scope", scope="a:b c"'),
    ],
)
def test_a_challenge_says_which_login_or_scope_is_needed(remedy: Remedy, challenged: str) -> None:
    answer = Response()
    needed(answer, remedy, AUDIENCE)
    where = 'resource_metadata="https://edge.example/.well-known/oauth-protected-resource/api"'
    assert answer.headers["www-authenticate"] == f"Bearer {challenged}, {where}"


@pytest.mark.parametrize("word", ['a", error="none', "a\\", "a\r\nset-cookie: b", "\x00", "ü", "\x7f"])
def test_no_word_of_a_policy_begins_a_parameter_or_a_field(word: str) -> None:
    answer = Response()
    with pytest.raises(ValueError, match="cannot be quoted"):
        challenge(answer, AUDIENCE, scope=word)
    for first, second in ((word, "good"), ("good", word)):
        with pytest.raises(ValueError, match="cannot be quoted"):
            challenge(answer, AUDIENCE, error=first, scope=second)
    assert "www-authenticate" not in answer.headers

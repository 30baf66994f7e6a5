"""What attackers report to the edge in an identity provider's name: each with its status and code, and nobody revoked."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import httpx2
from joserfc.jwk import ECKey
from support.edge import Door, door
from support.engines import ScriptedEngine
from support.issuer import AUDIENCE, compact, new_key, public_jwk, signed
from support.security_events import (
    ACCOUNT_DISABLED,
    CLIENT_ID,
    EVENTS_URL,
    LOGOUT,
    LOGOUT_URL,
    RECEIVER,
    REPORTS,
    SESSION_REVOKED,
    Told,
    event_token,
    iss_sub,
    log_out,
    logout_token,
    report,
)

MINE = new_key()
Made = Callable[[Door], str]


def b64(value: Mapping[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(dict(value)).encode()).rstrip(b"=").decode()


def cut(token: str, part: int, text: str) -> str:
    parts = token.split(".")
    parts[part] = text
    return ".".join(parts)


def event(**said: Any) -> Made:
    return lambda edge: event_token(edge.issuer, **said)


def own(**header: Any) -> Made:
    """Return a token that the attacker signed with a key of their own."""
    return lambda edge: event_token(edge.issuer, header=header, key=MINE)


def by_hand(header: Mapping[str, Any], payload: bytes) -> Made:
    def made(edge: Door) -> str:
        good = edge.issuer.header(typ="secevent+jwt", **header)
        return compact(good, payload, signed("ES256", edge.issuer.keys["key-1"]))

    return made


def with_public_key_as_secret(edge: Door) -> str:
    key = edge.issuer.keys["key-1"]
    assert isinstance(key, ECKey)
    pem = key.as_pem(private=False)
    claims = event_token(edge.issuer).split(".")[1]
    header = b64(edge.issuer.header(alg="HS256", typ="secevent+jwt"))
    mac = hmac.new(pem, f"{header}.{claims}".encode(), sha256).digest()
    return f"{header}.{claims}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


EVENTS: dict[str, tuple[Made, str]] = {
    "alg none": (
        lambda edge: (
            cut(event_token(edge.issuer), 0, b64({"alg": "none", "typ": "secevent+jwt"})).rpartition(".")[0] + "."
        ),
        "invalid_request",
    ),
    "HS256 with the public key": (with_public_key_as_secret, "invalid_request"),
    "another algorithm than is allowed": (own(alg="ES384"), "invalid_request"),
    "a key of one's own": (own(), "invalid_key"),
    "a key of one's own, unnamed": (own(kid=None), "invalid_key"),
    "a key of one's own, in the header": (own(jwk=public_jwk(MINE, "key-1")), "invalid_request"),
    "a key at a URL of one's own": (own(jku="https://evil.example/jwks"), "invalid_request"),
    "a certificate at a URL of one's own": (own(x5u="https://evil.example/cert"), "invalid_request"),
    "a certificate of one's own": (own(x5c=["MIIB"]), "invalid_request"),
    "a kid that is a path": (own(kid="../../../../dev/null"), "invalid_key"),
    "a kid that is a query": (own(kid="x' UNION SELECT 'key"), "invalid_key"),
    "a kid that is no text": (own(kid=["key-1"]), "invalid_request"),
    "a long kid": (own(kid="k" * 300), "invalid_request"),
    "an extension": (event(header={"crit": ["exp"]}), "invalid_request"),
    "compressed": (event(header={"zip": "DEF"}), "invalid_request"),
    "encrypted": (lambda edge: "a.b.c.d.e", "invalid_request"),
    "nothing": (lambda edge: "", "invalid_request"),
    "JSON": (lambda edge: json.dumps({"iss": edge.issuer.issuer}), "invalid_request"),
    "not ASCII": (lambda edge: event_token(edge.issuer) + "ä", "invalid_request"),
    "padded": (lambda edge: event_token(edge.issuer) + "==", "invalid_request"),
    "two": (lambda edge: f"{event_token(edge.issuer)}\n{event_token(edge.issuer)}", "invalid_request"),
    "another's payload": (
        lambda edge: cut(event_token(edge.issuer), 1, event_token(edge.issuer, jti="2").split(".")[1]),
        "invalid_key",
    ),
    "without a signature": (lambda edge: cut(event_token(edge.issuer), 2, ""), "invalid_key"),
    "a signature of zeros": (lambda edge: cut(event_token(edge.issuer), 2, "A" * 86), "invalid_key"),
    "an access token": (lambda edge: edge.issuer.token(), "invalid_request"),
    "an access token of an event token's type": (
        lambda edge: edge.issuer.token(header={"typ": "secevent+jwt"}, aud=RECEIVER),
        "invalid_request",
    ),
    "a logout token": (lambda edge: logout_token(edge.issuer), "invalid_request"),
    "a logout token for our name": (lambda edge: logout_token(edge.issuer, aud=RECEIVER), "invalid_request"),
    "a logout token of an event token's type": (
        lambda edge: logout_token(edge.issuer, header={"typ": "secevent+jwt"}, aud=RECEIVER),
        "invalid_request",
    ),
    "an ID token": (event(header={"typ": "JWT"}), "invalid_request"),
    "without a type": (event(header={"typ": None}), "invalid_request"),
    "with a subject of its own": (event(sub="alice"), "invalid_request"),
    "with an end": (event(exp=4_000_000_000), "invalid_request"),
    "for another": (event(aud="https://other.example/events"), "invalid_audience"),
    "for the edge's API": (event(aud=AUDIENCE), "invalid_audience"),
    "for a client": (event(aud=CLIENT_ID), "invalid_audience"),
    "for a name that begins like ours": (event(aud=f"{RECEIVER}2"), "invalid_audience"),
    "for nobody": (event(aud=None), "invalid_audience"),
    "of another issuer": (event(iss="https://evil.example"), "invalid_issuer"),
    "of an issuer that begins like ours": (
        lambda edge: event_token(edge.issuer, iss=edge.issuer.issuer + "/"),
        "invalid_issuer",
    ),
    "of no issuer": (event(iss=None), "invalid_issuer"),
    "of an issuer that is a list": (lambda edge: event_token(edge.issuer, iss=[edge.issuer.issuer]), "invalid_issuer"),
    "of tomorrow": (event(iat=4_000_000_000), "invalid_request"),
    "of no time": (event(iat=None), "invalid_request"),
    "of a time that is text": (event(iat="1795752000"), "invalid_request"),
    "without an id": (event(jti=None), "invalid_request"),
    "of no event": (event(events={}), "invalid_request"),
    "without events": (event(events=None), "invalid_request"),
    "of two events": (event(events={SESSION_REVOKED: {}, ACCOUNT_DISABLED: {}}), "invalid_request"),
    "of a list of events": (event(events=[{SESSION_REVOKED: {}}]), "invalid_request"),
    "of an unknown event": (event(kind="https://evil.example/everybody-revoked"), "invalid_request"),
    "of a logout": (event(events={LOGOUT: {}}), "invalid_request"),
    "about nobody": (event(sub_id=None), "invalid_request"),
    "about a text": (event(sub_id="session-1"), "invalid_request"),
    "about an address": (event(subject={"format": "email", "email": "alice@example.org"}), "invalid_request"),
    "about everybody": (event(subject={"format": "complex"}), "invalid_request"),
    "about another issuer's user": (
        event(subject={"format": "iss_sub", "iss": "https://other.example", "sub": "alice"}),
        "invalid_request",
    ),
    "about another issuer's user, within": (
        event(
            subject={"format": "complex", "user": {"format": "iss_sub", "iss": "https://other.example", "sub": "alice"}}
        ),
        "invalid_request",
    ),
    "a claim twice": (
        by_hand({}, b'{"iss": "https://evil.example", "iss": "x"}'),
        "invalid_request",
    ),
    "deep": (by_hand({}, b'{"a":' * 64 + b"1" + b"}" * 64), "invalid_request"),
}

LOGOUTS: dict[str, Made] = {
    "alg none": lambda edge: cut(cut(logout_token(edge.issuer), 0, b64({"alg": "none", "typ": "logout+jwt"})), 2, ""),
    "a key of one's own": lambda edge: logout_token(edge.issuer, key=MINE),
    "a key of one's own, in the header": lambda edge: logout_token(
        edge.issuer, header={"jwk": public_jwk(MINE, "key-1")}, key=MINE
    ),
    "an event token": lambda edge: event_token(edge.issuer),
    "an event token for a client": lambda edge: event_token(edge.issuer, aud=CLIENT_ID),
    "an event token of a logout token's type": lambda edge: event_token(
        edge.issuer, header={"typ": "logout+jwt"}, aud=CLIENT_ID, sub="alice", exp=4_000_000_000
    ),
    "an access token": lambda edge: edge.issuer.token(),
    "an access token of a logout token's type": lambda edge: edge.issuer.token(
        header={"typ": "logout+jwt"}, aud=CLIENT_ID, sid="session-1"
    ),
    "an ID token": lambda edge: logout_token(edge.issuer, header={"typ": "JWT"}, nonce="n"),
    "with a nonce": lambda edge: logout_token(edge.issuer, nonce="n"),
    "for another client": lambda edge: logout_token(edge.issuer, aud="other"),
    "for the edge's API": lambda edge: logout_token(edge.issuer, aud=AUDIENCE),
    "of another issuer": lambda edge: logout_token(edge.issuer, iss="https://evil.example"),
    "a second too late": lambda edge: logout_token(edge.issuer, exp=1_700_000_000),
    "of tomorrow": lambda edge: logout_token(edge.issuer, iat=4_000_000_000, exp=4_000_000_100),
    "of nobody": lambda edge: logout_token(edge.issuer, sub=None, sid=None),
    "of no event": lambda edge: logout_token(edge.issuer, events={}),
    "of another event": lambda edge: logout_token(edge.issuer, events={SESSION_REVOKED: {}}),
    "nothing": lambda edge: "",
    "long": lambda edge: logout_token(edge.issuer, x="x" * 16_384),
}


def shows_nothing(answer: httpx2.Response, token: str) -> bool:
    return not any(part in answer.text for part in token.split(".") if len(part) > 20)


async def test_no_event_token_of_an_attacker_revokes_anybody() -> None:
    told = Told()
    async with door(told.agent, engine=ScriptedEngine(), row=REPORTS) as edge:
        for name, (made, word) in EVENTS.items():
            token = made(edge)
            answer = await report(edge, token.encode())
            assert (answer.status_code, answer.json()["err"]) == (400, word), (name, answer.text)
            assert answer.json().keys() == {"err", "description"}
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["content-language"] == "en"
            assert shows_nothing(answer, token)
        assert (told.of, any(edge.published().values())) == ([], False)
        # And the table is not of a door that takes nothing.
        assert (await report(edge, event_token(edge.issuer))).status_code == 202
        assert len(told.of) == 1


async def test_no_logout_token_of_an_attacker_ends_a_session() -> None:
    told = Told()
    async with door(told.agent, engine=ScriptedEngine(), row=REPORTS) as edge:
        for name, made in LOGOUTS.items():
            token = made(edge)
            answer = await log_out(edge, token)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), (name, answer.text)
            assert answer.headers["cache-control"] == "no-store"
            assert shows_nothing(answer, token)
        assert (told.of, any(edge.published().values())) == ([], False)
        assert (await log_out(edge, logout_token(edge.issuer))).status_code == 204
        assert len(told.of) == 1


async def test_no_request_of_another_form_is_looked_at() -> None:
    told = Told()
    async with door(told.agent, engine=ScriptedEngine(), row=REPORTS) as edge:
        event_, logout = event_token(edge.issuer), logout_token(edge.issuer)
        form = "application/x-www-form-urlencoded"
        for path, body, content_type, status, code in (
            (EVENTS_URL, event_, "application/jwt", 415, "unsupported_media_type"),
            (EVENTS_URL, event_, "application/json", 415, "unsupported_media_type"),
            (EVENTS_URL, f"SET={event_}", form, 415, "unsupported_media_type"),
            (EVENTS_URL, "x" * 1_048_576, "application/secevent+jwt", 413, "too_large"),
            (EVENTS_URL, "x" * 16_385, "application/secevent+jwt", 413, "too_large"),
            (LOGOUT_URL, logout, "application/logout+jwt", 415, "unsupported_media_type"),
            (LOGOUT_URL, json.dumps({"logout_token": logout}), "application/json", 415, "unsupported_media_type"),
            (LOGOUT_URL, f"logout_token={'x' * 1_048_576}", form, 413, "too_large"),
        ):
            answer = await edge.http.post(path, content=body, headers={"Content-Type": content_type})
            assert (answer.status_code, answer.json()["code"]) == (status, code), (path, content_type)
        for body in (f"logout_token={logout}&logout_token={logout}", f"id_token={logout}", "", "logout_token"):
            answer = await edge.http.post(LOGOUT_URL, content=body, headers={"Content-Type": form})
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), body
        # Nor is one that stands elsewhere than in the body.
        bearer = {"Authorization": f"Bearer {event_}", "Content-Type": "application/secevent+jwt"}
        answer = await edge.http.post(EVENTS_URL, params={"SET": event_}, headers=bearer)
        assert (answer.status_code, answer.json()["err"]) == (400, "invalid_request")
        assert (told.of, any(edge.published().values())) == ([], False)


async def test_a_captured_token_says_nothing_new() -> None:
    told = Told()
    async with door(told.agent, engine=ScriptedEngine(), row=REPORTS) as edge:
        token = event_token(edge.issuer, ACCOUNT_DISABLED, iss_sub(edge.issuer, "alice"))
        for _ in range(3):
            assert (await report(edge, token)).status_code == 202
        # A user until the same time: who logged in since is not touched.
        assert len(set(told.of)) == 1


async def test_nobody_revokes_with_an_access_token() -> None:
    told = Told()
    async with door(told.agent, engine=ScriptedEngine(), row=REPORTS) as edge:
        body = {"kind": "user", "issuer": edge.issuer.issuer, "id": "alice", "at": 1 << 52}
        for path in ("/v1/calls/revoker/revoke", "/v1/tasks/revoker/revoke"):
            assert (await edge.post(path, body)).status_code == 404
        assert told.of == []

"""What a server is answered: a user without a name that ends with its SVID, or an error, signed by the issuer."""

from __future__ import annotations

from typing import Any, cast

from support.auth_request import AskingServer

from sealbus.agents.control.callout.nkeys import Prefix, SigningKey, decode_jwt
from sealbus.agents.control.callout.permissions import Grants
from sealbus.agents.control.callout.protocol import allowing, refusing, user_jwt, verify_request
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND
from sealbus.policies.decision.connect import ConnectLimits

NOW = 1_700_000_000 * SECOND
ISSUER = SigningKey.generate(Prefix.ACCOUNT)
SERVER = AskingServer()
REQUEST = verify_request(SERVER.request(SERVER.claims()), now=NOW)
GRANTS = Grants(
    account="APP",
    publish=("a.b",),
    publish_deny=(),
    subscribe=("c.* q",),
    subscribe_deny=("c.d",),
    limits=ConnectLimits(subscriptions=10, payload=-1, data=-1),
)


def claims(token: bytes) -> dict[str, Any]:
    return cast("dict[str, Any]", decode_jwt(token, Prefix.ACCOUNT))


def test_a_user_has_its_grants_its_end_and_no_name() -> None:
    token = user_jwt(GRANTS, user=SERVER.user, issuer=ISSUER, not_after=NOW + 90 * SECOND + 999_999, now=NOW)
    found = claims(token.encode())
    assert found["nats"] == {
        "type": "user",
        "version": 2,
        "pub": {"allow": ["a.b"]},
        "sub": {"allow": ["c.* q"], "deny": ["c.d"]},
        "subs": 10,
        "data": -1,
        "payload": -1,
    }
    assert (found["sub"], found["aud"], found["iss"]) == (SERVER.user, "APP", ISSUER.public)
    assert (found["iat"], found["exp"]) == (1_700_000_000, 1_700_000_090)
    assert "name" not in found


def test_an_answer_is_for_its_server_and_its_attempt() -> None:
    found = claims(allowing(REQUEST, "a.b.c", issuer=ISSUER, now=NOW))
    assert (found["sub"], found["aud"], found["iss"]) == (SERVER.user, SERVER.key.public, ISSUER.public)
    assert found["nats"] == {"type": "authorization_response", "version": 2, "jwt": "a.b.c"}


def test_a_refusal_says_its_code_and_nothing_else() -> None:
    found = claims(refusing(REQUEST, Code.WRONG_AUTHORITY, issuer=ISSUER, now=NOW))
    assert found["nats"] == {"type": "authorization_response", "version": 2, "error": "wrong_authority"}

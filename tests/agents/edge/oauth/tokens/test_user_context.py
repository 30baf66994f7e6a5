"""User contexts made of access tokens: what goes in, for how long, and what cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.envelopes import HOUR, MINUTE, NOW, TRUST_DOMAIN, Issuer, agent

from sealbus.agents.edge.http.limits import EdgeLimits
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.edge.oauth.tokens.user_context import ContextMinter
from sealbus.envelopes.errors import Code, IdentityUnavailable
from sealbus.envelopes.message.user_context import SubjectType, UserContext, parse_payload
from sealbus.envelopes.trust.spiffe_id import TrustDomain

TOKEN = AccessToken(
    issuer="https://idp.example",
    subject="alice",
    name="alice",
    client="shop-web",
    session="session-1",
    scope=("read", "write"),
    claims={"dept": "tools", "level": 3, "admin": False, "groups": ("a", "b")},
    tenant="acme",
    acr="urn:mfa",
    amr=("pwd", "otp"),
    auth_time=NOW - MINUTE,
    issued=NOW - MINUTE,
    expires=NOW + HOUR,
)
EDGE = Issuer().sealer(agent("edge"))
MINTER = ContextMinter(trust_domain=TRUST_DOMAIN)


def minted(token: AccessToken = TOKEN, minter: ContextMinter = MINTER, **options: Any) -> UserContext:
    statement = minter.mint(token, EDGE, **{"transaction": bytes(16), "now": NOW, "workload": None, **options})
    return parse_payload(statement.payload)


def test_a_context_says_what_the_token_said_and_nothing_else() -> None:
    context = minted(workload=agent("web"))
    assert (context.iss, context.aud) == (EDGE.iss, TRUST_DOMAIN)
    assert (context.sub, context.idp, context.cid, context.sid) == (
        "alice",
        "https://idp.example",
        "shop-web",
        "session-1",
    )
    assert (context.scp, dict(context.clm), context.ten) == (TOKEN.scope, TOKEN.claims, "acme")
    assert (context.acr, context.amr, context.aut) == ("urn:mfa", ("pwd", "otp"), NOW - MINUTE)
    assert (context.wkl, context.req) == (agent("web"), None)
    assert (context.iat, context.exp, context.end) == (NOW, NOW + 15 * MINUTE, NOW + 8 * HOUR)


def test_whose_it_is_and_what_goes_into_the_context() -> None:
    ours = minted()
    assert (ours.sub, ours.typ, ours.dom) == ("alice", None, None)
    partner = TrustDomain("partner.example")
    theirs = minted(replace(TOKEN, name="alice@partner.example", domain=partner, type=SubjectType.CLIENT))
    assert (theirs.sub, theirs.typ, theirs.dom) == ("alice@partner.example", SubjectType.CLIENT, partner)


def test_a_name_that_is_too_long_with_its_domain_is_refused() -> None:
    partner = TrustDomain("partner.example")
    assert minted(replace(TOKEN, name="a" * 240 + "@partner.example", domain=partner)).sub.startswith("aaa")
    with pytest.raises(TokenRefused):
        minted(replace(TOKEN, name="a" * 241 + "@partner.example", domain=partner))


def test_a_token_whose_user_was_given_no_name_makes_no_context() -> None:
    with pytest.raises(TokenRefused):
        minted(replace(TOKEN, name=""))


def test_with_a_pseudonym_the_users_id_is_nowhere_in_the_context() -> None:
    statement = MINTER.mint(replace(TOKEN, name="pseudonym:5e"), EDGE, transaction=bytes(16), now=NOW, workload=None)
    context = parse_payload(statement.payload)
    assert context.sub == "pseudonym:5e"
    assert (context.idp, context.cid, dict(context.clm)) == ("https://idp.example", "shop-web", TOKEN.claims)
    assert b"alice" not in statement.payload


def test_what_a_token_does_not_say_is_absent() -> None:
    bare = replace(TOKEN, scope=(), claims={}, tenant=None, acr=None, amr=None, auth_time=None)
    context = minted(bare)
    assert (context.scp, dict(context.clm)) == ((), {})
    assert (context.ten, context.acr, context.amr, context.aut, context.wkl, context.req) == (None,) * 6


def test_a_chain_starts_no_later_than_the_token_lives() -> None:
    context = minted(replace(TOKEN, expires=NOW + MINUTE))
    assert (context.exp, context.end) == (NOW + MINUTE, NOW + 8 * HOUR)


def test_times_are_those_of_the_limits() -> None:
    context = minted(minter=replace(MINTER, limits=EdgeLimits(context_start_seconds=10, context_end_seconds=20)))
    assert (context.exp - NOW, context.end - NOW) == (10_000_000, 20_000_000)


def test_a_context_is_found_by_the_transaction_that_it_is_minted_for() -> None:
    assert minted(transaction=bytes(range(16))).txn == bytes(range(16))


@pytest.mark.parametrize("expires", [NOW, NOW - 1])
def test_a_token_that_ended_meanwhile_mints_nothing(expires: int) -> None:
    with pytest.raises(TokenRefused) as caught:
        minted(replace(TOKEN, expires=expires))
    assert caught.value.code is Code.TOKEN_EXPIRED


def test_an_edge_whose_credential_ended_mints_nothing() -> None:
    with pytest.raises(IdentityUnavailable):
        minted(replace(TOKEN, expires=EDGE.expires + HOUR), now=EDGE.expires)


@pytest.mark.parametrize(
    "change",
    [
        {"claims": {f"claim-{number}": ("x" * 250,) * 2 for number in range(32)}},
        {"name": "a" * 257},
        {"scope": ("a",) * 33},
    ],
)
def test_more_than_a_context_holds_is_refused_without_showing_it(change: dict[str, Any]) -> None:
    with pytest.raises(TokenRefused) as caught:
        minted(replace(TOKEN, **change))
    assert (caught.value.status, caught.value.code) == (401, Code.BAD_TOKEN)
    assert str(caught.value) == "bad_token: more claims than a user context can hold"

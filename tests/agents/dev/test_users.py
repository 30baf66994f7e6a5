"""User contexts of development: what is asked for goes in, nothing else, and no issuer that could be a real one."""

from __future__ import annotations

import pytest
from support.envelopes import HOUR, MINUTE, NOW, TRUST_DOMAIN, Issuer, agent

from sealbus.agents.dev.users import DEV_IDP, DevUser, mint_user
from sealbus.envelopes.lifetimes import Lifetimes
from sealbus.envelopes.message.user_context import parse_payload

EDGE = Issuer().sealer(agent("edge"))


def test_a_context_says_what_was_asked_for() -> None:
    statement = mint_user(
        EDGE,
        DevUser(
            "alice",
            session="s1",
            client="shop",
            scope=["read"],
            claims={"region": "eu"},
            tenant="acme",
            workload=agent("web"),
            issuer="https://idp.example",
        ),
        trust_domain=TRUST_DOMAIN,
        now=NOW,
    )
    context = parse_payload(statement.payload)
    assert (context.iss, context.aud, context.sub, context.idp) == (
        EDGE.iss,
        TRUST_DOMAIN,
        "alice",
        "https://idp.example",
    )
    assert (context.sid, context.cid, context.scp, dict(context.clm)) == ("s1", "shop", ("read",), {"region": "eu"})
    assert (context.ten, context.wkl) == ("acme", agent("web"))
    assert (context.iat, context.exp, context.end) == (NOW, NOW + 15 * MINUTE, NOW + 8 * HOUR)


@pytest.mark.parametrize(
    ("lifetimes", "times"),
    [
        (Lifetimes(), (15 * MINUTE, 8 * HOUR)),
        (Lifetimes(context_start=MINUTE), (MINUTE, 8 * HOUR)),
        (Lifetimes(context_life=2 * MINUTE), (2 * MINUTE, 2 * MINUTE)),
    ],
)
def test_it_lives_no_longer_than_readers_take(lifetimes: Lifetimes, times: tuple[int, int]) -> None:
    minted = mint_user(EDGE, DevUser("alice"), trust_domain=TRUST_DOMAIN, now=NOW, lifetimes=lifetimes)
    context = parse_payload(minted.payload)
    assert (context.exp - NOW, context.end - NOW) == times


def test_what_is_not_asked_for_is_absent_and_the_issuer_cannot_resolve() -> None:
    context = parse_payload(mint_user(EDGE, DevUser("alice"), trust_domain=TRUST_DOMAIN, now=NOW).payload)
    assert (context.idp, context.sid, context.cid) == (DEV_IDP, "session-alice", "dev")
    assert (context.scp, dict(context.clm), context.ten, context.wkl) == ((), {}, None, None)
    assert DEV_IDP.endswith(".invalid")


def test_how_and_when_the_user_logged_in_is_said_where_it_is_asked_for() -> None:
    statement = mint_user(
        EDGE, DevUser("alice", acr="urn:mfa", amr=["pwd", "otp"], login_age=3_600), trust_domain=TRUST_DOMAIN, now=NOW
    )
    context = parse_payload(statement.payload)
    assert (context.acr, context.amr, context.aut) == ("urn:mfa", ("pwd", "otp"), NOW - HOUR)
    fresh = parse_payload(mint_user(EDGE, DevUser("alice", login_age=0), trust_domain=TRUST_DOMAIN, now=NOW).payload)
    assert (fresh.acr, fresh.amr, fresh.aut) == (None, None, NOW)


def test_two_contexts_of_one_user_are_two_transactions() -> None:
    first, second = (
        parse_payload(mint_user(EDGE, DevUser("alice"), trust_domain=TRUST_DOMAIN, now=NOW).payload).txn
        for _ in range(2)
    )
    assert first != second

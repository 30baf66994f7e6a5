"""Assertions to the second, and what is remembered of one that is used; what attackers show is in tests/attack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.issuer import AUDIENCE, PATIENT, TRUSTS_NOBODY, LoopbackIssuer
from support.shop import Shop
from support.token_site import PARTNER, TOKEN_ENDPOINT, token_site

from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.tokens.assertion import ASSERTION_TYPES, Assertion, Assertions
from sealbus.envelopes.errors import Code
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.bundle.revocations import Revocations

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
WEB = SpiffeId("spiffe://example.org/agent/shop-web")


class Remembering:
    """What the guard is told; each digest is used once."""

    def __init__(self) -> None:
        self.uses: dict[bytes, tuple[int, int]] = {}

    async def use(self, digest: bytes, *, made: int, until: int) -> bool:
        first = digest not in self.uses
        self.uses[digest] = made, until
        return first


@pytest.fixture
async def partner() -> AsyncIterator[LoopbackIssuer]:
    async with LoopbackIssuer() as issuer:
        yield issuer


@pytest.fixture
def guard() -> Remembering:
    return Remembering()


@pytest.fixture
async def assertions(partner: LoopbackIssuer, guard: Remembering) -> AsyncIterator[Assertions]:
    row = partner.row(
        domain=TrustDomain(PARTNER), assertion_audience=TOKEN_ENDPOINT, claims={"dept": "dept"}, require={"org": "acme"}
    )
    async with KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
        yield Assertions([row], keys, guard)  # type: ignore[arg-type]  # as much of a guard as it uses


def text(partner: LoopbackIssuer, *, typ: str = "JWT", **changes: Any) -> str:
    said = {"aud": TOKEN_ENDPOINT, "client_id": None, "org": "acme", "life": 60, **changes}
    return partner.token(now=NOW, header={"typ": typ}, **said)


async def verified(assertions: Assertions, assertion: str, now: int = NOW) -> Assertion:
    return await assertions.verify(assertion, presenter=WEB, now=now)


async def refused(assertions: Assertions, assertion: str, now: int = NOW) -> Code:
    with pytest.raises(TokenRefused) as caught:
        await verified(assertions, assertion, now)
    return caught.value.code


async def test_all_that_an_assertion_may_say_is_read(assertions: Assertions, partner: LoopbackIssuer) -> None:
    for kind in ASSERTION_TYPES:
        found = await verified(assertions, text(partner, typ=kind.upper(), dept="tools", auth_time=5, more={"x": []}))
        contents = found.contents
        assert (contents.issuer, contents.subject, contents.client) == (partner.issuer, "alice", WEB.value)
        assert (contents.type, str(contents.domain), contents.session) == (None, PARTNER, "token-1")
        assert (dict(contents.claims), contents.scope, contents.auth_time) == ({"dept": "tools"}, (), 5 * SECOND)
        assert (contents.issued, contents.expires) == (NOW, NOW + 60 * SECOND)
        assert "alice" not in repr(found)
    assert (await verified(assertions, text(partner, aud=[TOKEN_ENDPOINT], iat=None))).contents.issued == NOW


@pytest.mark.parametrize(
    ("changes", "now", "code"),
    [
        ({"life": 300}, NOW - 5 * SECOND, None),
        ({"life": 300}, NOW - 5 * SECOND - 1, Code.BAD_TOKEN),
        ({"life": 305, "iat": None}, NOW, None),
        ({"life": 306, "iat": None}, NOW, Code.BAD_TOKEN),
        ({}, NOW + 60 * SECOND - 1, None),
        ({}, NOW + 60 * SECOND, Code.TOKEN_EXPIRED),
        ({"iat": NOW // SECOND + 5}, NOW, None),
        ({"iat": NOW // SECOND + 6}, NOW, Code.BAD_TOKEN),
        ({"nbf": NOW // SECOND + 5}, NOW, None),
        ({"nbf": NOW // SECOND + 6}, NOW, Code.BAD_TOKEN),
        ({"org": "other"}, NOW, Code.BAD_TOKEN),
        ({"org": None}, NOW, Code.BAD_TOKEN),
    ],
)
async def test_its_times_and_what_the_row_requires(
    assertions: Assertions, partner: LoopbackIssuer, changes: dict[str, Any], now: int, code: Code | None
) -> None:
    assertion = text(partner, **changes)
    if code is None:
        assert (await verified(assertions, assertion, now)).contents.subject == "alice"
    else:
        assert await refused(assertions, assertion, now) == code


async def test_a_used_one_is_remembered_for_as_long_as_any_clock_would_take_it(
    assertions: Assertions, partner: LoopbackIssuer, guard: Remembering
) -> None:
    found = await verified(assertions, text(partner))
    await assertions.use(found)
    with pytest.raises(TokenRefused, match="used before"):
        await assertions.use(found)
    [(made, until)] = guard.uses.values()
    # A clock may be off by five seconds, so that of two processes one may be behind the other by ten.
    assert (made, until) == (NOW + (60 - 300 - 10) * SECOND, NOW + (60 + 10) * SECOND)
    # It is known by its id and nothing else; another issuer's with the same id is another one.
    assert (await verified(assertions, text(partner, sub="bob", life=70))).digest == found.digest
    assert (await verified(assertions, text(partner, jti="token-2"))).digest != found.digest


async def test_two_issuers_may_give_the_same_id(guard: Remembering) -> None:
    async with LoopbackIssuer() as one, LoopbackIssuer() as two, KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
        rows = [each.row(domain=TrustDomain(PARTNER), assertion_audience=TOKEN_ENDPOINT) for each in (one, two)]
        assertions = Assertions(rows, keys, guard)  # type: ignore[arg-type]  # as much of a guard as it uses
        for each in (one, two):
            await assertions.use(await verified(assertions, text(each)))
        assert len(guard.uses) == 2
        # Signed by the one, in the name of the other.
        assert await refused(assertions, text(one, iss=two.issuer)) == Code.BAD_TOKEN


async def test_a_partners_user_is_revoked_by_the_name_that_policies_know() -> None:
    async with token_site(Shop().pricing) as site:
        issuer = site.partner.issuer
        for name, status in (("mia", 200), (f"mia@{PARTNER}", 400)):
            revoked = Revocations(users={(issuer, name): 1 << 52})
            site.edge.node.revocations = lambda revoked=revoked: revoked  # type: ignore[misc]  # mypy knows no type for it
            answer = await site.post(site.grant(site.assertion(jti=name)))
            assert (answer.status_code, answer.json().get("code")) == (status, None if status == 200 else "revoked")
            assert (await site.public(site.partner.token(sub="mia"))).status_code == (200 if status == 200 else 401)
        assert await site.edge.front.user_id(site.issuer.issuer, "alice") == "alice"
        assert await site.edge.front.user_id(issuer, "mia") == f"mia@{PARTNER}"


async def test_what_is_for_the_edge_is_no_assertion(assertions: Assertions, partner: LoopbackIssuer) -> None:
    assert await refused(assertions, text(partner, aud=AUDIENCE)) == Code.TOKEN_AUDIENCE
    assert await refused(assertions, text(partner, typ="at+jwt")) == Code.BAD_TOKEN

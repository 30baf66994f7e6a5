"""Scopes come from the claim that the issuer's row names, and an issuer whose tokens carry none is noted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.issuer import PATIENT, TRUSTS_NOBODY, LoopbackIssuer

from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.tokens.access_token import AccessTokenVerifier

NOW = 1_800_000_000 * 1_000_000


@pytest.fixture
async def issuer() -> AsyncIterator[LoopbackIssuer]:
    async with LoopbackIssuer() as issuer:
        yield issuer


@pytest.fixture
async def keys() -> AsyncIterator[KeySource]:
    async with KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
        yield keys


@pytest.mark.parametrize("scopes", ["read write", ["read", "write"]])
@pytest.mark.parametrize("claim", ["scope", "scp", "permissions"])
async def test_scopes_come_from_the_claim_that_the_row_names(
    issuer: LoopbackIssuer, keys: KeySource, claim: str, scopes: object
) -> None:
    verifier = AccessTokenVerifier([issuer.row(scope_claim=claim)], keys)
    claims: dict[str, Any] = {**dict.fromkeys(("scope", "scp", "permissions"), "other"), claim: scopes}
    token = await verifier.verify(issuer.token(now=NOW, **claims), now=NOW)
    assert token.scope == ("read", "write")
    assert verifier.notes() == {}


async def test_an_issuer_whose_tokens_carry_no_scopes_is_noted_until_one_does(
    issuer: LoopbackIssuer, keys: KeySource
) -> None:
    verifier = AccessTokenVerifier([issuer.row()], keys)
    assert verifier.notes() == {}
    assert (await verifier.verify(issuer.token(now=NOW), now=NOW)).scope == ()
    assert verifier.notes() == {"scopes": f"the tokens of {issuer.issuer} carry no scopes in the claim scope"}
    assert (await verifier.verify(issuer.token(now=NOW, scp=["read"]), now=NOW)).scope == ()
    hint = 'carry no scopes in the claim scope, but have scp: set scope_claim = "scp" in its row of edge.issuers'
    assert verifier.notes()["scopes"] == f"the tokens of {issuer.issuer} {hint}"
    await verifier.verify(issuer.token(now=NOW, scope="read"), now=NOW)
    await verifier.verify(issuer.token(now=NOW), now=NOW)
    assert verifier.notes() == {}


async def test_no_scopes_are_missed_where_the_row_lets_none_through(issuer: LoopbackIssuer, keys: KeySource) -> None:
    verifier = AccessTokenVerifier([issuer.row(scopes=frozenset())], keys)
    await verifier.verify(issuer.token(now=NOW, scp="read"), now=NOW)
    assert verifier.notes() == {}


@pytest.mark.parametrize("claim", ["sc", "scopes"])
async def test_another_claim_is_suggested_however_alike_it_is(
    issuer: LoopbackIssuer, keys: KeySource, claim: str
) -> None:
    verifier = AccessTokenVerifier([issuer.row(scope_claim=claim)], keys)
    await verifier.verify(issuer.token(now=NOW, scope="read"), now=NOW)
    assert 'set scope_claim = "scope"' in verifier.notes()["scopes"]

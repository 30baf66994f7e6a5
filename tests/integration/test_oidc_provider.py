"""The edge's token verification against a certified OpenID provider that is not ours."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from support.dpop import Holder
from support.edge import QUICK, door, edge_table
from support.envelopes import TRUST_DOMAIN, agent
from support.envelopes import Issuer as SvidIssuer
from support.issuer import TRUSTS_NOBODY, new_key
from support.oidc_provider import CLIENT, EDGE, ES256_API, OPAQUE_API, RS256_API, OidcProvider
from support.shop import Shop

from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.access_token import AccessTokenVerifier
from sealbus.agents.edge.oauth.client_authentication import PrivateKeyJwt
from sealbus.agents.edge.oauth.introspection import Introspection
from sealbus.agents.edge.oauth.issuers import IntrospectionEndpoint, Issuer
from sealbus.agents.edge.oauth.jwks import KeySource
from sealbus.agents.edge.oauth.user_context import mint
from sealbus.agents.runtime.settings.schema import IssuerTable
from sealbus.envelopes.errors import Code
from sealbus.envelopes.message.user_context import parse_payload

pytestmark = pytest.mark.idp
SECOND = 1_000_000
COOL_DOWN = DEFAULT_EDGE_LIMITS.cool_down_seconds * SECOND


def now() -> int:
    return time.time_ns() // 1_000


def row(provider: OidcProvider, **changes: Any) -> Issuer:
    return Issuer(**{"issuer": provider.issuer, "audiences": frozenset({ES256_API, RS256_API}), **changes})


@pytest.fixture
async def provider() -> AsyncIterator[OidcProvider]:
    async with OidcProvider({"ec-1": ("ES256", new_key("ES256")), "rsa-1": ("RS256", new_key("RS256"))}) as provider:
        yield provider


@pytest.fixture
async def keys() -> AsyncIterator[KeySource]:
    async with KeySource(tls=TRUSTS_NOBODY) as keys:
        yield keys


@pytest.mark.parametrize("resource", [ES256_API, RS256_API])
async def test_tokens_of_a_client_and_of_a_user_are_taken(
    resource: str, provider: OidcProvider, keys: KeySource
) -> None:
    verifier = AccessTokenVerifier(
        [row(provider, claims={"department": "dept", "groups": "groups", "nested": "n"})], keys
    )

    token = await verifier.verify(await provider.client_token(resource), now=now())
    assert (token.issuer, token.subject, token.client, token.scope) == (
        provider.issuer, CLIENT["id"], CLIENT["id"], ("read",),
    )  # fmt: skip

    token = await verifier.verify(await provider.user_token("alice", resource), now=now())
    assert (token.subject, token.client, set(token.scope)) == ("alice", CLIENT["id"], {"read", "write"})
    assert dict(token.claims) == {"dept": "tools", "groups": ("a", "b")}
    assert token.expires - token.issued == 600 * SECOND

    sealer = SvidIssuer().sealer(agent("edge"), iat=now(), exp=now() + 3_600 * SECOND)
    context = parse_payload(
        mint(token, sealer, transaction=bytes(16), trust_domain=TRUST_DOMAIN, now=now(), workload=None).payload
    )
    assert (context.sub, context.idp, context.exp) == ("alice", provider.issuer, token.expires)
    assert context.sid == token.session != ""


async def test_its_tokens_are_refused_once_expired_and_elsewhere(provider: OidcProvider, keys: KeySource) -> None:
    text = await provider.client_token(ES256_API)
    verifier = AccessTokenVerifier([row(provider)], keys)
    token = await verifier.verify(text, now=now())
    with pytest.raises(TokenRefused) as caught:
        await verifier.verify(text, now=token.expires)
    assert caught.value.code is Code.TOKEN_EXPIRED
    elsewhere = AccessTokenVerifier([row(provider, audiences=frozenset({RS256_API}))], keys)
    with pytest.raises(TokenRefused) as caught:
        await elsewhere.verify(text, now=now())
    assert caught.value.code is Code.TOKEN_AUDIENCE


async def test_about_an_opaque_token_it_is_asked(provider: OidcProvider, keys: KeySource) -> None:
    client = PrivateKeyJwt(EDGE, provider.edge_key)
    asked = row(
        provider,
        audiences=frozenset({OPAQUE_API}),
        claims={"department": "dept"},
        introspection=IntrospectionEndpoint(f"{provider.issuer}/token/introspection", client),
    )
    async with Introspection(tls=TRUSTS_NOBODY) as introspection:
        verifier = AccessTokenVerifier([asked], keys, introspection=introspection)
        text = await provider.user_token("alice", OPAQUE_API)
        assert text.count(".") == 0
        token = await verifier.verify(text, now=now())
        assert (token.issuer, token.subject, token.client) == (provider.issuer, "alice", CLIENT["id"])
        assert set(token.scope) == {"read", "write"}
        assert token.expires - token.issued == 600 * SECOND
        await provider.revoke(text)
        with pytest.raises(TokenRefused, match="not active"):
            await verifier.verify(text, now=now() + DEFAULT_EDGE_LIMITS.introspection_seconds * SECOND)
        with pytest.raises(TokenRefused, match="not active"):
            await verifier.verify("an-opaque-token-of-nobody", now=now())


@pytest.mark.parametrize("resource", [ES256_API, OPAQUE_API])
async def test_a_token_that_it_bound_is_taken_from_who_holds_the_key(resource: str, provider: OidcProvider) -> None:
    holder = Holder()
    async with door(Shop().pricing) as edge:
        with tempfile.NamedTemporaryFile() as file:
            file.write(provider.edge_key.as_pem(private=True))
            file.flush()
            asked = {
                "introspection": f"{provider.issuer}/token/introspection",
                "client": EDGE,
                "client_key": file.name,
            }
            row = {"issuer": provider.issuer, "audiences": (resource,), **(asked if resource == OPAQUE_API else {})}
            issuer = IssuerTable.model_validate(row)
            table = edge_table(edge.issuer, issuers=(issuer,))
            node = (await edge.bus.client("edge")).node
            async with (
                serve_edge(table, node, connections=QUICK, issuer_tls=TRUSTS_NOBODY) as running,
                httpx2.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", trust_env=False) as http,
            ):
                token = await provider.client_token(resource, holder=holder)
                path = "/v1/calls/pricing/quote"
                fields = {"Authorization": f"DPoP {token}", "Content-Type": "application/json"}
                for proof, status in (
                    (holder.proof(token, "POST", f"https://edge.example{path}"), 200),
                    (Holder().proof(token, "POST", f"https://edge.example{path}"), 401),
                ):
                    answer = await http.post(path, content=b'{"item_id": "42"}', headers={**fields, "DPoP": proof})
                    assert answer.status_code == status, answer.text


async def test_without_that_an_opaque_token_is_refused(provider: OidcProvider, keys: KeySource) -> None:
    verifier = AccessTokenVerifier([row(provider)], keys)
    with pytest.raises(TokenRefused) as caught:
        await verifier.verify(await provider.client_token(OPAQUE_API), now=now())
    assert (caught.value.status, caught.value.code) == (401, Code.BAD_TOKEN)


async def test_it_rotates_its_keys_by_restart_with_both_and_then_with_the_new_one(keys: KeySource) -> None:
    old, new = ("ES256", new_key("ES256")), ("ES256", new_key("ES256"))
    async with OidcProvider({"old": old}) as provider:
        port = provider.port
        verifier = AccessTokenVerifier([row(provider)], keys)
        started = now()
        first = await provider.client_token(ES256_API)
        await verifier.verify(first, now=started)
    async with OidcProvider({"new": new, "old": old}, port=port) as provider:
        second = await provider.client_token(ES256_API)
        # Its key is not known yet: the unknown `kid` brings it, and the old one still counts.
        await verifier.verify(second, now=started + COOL_DOWN)
        await verifier.verify(first, now=started + COOL_DOWN)
    async with OidcProvider({"new": new}, port=port):
        later = started + COOL_DOWN + DEFAULT_EDGE_LIMITS.keys_fresh_seconds * SECOND
        await verifier.verify(second, now=later)
        with pytest.raises(TokenRefused, match="no such key"):
            await verifier.verify(first, now=later)
    # And gone: what was fetched last goes on counting.
    assert (await verifier.verify(second, now=later + COOL_DOWN)).client == CLIENT["id"]

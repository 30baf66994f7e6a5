"""The edge's token verification against a certified OpenID provider that is not ours."""

from __future__ import annotations

import json
import secrets
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc.jwk import ECKey, Key
from support.dpop import Holder
from support.edge import ENDS_SOON, door, edge_table
from support.envelopes import TRUST_DOMAIN, agent
from support.envelopes import Issuer as SvidIssuer
from support.issuer import PATIENT, TRUSTS_NOBODY, compact, new_key, public_jwk, signed
from support.legacy import LegacyApi, OAuth
from support.oidc_provider import (
    CLIENT,
    EDGE,
    ES256_API,
    EXIT,
    LEGACY_API,
    MACHINE,
    OPAQUE_API,
    RS256_API,
    OidcProvider,
)
from support.shop import Shop
from support.x509 import ThrowawayCa

from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.client_authentication import PrivateKeyJwt
from sealbus.agents.edge.oauth.issuers import IntrospectionEndpoint, Issuer
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.tokens.access_token import AccessTokenVerifier
from sealbus.agents.edge.oauth.tokens.introspection import Introspection
from sealbus.agents.edge.oauth.tokens.user_context import ContextMinter
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
    async with KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
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
    minter = ContextMinter(trust_domain=TRUST_DOMAIN)
    context = parse_payload(
        minter.mint(replace(token, name="alice"), sealer, transaction=bytes(16), now=now(), workload=None).payload
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
    async with Introspection(PATIENT, tls=TRUSTS_NOBODY) as introspection:
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
                serve_edge(table, node, connections=ENDS_SOON, issuer_tls=TRUSTS_NOBODY) as running,
                httpx2.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", trust_env=False, timeout=60) as http,
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


async def test_a_token_that_it_bound_to_a_certificate_is_taken_from_who_shows_that(tmp_path: Path) -> None:
    """The client is known by its certificate at the provider, and by the same at the edge (RFC 8705)."""
    authority = ThrowawayCa("example.org")
    (tmp_path / "authority.pem").write_bytes(authority.cert_pem)
    certificates = {
        "edge": authority.issue("spiffe://example.org/edge", addresses=["127.0.0.1"]),
        "machine": authority.issue("spiffe://example.org/machine", organization=MACHINE),
        "other": authority.issue("spiffe://example.org/other", organization=MACHINE),
    }
    for name, one in certificates.items():
        (tmp_path / f"{name}.pem").write_bytes(one.cert_pem)
        (tmp_path / f"{name}.key").write_bytes(one.key_pem)
        (tmp_path / f"{name}.key").chmod(0o600)

    def tls(name: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=tmp_path / "authority.pem")
        if name is not None:
            context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        return context

    key = ("ES256", new_key("ES256"))
    async with OidcProvider({"ec-1": key}, authority=authority) as provider, door(Shop().pricing) as edge:
        async with httpx2.AsyncClient(trust_env=False, timeout=60, verify=tls("machine")) as client:
            form = {"grant_type": "client_credentials", "client_id": MACHINE, "resource": ES256_API, "scope": "read"}
            given = (await client.post(f"{provider.issuer}/token", data=form)).raise_for_status().json()
        table = edge_table(
            edge.issuer,
            issuers=(IssuerTable(issuer=provider.issuer, audiences=(ES256_API,), bound=True),),
            certificate=tmp_path / "edge.pem",
            key=tmp_path / "edge.key",
            client_authorities=tmp_path / "authority.pem",
        )
        node = (await edge.bus.client("edge")).node
        async with serve_edge(table, node, connections=ENDS_SOON, issuer_tls=tls(None)) as running:
            for shown, status in (("machine", 200), ("other", 401), (None, 401)):
                async with httpx2.AsyncClient(trust_env=False, timeout=60, verify=tls(shown)) as client:
                    answer = await client.post(
                        f"https://127.0.0.1:{running.port}/v1/calls/pricing/quote",
                        json={"item_id": "42"},
                        headers={"Authorization": f"Bearer {given['access_token']}"},
                    )
                assert answer.status_code == status, (shown, answer.text)
        [decision] = await edge.bus.decisions("pricing.quote")
        assert json.loads(decision.input or b"{}")["context"]["user"]["type"] == "client"


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


TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
OURS = "https://sealbus.example"
OUR_KEY = new_key()


@pytest.fixture
async def believing() -> AsyncIterator[OidcProvider]:
    trusted = {OURS: [public_jwk(OUR_KEY, "ours")]}
    async with OidcProvider({"ec-1": ("ES256", new_key("ES256"))}, trusted=trusted) as provider:
        yield provider


def assertion(provider: OidcProvider, *, key: Key = OUR_KEY, **changes: Any) -> str:
    """Return what we say of alice; `changes` replace claims, None removes one."""
    second = int(time.time())
    claims = {
        "iss": OURS, "sub": "alice", "aud": provider.issuer,
        "iat": second, "exp": second + 60, "jti": secrets.token_hex(8), **changes,
    }  # fmt: skip
    said = {name: value for name, value in claims.items() if value is not None}
    return compact({"alg": "ES256", "kid": "ours"}, said, signed("ES256", key))


async def asked_as_exit(
    provider: OidcProvider, form: Mapping[str, str], *, key: ECKey | None = None
) -> httpx2.Response:
    client = PrivateKeyJwt(EXIT, provider.exit_key if key is None else key)
    sent, fields = await client.sign(form, issuer=provider.issuer, now=now())
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        return await http.post(f"{provider.issuer}/token", data=sent, headers=fields)


async def seen_by_legacy(provider: OidcProvider, answer: httpx2.Response) -> tuple[int, str]:
    """Return what the legacy service says to the token of `answer`, and as whom it lets it in."""
    assert answer.status_code == 200, answer.text
    assert answer.json()["token_type"] == "Bearer"
    fields = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    async with (
        LegacyApi(OAuth(provider.issuer, LEGACY_API)) as legacy,
        httpx2.AsyncClient(trust_env=False, timeout=60) as http,
    ):
        status = (await http.get(f"{legacy.url}/customers/42", headers=fields)).status_code
        return status, legacy.received[0].subject


async def test_the_exit_gets_a_token_of_its_own(provider: OidcProvider) -> None:
    form = {"grant_type": "client_credentials"}
    answer = await asked_as_exit(provider, {**form, "resource": LEGACY_API, "scope": "read"})
    assert await seen_by_legacy(provider, answer) == (200, EXIT)
    refused = await asked_as_exit(provider, form, key=ECKey.generate_key("P-256"))
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("named", ["resource", "audience"])
async def test_the_exit_exchanges_a_users_token(named: str, provider: OidcProvider) -> None:
    form = {
        "grant_type": TOKEN_EXCHANGE, "subject_token": await provider.user_token("alice", ES256_API),
        "subject_token_type": ACCESS_TOKEN, named: LEGACY_API, "scope": "read",
    }  # fmt: skip
    answer = await asked_as_exit(provider, form)
    assert await seen_by_legacy(provider, answer) == (200, "alice")
    assert (answer.json()["issued_token_type"], answer.json()["scope"]) == (ACCESS_TOKEN, "read")
    # What it got is for the legacy service alone.
    with pytest.raises(TokenRefused) as caught:
        async with KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
            await AccessTokenVerifier([row(provider)], keys).verify(answer.json()["access_token"], now=now())
    assert caught.value.code is Code.TOKEN_AUDIENCE


async def test_an_assertion_about_a_user_brings_a_token_for_them(believing: OidcProvider) -> None:
    for user, form in (
        ("alice", {"grant_type": JWT_BEARER, "assertion": assertion(believing)}),
        (
            "bob",
            {"grant_type": JWT_BEARER, "assertion": assertion(believing, aud=f"{believing.issuer}/token", sub="bob")},
        ),
        (
            "alice",
            {"grant_type": TOKEN_EXCHANGE, "subject_token": assertion(believing), "subject_token_type": JWT},
        ),
    ):
        answer = await asked_as_exit(believing, {**form, "resource": LEGACY_API})
        assert await seen_by_legacy(believing, answer) == (200, user)


async def test_what_it_cannot_believe_it_refuses(believing: OidcProvider) -> None:
    second = int(time.time())
    once = assertion(believing)
    good = {"grant_type": JWT_BEARER, "resource": LEGACY_API}
    assert (await asked_as_exit(believing, {**good, "assertion": once})).status_code == 200
    for text in (
        once,
        assertion(believing, iss="https://other.example"),
        assertion(believing, aud="https://other.example"),
        assertion(believing, exp=second - 1),
        assertion(believing, iat=second - 3_600),
        assertion(believing, sub=None),
        assertion(believing, jti=None),
        assertion(believing, key=new_key()),
        "not-an-assertion",
    ):
        answer = await asked_as_exit(believing, {**good, "assertion": text})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")

    exchange = {"grant_type": TOKEN_EXCHANGE, "subject_token_type": ACCESS_TOKEN}
    token = await believing.user_token("alice", ES256_API)
    for form, error in (
        ({"subject_token": token}, "invalid_target"),
        ({"subject_token": token, "resource": "https://other.example"}, "invalid_target"),
        ({"subject_token": token, "resource": LEGACY_API, "scope": "all"}, "invalid_scope"),
        ({"subject_token": f"{token[:-4]}AAAA", "resource": LEGACY_API}, "invalid_request"),
        ({"subject_token": assertion(believing), "resource": LEGACY_API}, "invalid_request"),
        ({"subject_token": token, "subject_token_type": "urn:x", "resource": LEGACY_API}, "invalid_request"),
    ):
        answer = await asked_as_exit(believing, {**exchange, **form})
        assert (answer.status_code, answer.json()["error"]) == (400, error)
    other = ECKey.generate_key("P-256")
    stranger = await asked_as_exit(believing, {**good, "assertion": assertion(believing)}, key=other)
    assert (stranger.status_code, stranger.json()["error"]) == (401, "invalid_client")

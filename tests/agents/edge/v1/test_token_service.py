"""The token service over real mutual TLS, and the client's side of it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from support.identity import StaticIdentity
from support.shop import Shop, Update
from support.token_site import EDGE, PARTNER, WEB, Site, token_site
from support.x509 import ThrowawayCa

from sealbus import Client
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.edge.v1.token_service import ACCESS_TOKEN_TYPE, JWT_TYPE
from sealbus.agents.sdk.token_exchange import (
    USER_CONTEXT_TYPE,
    ExchangeRefused,
    TokenExchange,
    TokenServiceUnavailable,
    context_token,
    parse_context_token,
)
from sealbus.bus.nats.connection.tls import client_context
from sealbus.envelopes.errors import Code, ConfigurationError, EnvelopeError
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.testing import TestBus


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
async def site(shop: Shop) -> AsyncIterator[Site]:
    async with token_site(shop.pricing) as site:
        yield site


async def test_a_backend_gets_a_context_of_its_own_and_calls_with_it(site: Site, shop: Shop) -> None:
    async with site.exchange(site.workload()) as exchange:
        user = await exchange.user_context(site.issuer.token(scope="read"))
    context = parse_payload(user.payload)
    assert (context.sub, context.wkl, context.scp) == ("alice", SpiffeId(WEB), ("read",))
    client = await site.bus.client("shop-web")
    await client.call("pricing.quote", Update(item_id="42"), returns=dict[str, Any], user=user)
    assert shop.contexts[0].user == context
    other = await site.bus.client("planner")
    with pytest.raises(Exception, match=r"bad_chain|bad_context|expired"):
        await other.call("pricing.quote", Update(item_id="42"), returns=dict[str, Any], user=user, timeout=0.2)
    assert len(shop.contexts) == 1


async def test_the_answer_is_that_of_rfc_8693(site: Site) -> None:
    answer = await site.post(site.form())
    assert answer.status_code == 200
    said = answer.json()
    assert (said["token_type"], said["issued_token_type"]) == ("N_A", USER_CONTEXT_TYPE)
    assert 590 <= said["expires_in"] <= 600
    assert answer.headers["cache-control"] == "no-store"
    assert context_token(parse_context_token(said["access_token"])) == said["access_token"]


async def test_a_scope_can_be_asked_for_that_is_part_of_the_tokens(site: Site) -> None:
    said = (await site.post(site.form(scope="read", audience="example.org"))).json()
    assert parse_payload(parse_context_token(said["access_token"]).payload).scp == ("read",)


async def test_for_a_partners_assertion_there_is_a_context_that_names_its_domain(site: Site, shop: Shop) -> None:
    async with site.exchange(site.workload()) as exchange:
        user = await exchange.user_context(site.assertion(scope="admin", sid="s-9", acr="urn:mfa"), asserted=True)
    context = parse_payload(user.payload)
    assert (context.sub, context.dom, context.typ) == (f"mia@{PARTNER}", TrustDomain(PARTNER), None)
    assert (context.idp, context.cid, context.wkl, context.sid) == (site.partner.issuer, WEB, SpiffeId(WEB), "s-9")
    # What its scopes mean here, the row would have to say.
    assert (context.scp, context.acr) == ((), "urn:mfa")
    assert context.exp - context.iat <= 60 * 1_000_000
    client = await site.bus.client("shop-web")
    await client.call("pricing.quote", Update(item_id="42"), returns=dict[str, Any], user=user)
    assert shop.contexts[0].user == context


async def test_an_assertion_can_be_a_subject_token_and_its_scope_be_narrowed() -> None:
    async with token_site(scopes=("read", "write")) as site:
        form = {"subject_token_type": JWT_TYPE, "subject_token": site.assertion(scope="read write root", jti="1")}
        answer = await site.post(site.form(**form, scope="read"))
        assert (answer.status_code, answer.json()["token_type"]) == (200, "N_A")
        assert parse_payload(parse_context_token(answer.json()["access_token"]).payload).scp == ("read",)
        answer = await site.post(site.grant(site.assertion(scope="read write root", jti="2"), scope="root"))
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")
        # Nothing was wrong with the assertion, and it was not used.
        answer = await site.post(site.grant(site.assertion(scope="read write root", jti="2")))
        assert (answer.status_code, answer.json()["issued_token_type"]) == (200, USER_CONTEXT_TYPE)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"assertion": None}, "invalid_request"),
        ({"assertion": ""}, "invalid_request"),
        ({"subject_token": "x"}, "invalid_request"),
        ({"requested_token_type": ACCESS_TOKEN_TYPE}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"audience": "other.org"}, "invalid_target"),
        ({"resource": "https://edge.example/api"}, "invalid_target"),
    ],
)
async def test_a_request_with_an_assertion_that_is_not_taken(
    site: Site, changes: dict[str, str | None], error: str
) -> None:
    form = {name: value for name, value in {**site.grant(site.assertion()), **changes}.items() if value is not None}
    answer = await site.post(form)
    assert (answer.status_code, answer.json()["error"], answer.json()["code"]) == (400, error, "malformed")


BAD: dict[str, tuple[dict[str, str | None], str, str]] = {
    "another grant": ({"grant_type": "client_credentials"}, "unsupported_grant_type", "malformed"),
    "no grant": ({"grant_type": None}, "unsupported_grant_type", "malformed"),
    "another audience": ({"audience": "other.org"}, "invalid_target", "malformed"),
    "a resource": ({"resource": "https://edge.example/api"}, "invalid_target", "malformed"),
    "a refresh token": (
        {"subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        "invalid_request",
        "malformed",
    ),
    "an access token wanted": ({"requested_token_type": ACCESS_TOKEN_TYPE}, "invalid_request", "malformed"),
    "an actor": ({"actor_token": "x"}, "invalid_request", "malformed"),
    "no token": ({"subject_token": None}, "invalid_request", "malformed"),
    "an empty token": ({"subject_token": ""}, "invalid_request", "malformed"),
    "a token that is none": ({"subject_token": "abc"}, "invalid_request", "bad_token"),
    "more scope": ({"scope": "read admin"}, "invalid_scope", "malformed"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_request_that_is_not_taken(site: Site, name: str) -> None:
    changes, error, code = BAD[name]
    answer = await site.post(site.form(**changes))
    assert (answer.status_code, answer.json()["error"], answer.json()["code"]) == (400, error, code)
    assert "access_token" not in answer.json()


@pytest.mark.parametrize(
    ("body", "fields", "status"),
    [
        (b"grant_type=a&grant_type=b", {}, 400),
        (b"&&&", {}, 400),
        (b"\xff=x", {}, 400),
        (b"&".join(b"f%d=x" % number for number in range(17)), {}, 400),
        (b"{}", {"Content-Type": "application/json"}, 415),
        (b"x" * 40_000, {}, 413),
    ],
)
async def test_a_body_that_is_no_form(site: Site, body: bytes, fields: dict[str, Any], status: int) -> None:
    answer = await site.post(body, **fields)
    assert (answer.status_code, answer.json()["error"]) == (status, "invalid_request")


async def test_an_expired_token_is_refused_with_its_code(site: Site) -> None:
    async with site.exchange(site.workload()) as exchange:
        with pytest.raises(ExchangeRefused) as caught:
            await exchange.user_context(site.issuer.token(life=-1))
    assert caught.value.code is Code.TOKEN_EXPIRED


async def test_keys_that_cannot_be_had_are_unavailable(site: Site) -> None:
    site.issuer.key_set.status = 500
    async with site.exchange(site.workload()) as exchange:
        with pytest.raises(TokenServiceUnavailable, match="keys_unavailable"):
            await exchange.user_context(site.issuer.token())


async def test_the_token_goes_to_nobody_but_the_edge(site: Site) -> None:
    async with site.exchange(site.workload(), edges=("spiffe://example.org/other",)) as exchange:
        with pytest.raises(TokenServiceUnavailable) as caught:
            await exchange.user_context(site.issuer.token())
    assert site.issuer.token() not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert site.issuer.fetches == 0


@pytest.mark.parametrize("who", ["nobody", "foreign", "two names", "no path", "another domain", "an authority"])
async def test_a_caller_that_is_not_one_workload_of_the_trust_domain_gets_no_answer(site: Site, who: str) -> None:
    identity = site.workload()
    material = identity.x509()
    context: ssl.SSLContext = client_context(material, expected=frozenset({SpiffeId(EDGE)}))
    if who == "nobody":
        context = _without_certificate(site.ca)
    else:
        ca = ThrowawayCa("example.org") if who == "foreign" else site.ca
        uris = {
            "two names": [WEB, f"{WEB}2"],
            "no path": ["spiffe://example.org"],
            "another domain": ["spiffe://other.org/x"],
        }.get(who, [WEB])
        svid = ca.issue(WEB, uris=uris, authority=who == "an authority")
        other = type(material)(
            spiffe_id=material.spiffe_id,
            chain=(svid.cert_der,),
            key=svid.key_der,
            bundles=material.bundles,
            not_before=svid.not_before,
            not_after=svid.not_after,
        )
        context = client_context(other, expected=frozenset({SpiffeId(EDGE)}))
    async with httpx2.AsyncClient(verify=context, trust_env=False, timeout=60) as http:
        with pytest.raises(httpx2.TransportError):
            await http.post(f"{site.url}/token", data=site.form())


def _without_certificate(ca: ThrowawayCa) -> ssl.SSLContext:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.load_verify_locations(cadata=ca.cert_der)
    bare.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return bare


async def test_new_handshakes_use_the_edges_new_svid_and_old_connections_go_on(site: Site) -> None:
    identity = site.workload()
    async with site.exchange(identity) as exchange:
        await exchange.user_context(site.issuer.token())
        serial = await _served(site, identity)
        site.identity.rotate()
        assert await _served(site, identity) != serial
        await exchange.user_context(site.issuer.token())
        identity.rotate()
        await exchange.user_context(site.issuer.token())


async def _served(site: Site, identity: StaticIdentity) -> bytes:
    context = client_context(identity.x509(), expected=frozenset({SpiffeId(EDGE)}))
    reader, writer = await asyncio.open_connection("127.0.0.1", site.edge.token_port, ssl=context)
    del reader
    try:
        tls = writer.get_extra_info("ssl_object")
        return bytes(tls.getpeercert(binary_form=True))
    finally:
        writer.close()


async def test_a_connection_ends_with_the_certificate_that_it_was_made_with(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = site.edge.node.clock() + 4_000 * 1_000_000
    monkeypatch.setattr(site.edge.node, "clock", lambda: later)
    answer = await site.post(site.form())
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_other_paths_and_methods_are_not_there(site: Site) -> None:
    context = client_context(site.workload().x509(), expected=frozenset({SpiffeId(EDGE)}))
    async with httpx2.AsyncClient(verify=context, trust_env=False, timeout=60) as http:
        assert (await http.get(f"{site.url}/token")).status_code == 405
        assert (await http.post(f"{site.url}/v1/calls/pricing/quote")).status_code == 404


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://", "https://a@b/token", "https://b/token?x"])
def test_a_url_that_is_not_https_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"client.token_service"):
        TokenExchange(url, identity=StaticIdentity(ThrowawayCa("example.org"), WEB), edges=frozenset())


async def test_a_client_without_a_token_service_says_what_to_set(site: Site) -> None:
    client: Client = await site.bus.client("shop-web")
    with pytest.raises(ConfigurationError, match=r"client.token_service is not set"):
        await client.user_context("x")


@pytest.mark.parametrize("text", ["", "x", "é", "A" * 30_000, "AA==", "kQE", "lQGiYWKTAQGQ"])
def test_a_text_of_no_context_is_refused(text: str) -> None:
    with pytest.raises(EnvelopeError):
        parse_context_token(text)


def test_every_changed_letter_of_a_context_is_another_context_or_none() -> None:
    sealer = MemoryIdentity(TestBus().authority, SpiffeId(EDGE)).sealer()
    statement = TestBus().user("alice", "shop-web")
    text = context_token(statement)
    assert parse_context_token(text) == statement
    for place in range(0, len(text), 7):
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        try:
            assert parse_context_token(changed) != statement
        except EnvelopeError:
            continue
    assert sealer.iss == SpiffeId(EDGE)

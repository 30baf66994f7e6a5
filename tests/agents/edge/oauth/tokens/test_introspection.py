"""Tokens that only their issuer can read: what it says is believed for seconds, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from support.issuer import AUDIENCE, PATIENT, TRUSTS_NOBODY, LoopbackIssuer, Served

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.problem import EdgeError, KeysUnavailable, TokenRefused
from sealbus.agents.edge.oauth.client_authentication import ClientAuthentication, ClientSecret, PrivateKeyJwt
from sealbus.agents.edge.oauth.issuers import IntrospectionEndpoint
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.tokens.access_token import AccessTokenVerifier, Binding, BindingKind
from sealbus.agents.edge.oauth.tokens.introspection import Introspection
from sealbus.envelopes.errors import Code, ConfigurationError
from sealbus.envelopes.message.user_context import SubjectType

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
OPAQUE = "6f1c0a52-an-opaque-token"
KEPT = DEFAULT_EDGE_LIMITS.introspection_seconds * SECOND
BASIC = ClientSecret("edge", "a secret: with/signs")


@pytest.fixture
async def issuer() -> AsyncIterator[LoopbackIssuer]:
    async with LoopbackIssuer() as issuer:
        yield issuer


@pytest.fixture
async def keys() -> AsyncIterator[KeySource]:
    async with KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
        yield keys


@pytest.fixture
async def asking() -> AsyncIterator[Introspection]:
    async with Introspection(PATIENT, tls=TRUSTS_NOBODY) as asking:
        yield asking


def verifier(
    issuer: LoopbackIssuer, keys: KeySource, asking: Introspection, client: ClientAuthentication = BASIC, **row: Any
) -> AccessTokenVerifier:
    endpoint = IntrospectionEndpoint(issuer.introspection_url, client)
    return AccessTokenVerifier([issuer.row(introspection=endpoint, **row)], keys, introspection=asking)


def says(issuer: LoopbackIssuer, token: str = OPAQUE, **changes: Any) -> None:
    """Have `token` active with what oidc-provider says, its members changed; None removes one."""
    claims = issuer.claims(now=NOW, jti=None, **{"iss": issuer.issuer, "scope": "read", **changes})
    issuer.says[token] = {"active": True, "token_type": "Bearer", **claims}


async def test_what_its_issuer_says_is_the_token(
    issuer: LoopbackIssuer, keys: KeySource, asking: Introspection
) -> None:
    says(issuer, sid="session-7", acr="urn:mfa", department="tools")
    token = await verifier(issuer, keys, asking, claims={"department": "dep"}).verify(OPAQUE, now=NOW)
    assert (token.issuer, token.subject, token.client, token.session) == (
        issuer.issuer,
        "alice",
        "shop-web",
        "session-7",
    )
    assert (token.scope, token.acr, dict(token.claims), token.bound) == (("read",), "urn:mfa", {"dep": "tools"}, None)
    assert (token.issued, token.expires) == (NOW, NOW + 600 * SECOND)
    assert issuer.fetches == 0


async def test_without_a_user_the_client_is_who_acts_by_whichever_claim_names_it(
    issuer: LoopbackIssuer, keys: KeySource, asking: Introspection
) -> None:
    says(issuer, sub=None, azp="service-reports", client_id="alice")
    token = await verifier(issuer, keys, asking, client_claim="azp").verify(OPAQUE, now=NOW)
    assert (token.subject, token.client, token.type) == ("service-reports", "service-reports", SubjectType.CLIENT)


async def test_what_rfc_7662_leaves_out_may_be_missing(
    issuer: LoopbackIssuer, keys: KeySource, asking: Introspection
) -> None:
    says(issuer, iat=None, iss=None)
    del issuer.says[OPAQUE]["token_type"]
    token = await verifier(issuer, keys, asking).verify(OPAQUE, now=NOW)
    assert token.issued == NOW
    assert len(token.session) == 32
    assert OPAQUE not in token.session


async def test_of_a_client_that_acts_for_itself_the_client_is_the_subject(
    issuer: LoopbackIssuer, keys: KeySource, asking: Introspection
) -> None:
    says(issuer, sub=None)
    token = await verifier(issuer, keys, asking).verify(OPAQUE, now=NOW)
    assert (token.subject, token.client) == ("shop-web", "shop-web")


async def test_a_jwt_of_an_issuer_that_is_asked_is_asked_about(
    issuer: LoopbackIssuer, keys: KeySource, asking: Introspection
) -> None:
    text = issuer.token(now=NOW)
    asked = verifier(issuer, keys, asking)
    with pytest.raises(TokenRefused, match="not active"):
        await asked.verify(text, now=NOW)
    says(issuer, text)
    assert (await asked.verify(text, now=NOW + KEPT)).subject == "alice"


async def test_a_jwt_of_another_issuer_is_not_shown_to_it(
    issuer: LoopbackIssuer, keys: KeySource, asking: Introspection
) -> None:
    with pytest.raises(TokenRefused) as caught:
        await verifier(issuer, keys, asking).verify(issuer.token(now=NOW, iss="https://other.example"), now=NOW)
    assert caught.value.code is Code.UNKNOWN_ISSUER
    assert issuer.forms == []


async def test_it_may_be_bound_to_a_key(issuer: LoopbackIssuer, keys: KeySource, asking: Introspection) -> None:
    says(issuer, token_type="DPoP", cnf={"jkt": "k" * 43})
    token = await verifier(issuer, keys, asking).verify(OPAQUE, now=NOW)
    assert token.bound == Binding(BindingKind.KEY, "k" * 43)


async def test_its_issuer_may_have_to_bind_it(issuer: LoopbackIssuer, keys: KeySource, asking: Introspection) -> None:
    asked = verifier(issuer, keys, asking, bound=True)
    says(issuer)
    with pytest.raises(TokenRefused, match="not bound to a key"):
        await asked.verify(OPAQUE, now=NOW)
    text = issuer.token(now=NOW)
    says(issuer, text)
    with pytest.raises(TokenRefused, match="not bound to a key"):
        await asked.verify(text, now=NOW)
    says(issuer, "another", cnf={"jkt": "k" * 43})
    assert (await asked.verify("another", now=NOW)).bound == Binding(BindingKind.KEY, "k" * 43)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aud": None}, Code.BAD_TOKEN),
        ({"aud": "https://another.example"}, Code.TOKEN_AUDIENCE),
        ({"aud": ["https://another.example", 7]}, Code.BAD_TOKEN),
        ({"iss": "https://another.example"}, Code.UNKNOWN_ISSUER),
        ({"iss": 7}, Code.BAD_TOKEN),
        ({"iss": "+x"}, Code.UNKNOWN_ISSUER),
        ({"iss": "upper"}, Code.UNKNOWN_ISSUER),
        ({"exp": None}, Code.BAD_TOKEN),
        ({"exp": 1_800_000_000}, Code.TOKEN_EXPIRED),
        ({"exp": "1900000000"}, Code.BAD_TOKEN),
        ({"iat": 1_800_000_006}, Code.BAD_TOKEN),
        ({"nbf": 1_800_000_006}, Code.BAD_TOKEN),
        ({"sub": 7}, Code.BAD_TOKEN),
        ({"sub": ""}, Code.BAD_TOKEN),
        ({"client_id": None}, Code.BAD_TOKEN),
        ({"scope": [7]}, Code.BAD_TOKEN),
        ({"token_type": "mac"}, Code.BAD_TOKEN),
        ({"token_type": "bearers"}, Code.BAD_TOKEN),
        ({"token_type": "bear"}, Code.BAD_TOKEN),
        ({"token_type": 7}, Code.BAD_TOKEN),
        ({"cnf": {"jwk": {}}}, Code.BAD_TOKEN),
    ],
)
async def test_an_answer_is_held_to_the_rules_of_a_token(
    issuer: LoopbackIssuer, keys: KeySource, asking: Introspection, changes: dict[str, Any], code: Code
) -> None:
    near = {"+x": issuer.issuer + "x", "upper": issuer.issuer.upper()}
    says(
        issuer, **{name: near.get(value, value) if isinstance(value, str) else value for name, value in changes.items()}
    )
    with pytest.raises(TokenRefused) as caught:
        await verifier(issuer, keys, asking).verify(OPAQUE, now=NOW)
    assert caught.value.code is code


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        Served(status=401, body=b'{"error": "invalid_client"}'),
        Served(status=500),
        Served(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        Served(body=b""),
        Served(body=b"[]"),
        Served(body=b"active"),
        Served(body=b'{"active": "true"}'),
        Served(body=b'{"active": 1}'),
        Served(body=b'{"active": true, "active": false}'),
        Served(body=b"{}"),
        Served(body=b'{"active": true' + b" " * DEFAULT_EDGE_LIMITS.document_bytes + b"}"),
        Served(body=b"x", endless=True),
        Served(body=b'{"active": true}', headers={"Content-Encoding": "gzip"}),
    ],
    ids=lambda answer: f"{answer.status} {answer.body[:40]!r}",
)
async def test_nonsense_is_no_answer(
    issuer: LoopbackIssuer, keys: KeySource, asking: Introspection, answer: Served
) -> None:
    issuer.introspection = answer
    with pytest.raises(KeysUnavailable) as caught:
        await verifier(issuer, keys, asking).verify(OPAQUE, now=NOW)
    assert (caught.value.status, caught.value.code) == (503, Code.KEYS_UNAVAILABLE)
    # And nothing of it is kept.
    issuer.introspection = None
    says(issuer)
    assert (await verifier(issuer, keys, asking).verify(OPAQUE, now=NOW)).subject == "alice"


async def test_an_issuer_that_hangs_is_given_up(issuer: LoopbackIssuer, keys: KeySource) -> None:
    issuer.introspection = Served(gate=asyncio.Event())
    async with Introspection(EdgeLimits(fetch_seconds=0.05), tls=TRUSTS_NOBODY) as asking:
        with pytest.raises(KeysUnavailable):
            await verifier(issuer, keys, asking).verify(OPAQUE, now=NOW)


async def test_an_answer_counts_for_seconds_and_never_longer_than_the_token(
    issuer: LoopbackIssuer, keys: KeySource, asking: Introspection
) -> None:
    says(issuer, exp=1_800_000_003)
    asked = verifier(issuer, keys, asking)
    for later in (0, 1, 2):
        assert (await asked.verify(OPAQUE, now=NOW + later * SECOND)).subject == "alice"
    assert len(issuer.forms) == 1
    with pytest.raises(TokenRefused) as caught:
        await asked.verify(OPAQUE, now=NOW + 3 * SECOND)
    assert caught.value.code is Code.TOKEN_EXPIRED
    says(issuer)
    assert (await asked.verify(OPAQUE, now=NOW + KEPT)).expires == NOW + 600 * SECOND
    del issuer.says[OPAQUE]
    assert (await asked.verify(OPAQUE, now=NOW + 2 * KEPT - 1)).subject == "alice"
    for later in (0, 1):
        with pytest.raises(TokenRefused, match="not active"):
            await asked.verify(OPAQUE, now=NOW + 2 * KEPT + later)
    assert len(issuer.forms) == 3


async def test_all_who_show_one_token_wait_for_one_answer(
    issuer: LoopbackIssuer, keys: KeySource, asking: Introspection
) -> None:
    says(issuer)
    gate = asyncio.Event()
    asked = verifier(issuer, keys, asking)
    issuer.introspection = Served(gate=gate)
    leaving = asyncio.create_task(asked.verify(OPAQUE, now=NOW))
    waiting = [asyncio.create_task(asked.verify(OPAQUE, now=NOW)) for _ in range(5)]
    await issuer.asked.wait()
    leaving.cancel()
    issuer.introspection.body = b'{"active": false}'
    gate.set()
    for one in waiting:
        with pytest.raises(TokenRefused, match="not active"):
            await one
    assert leaving.cancelled()
    assert len(issuer.forms) == 1


async def test_questions_and_answers_are_bounded(issuer: LoopbackIssuer, keys: KeySource) -> None:
    limits = EdgeLimits(introspections=2, introspected=2)
    gate = asyncio.Event()
    async with Introspection(limits, tls=TRUSTS_NOBODY) as asking:
        asked = verifier(issuer, keys, asking)
        issuer.introspection = Served(body=b'{"active": false}', gate=gate)
        waiting = [asyncio.create_task(asked.verify(f"token-{at}", now=NOW)) for at in range(2)]
        while len(issuer.forms) < 2:
            issuer.asked.clear()
            await issuer.asked.wait()
        with pytest.raises(KeysUnavailable, match="too many"):
            await asked.verify("token-2", now=NOW)
        gate.set()
        await asyncio.wait(waiting)
        for at in (2, 3, 0):
            with pytest.raises(TokenRefused):
                await asked.verify(f"token-{at}", now=NOW)
        # 0 had given way.
        assert [form["token"] for form in issuer.forms][2:] == ["token-2", "token-3", "token-0"]
        # Of the three, two are remembered.
        for at in (3, 0, 2):
            with pytest.raises(TokenRefused):
                await asked.verify(f"token-{at}", now=NOW)
        assert [form["token"] for form in issuer.forms][5:] == ["token-2"]


async def test_leaving_ends_its_questions(issuer: LoopbackIssuer, keys: KeySource) -> None:
    issuer.introspection = Served(gate=asyncio.Event())
    async with Introspection(PATIENT, tls=TRUSTS_NOBODY) as asking:
        waiting = asyncio.create_task(verifier(issuer, keys, asking).verify(OPAQUE, now=NOW))
        await issuer.asked.wait()
    with pytest.raises(KeysUnavailable):
        await waiting
    with pytest.raises(KeysUnavailable):
        await verifier(issuer, keys, asking).verify(OPAQUE, now=NOW)


async def test_without_a_way_to_ask_no_token_is_taken(issuer: LoopbackIssuer, keys: KeySource) -> None:
    endpoint = IntrospectionEndpoint(issuer.introspection_url, BASIC)
    with pytest.raises(KeysUnavailable):
        await AccessTokenVerifier([issuer.row(introspection=endpoint)], keys).verify(OPAQUE, now=NOW)


async def test_what_one_issuer_says_of_a_token_is_not_what_another_says(
    issuer: LoopbackIssuer, asking: Introspection
) -> None:
    says(issuer)
    endpoint = IntrospectionEndpoint(issuer.introspection_url, BASIC)
    for name in (issuer.issuer, f"{issuer.issuer}/other"):
        for _ in range(2):
            await asking.claims(issuer.row(issuer=name), endpoint, OPAQUE, now=NOW)
    assert len(issuer.requests) == 2


async def test_only_one_issuer_is_asked(issuer: LoopbackIssuer, keys: KeySource) -> None:
    endpoint = IntrospectionEndpoint(issuer.introspection_url, BASIC)
    rows = [issuer.row(introspection=endpoint), issuer.row(issuer="http://127.0.0.1:1", introspection=endpoint)]
    with pytest.raises(ConfigurationError, match="more than one"):
        AccessTokenVerifier(rows, keys)


async def test_a_client_shows_its_secret(issuer: LoopbackIssuer, keys: KeySource, asking: Introspection) -> None:
    says(issuer)
    await verifier(issuer, keys, asking).verify(OPAQUE, now=NOW)
    [form] = issuer.forms
    assert form == {
        "token": OPAQUE,
        "token_type_hint": "access_token",
        "authorization": "Basic ZWRnZTphJTIwc2VjcmV0JTNBJTIwd2l0aCUyRnNpZ25z",
    }
    assert "secret" not in repr(BASIC)


async def test_a_client_signs_an_assertion_for_each_request(
    issuer: LoopbackIssuer, keys: KeySource, asking: Introspection
) -> None:
    key = ECKey.generate_key("P-256", private=True)
    asked = verifier(issuer, keys, asking, PrivateKeyJwt("edge", key))
    for token in (OPAQUE, OPAQUE + "2"):
        with pytest.raises(TokenRefused):
            await asked.verify(token, now=NOW)
    ids = set()
    for form in issuer.forms:
        assert form["client_id"] == "edge"
        assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        said = jwt.decode(form["client_assertion"], key, algorithms=["ES256"])
        assert said.header == {"alg": "ES256", "kid": key.thumbprint(), "typ": "JWT"}
        ids.add(said.claims.pop("jti"))
        assert said.claims == {
            "iss": "edge",
            "sub": "edge",
            "aud": issuer.issuer,
            "iat": NOW // SECOND,
            "exp": NOW // SECOND + 60,
        }
    assert len(ids) == 2


async def test_no_token_is_in_a_log_or_an_error(
    issuer: LoopbackIssuer, keys: KeySource, asking: Introspection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="sealbus")
    for answer in (Served(status=500), Served(body=b"no"), None):
        issuer.introspection = answer
        with pytest.raises(EdgeError) as caught:
            await verifier(issuer, keys, asking).verify(OPAQUE, now=NOW)
        seen: BaseException | None = caught.value
        while seen is not None:
            assert OPAQUE not in repr((seen.args, vars(seen)))
            seen = seen.__cause__ or seen.__context__
    told = "\n".join(one.getMessage() for one in caplog.records if one.name.startswith("sealbus"))
    assert "did not say" in told
    assert OPAQUE not in told
    assert AUDIENCE not in told

"""Access tokens: good ones, and a table of bad ones with status and code."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.issuer import AUDIENCE, PATIENT, TRUSTS_NOBODY, LoopbackIssuer, compact, new_key, public_jwk, signed

from sealbus.agents.edge.http.limits import EdgeLimits
from sealbus.agents.edge.http.problem import EdgeError, TokenRefused
from sealbus.agents.edge.oauth.issuers import ALGORITHMS
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.tokens.access_token import AccessTokenVerifier
from sealbus.envelopes.errors import Code, ConfigurationError
from sealbus.envelopes.message.user_context import SubjectType
from sealbus.envelopes.trust.spiffe_id import TrustDomain

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
KEYS_OF_NOBODY = KeySource(PATIENT, tls=TRUSTS_NOBODY)


@pytest.fixture
async def issuer() -> AsyncIterator[LoopbackIssuer]:
    async with LoopbackIssuer() as issuer:
        yield issuer


@pytest.fixture
async def keys() -> AsyncIterator[KeySource]:
    async with KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
        yield keys


@pytest.fixture
def verifier(issuer: LoopbackIssuer, keys: KeySource) -> AccessTokenVerifier:
    return AccessTokenVerifier([issuer.row()], keys)


async def refusal(verifier: AccessTokenVerifier, token: str, now: int = NOW) -> EdgeError:
    with pytest.raises(EdgeError) as caught:
        await verifier.verify(token, now=now)
    assert_holds_nothing_of(caught.value, token)
    return caught.value


def assert_holds_nothing_of(error: BaseException, token: str) -> None:
    """Neither the error nor any error behind it holds a long piece of the token, encoded or decoded."""
    secrets = [part for part in token.split(".") if len(part) > 12]
    secrets += [decoded(part) for part in secrets]
    seen: BaseException | None = error
    while seen is not None:
        held = repr((seen.args, vars(seen), str(seen), getattr(seen, "object", ""), getattr(seen, "doc", "")))
        assert not any(secret in held for secret in [token, *secrets] if len(secret) > 12), "an error holds a token"
        seen = seen.__cause__ or seen.__context__


def decoded(part: str) -> str:
    try:
        return urlsafe_b64decode(part + "===").decode(errors="replace")
    except ValueError:
        return ""


# -- good tokens


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
async def test_a_good_token_of_each_algorithm_is_taken(algorithm: str, keys: KeySource) -> None:
    async with LoopbackIssuer(algorithm) as issuer:
        verifier = AccessTokenVerifier([issuer.row()], keys)
        token = await verifier.verify(issuer.token(now=NOW), now=NOW)
    assert (token.issuer, token.subject, token.client, token.session) == (issuer.issuer, "alice", "shop-web", "token-1")
    assert (token.issued, token.expires) == (NOW, NOW + 600 * SECOND)
    assert (token.scope, dict(token.claims), token.tenant, token.acr, token.amr, token.auth_time) == (
        (), {}, None, None, None, None,
    )  # fmt: skip


async def test_all_that_a_token_may_say_is_read(issuer: LoopbackIssuer, keys: KeySource) -> None:
    row = issuer.row(claims={"department": "dept", "level": "level", "groups": "groups"}, tenant_claim="org")
    token = await AccessTokenVerifier([row], keys).verify(
        issuer.token(
            now=NOW, sid="session-1", scope="read write", department="tools", level=3, groups=["a", "b"], org="acme",
            acr="urn:mfa", amr=["pwd", "otp"], auth_time=NOW // SECOND - 60, email="alice@example.org",
        ),
        now=NOW,
    )  # fmt: skip
    assert token.session == "session-1"
    assert token.scope == ("read", "write")
    assert dict(token.claims) == {"dept": "tools", "level": 3, "groups": ("a", "b")}
    assert (token.tenant, token.acr, token.amr, token.auth_time) == (
        "acme",
        "urn:mfa",
        ("pwd", "otp"),
        NOW - 60 * SECOND,
    )
    assert "alice" not in repr(token)


async def test_a_tenant_may_be_fixed_and_a_session_named_otherwise(issuer: LoopbackIssuer, keys: KeySource) -> None:
    row = issuer.row(tenant="acme", session_claim="session_state")
    token = await AccessTokenVerifier([row], keys).verify(
        issuer.token(now=NOW, session_state="s-9", sid="other"), now=NOW
    )
    assert (token.tenant, token.session) == ("acme", "s-9")


@pytest.mark.parametrize(
    ("allowed", "reach"),
    [(None, ("read", "write", "reader", "READ")), (frozenset({"read", "other"}), ("read",)), (frozenset(), ())],
)
async def test_of_an_issuers_scopes_those_reach_the_context_that_its_row_allows(
    issuer: LoopbackIssuer, keys: KeySource, allowed: frozenset[str] | None, reach: tuple[str, ...]
) -> None:
    verifier = AccessTokenVerifier([issuer.row(scopes=allowed)], keys)
    token = await verifier.verify(issuer.token(now=NOW, scope="read write reader READ"), now=NOW)
    assert token.scope == reach


PARTNER = TrustDomain("partner.example")


async def test_a_subject_that_is_its_own_client_acts_for_itself(issuer: LoopbackIssuer, keys: KeySource) -> None:
    ours = AccessTokenVerifier([issuer.row()], keys)
    user = await ours.verify(issuer.token(now=NOW), now=NOW)
    client = await ours.verify(issuer.token(now=NOW, sub="shop-web"), now=NOW)
    assert (user.type, client.type, client.domain) == (None, SubjectType.CLIENT, None)
    for subject in ("shop-web2", "shop-we", "Shop-Web"):
        assert (await ours.verify(issuer.token(now=NOW, sub=subject), now=NOW)).type is None
    theirs = AccessTokenVerifier([issuer.row(domain=PARTNER, client_claim="azp")], keys)
    client = await theirs.verify(issuer.token(now=NOW, sub="shop-web", azp="shop-web", client_id=None), now=NOW)
    assert (client.type, client.domain) == (SubjectType.CLIENT, PARTNER)
    assert (client.subject, client.client) == ("shop-web", "shop-web@partner.example")
    assert (await refusal(theirs, issuer.token(now=NOW))).detail == "azp"


async def test_an_issuer_of_ours_names_nobody_as_a_partner_does(keys: KeySource) -> None:
    async with LoopbackIssuer() as home, LoopbackIssuer() as partner:
        verifier = AccessTokenVerifier([home.row(), partner.row(domain=PARTNER)], keys)
        taken: list[dict[str, Any]] = [{"sub": "mia@partner.example"}, {"client_id": "web@partner.example"}]
        for claims in taken:
            assert (await refusal(verifier, home.token(now=NOW, **claims))).detail.startswith("sub or client")
        for name in ("mia@home.example", "mia@partner.example.org", "mia@my.partner.example", "partner.example"):
            assert (await verifier.verify(home.token(now=NOW, sub=name), now=NOW)).subject == name
        # A partner names its own as it likes: its domain comes after all of it.
        found = await verifier.verify(partner.token(now=NOW, sub="mia@partner.example"), now=NOW)
        assert (found.subject, found.domain) == ("mia@partner.example", PARTNER)


async def test_a_workloads_token_of_oidc_is_taken_as_its_row_says(issuer: LoopbackIssuer, keys: KeySource) -> None:
    ci = issuer.row(
        domain=TrustDomain("ci.example"),
        workloads=True,
        types=frozenset({"jwt", ""}),
        client_claim="repository",
        require={"repository_owner": "acme", "runner_environment": "hosted"},
        claims={"ref": "ref"},
    )
    verifier = AccessTokenVerifier([ci], keys)
    said: dict[str, Any] = {
        "sub": "repo:acme/shop:ref:refs/heads/main", "client_id": None, "jti": None, "ref": "refs/heads/main",
        "repository": "acme/shop", "repository_owner": "acme", "runner_environment": "hosted",
    }  # fmt: skip
    header = {"typ": "JWT", "x5t": "abc"}
    text = issuer.token(now=NOW, header=header, **said)
    build = await verifier.verify(text, now=NOW)
    assert (build.subject, build.type) == (said["sub"], SubjectType.WORKLOAD)
    assert (build.client, dict(build.claims)) == ("acme/shop@ci.example", {"ref": "refs/heads/main"})
    # Without `jti` the session is that of the token.
    again = await verifier.verify(issuer.token(now=NOW, header=header, **said, more=1), now=NOW)
    assert build.session == (await verifier.verify(text, now=NOW)).session != again.session
    ids = [said | {"jti": one, "more": number} for number, one in enumerate("aab")]
    named = [await verifier.verify(issuer.token(now=NOW, header=header, **one), now=NOW) for one in ids]
    assert named[0].session == named[1].session != named[2].session
    # Nor is it another one by another signature, of which anybody can make a second: ECDSA does not say which of two.
    head, _, signature = text.rpartition(".")
    half = urlsafe_b64decode(signature + "==")
    other = half[:32] + (P256_ORDER - int.from_bytes(half[32:])).to_bytes(32)
    malleated = await verifier.verify(f"{head}.{urlsafe_b64encode(other).rstrip(b'=').decode()}", now=NOW)
    assert malleated.session == build.session
    for owner in ("mallory", None, ["acme"], "acme2", "acm", "ACME"):
        assert (
            await refusal(verifier, issuer.token(now=NOW, header=header, **(said | {"repository_owner": owner})))
        ).code == "bad_token"
    elsewhere = issuer.token(now=NOW, header=header, **(said | {"runner_environment": "own"}))
    assert (await refusal(verifier, elsewhere)).code == "bad_token"
    # For others a token has an id, whatever its type.
    user = AccessTokenVerifier([issuer.row(types=frozenset({"jwt"}))], keys)
    assert (await refusal(user, issuer.token(now=NOW, header=header, jti=None))).detail == "jti"


async def test_who_only_asserts_gives_no_access_tokens(issuer: LoopbackIssuer, keys: KeySource) -> None:
    row = issuer.row(domain=PARTNER, audiences=frozenset(), assertion_audience="https://edge.example/token")
    verifier = AccessTokenVerifier([row], keys)
    for audience in (AUDIENCE, "https://edge.example/token"):
        assert (await refusal(verifier, issuer.token(now=NOW, aud=audience))).code == "token_audience"


@pytest.mark.parametrize(
    ("claims", "header"),
    [
        ({"aud": ["https://other.example", AUDIENCE]}, {}),
        ({}, {"typ": "application/at+jwt"}),
        ({}, {"typ": "AT+JWT"}),
        ({}, {"x5t": "abc", "cty": "x"}),
        ({}, {"jk": "abc", "critical": "x", "JKU": "abc"}),
        ({"nbf": NOW // SECOND}, {}),
        ({"nbf": NOW // SECOND + 5}, {}),
    ],
)
async def test_variants_that_are_good(
    claims: dict[str, Any], header: dict[str, Any], issuer: LoopbackIssuer, verifier: AccessTokenVerifier
) -> None:
    assert (await verifier.verify(issuer.token(now=NOW, header=header, **claims), now=NOW)).subject == "alice"


async def test_a_token_without_kid_is_taken_where_one_key_fits(
    issuer: LoopbackIssuer, verifier: AccessTokenVerifier
) -> None:
    issuer.publish(public_jwk(new_key("RS256"), "rsa"))
    assert (await verifier.verify(issuer.token(now=NOW, header={"kid": None}), now=NOW)).subject == "alice"


async def test_a_row_may_take_tokens_of_another_type_or_of_none(issuer: LoopbackIssuer, keys: KeySource) -> None:
    verifier = AccessTokenVerifier([issuer.row(types=frozenset({"jwt", ""}))], keys)
    for typ in ("JWT", None):
        assert (await verifier.verify(issuer.token(now=NOW, header={"typ": typ}), now=NOW)).subject == "alice"
    assert (await refusal(verifier, issuer.token(now=NOW))).detail == "header: typ"


async def test_a_type_is_compared_in_lower_case_and_not_folded(issuer: LoopbackIssuer, keys: KeySource) -> None:
    verifier = AccessTokenVerifier([issuer.row(types=frozenset({"session+jwt"}))], keys)
    assert (await verifier.verify(issuer.token(now=NOW, header={"typ": "Session+JWT"}), now=NOW)).subject == "alice"
    long_s = issuer.token(now=NOW, header={"typ": "\u017fession+jwt"})
    assert (await refusal(verifier, long_s)).detail == "header: typ"


async def test_each_issuer_is_judged_by_its_own_row_and_keys(keys: KeySource) -> None:
    async with LoopbackIssuer() as one, LoopbackIssuer("RS256") as two:
        verifier = AccessTokenVerifier([one.row(), two.row()], keys)
        assert (await verifier.verify(one.token(now=NOW), now=NOW)).issuer == one.issuer
        assert (await verifier.verify(two.token(now=NOW), now=NOW)).issuer == two.issuer
        # Signed by the one, in the name of the other.
        assert (await refusal(verifier, one.token(now=NOW, iss=two.issuer))).detail == "header: alg"
        two.keys["key-1"] = one.keys["key-1"]
        mixed = compact(one.header(), two.claims(now=NOW), signed("ES256", one.keys["key-1"]))
        assert (await refusal(verifier, mixed)).status == 401


def test_an_issuer_has_one_row() -> None:
    issuer = LoopbackIssuer()
    issuer.issuer = "https://idp.example"
    with pytest.raises(ConfigurationError):
        AccessTokenVerifier([issuer.row(), issuer.row()], KeySource(PATIENT, tls=TRUSTS_NOBODY))


async def test_a_token_is_as_long_as_allowed(issuer: LoopbackIssuer, keys: KeySource) -> None:
    token = issuer.token(now=NOW)
    fitting = AccessTokenVerifier([issuer.row()], keys, EdgeLimits(token_bytes=len(token)))
    assert (await fitting.verify(token, now=NOW)).subject == "alice"
    shorter = AccessTokenVerifier([issuer.row()], keys, EdgeLimits(token_bytes=len(token) - 1))
    assert (await refusal(shorter, token)).detail == "too long"


# -- times, to the second


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (NOW + 600 * SECOND - 1, None),
        (NOW + 600 * SECOND, Code.TOKEN_EXPIRED),
        (NOW + 601 * SECOND, Code.TOKEN_EXPIRED),
        (NOW - 5 * SECOND, None),
        (NOW - 5 * SECOND - 1, Code.BAD_TOKEN),
    ],
)
async def test_exp_has_no_leeway_and_iat_has_five_seconds(
    now: int, code: Code | None, issuer: LoopbackIssuer, verifier: AccessTokenVerifier
) -> None:
    token = issuer.token(now=NOW)
    if code is None:
        assert (await verifier.verify(token, now=now)).issued == NOW
    else:
        assert (await refusal(verifier, token, now)).code == code


# -- bad tokens

Bad = Callable[[LoopbackIssuer], str]


def claiming(**claims: Any) -> Bad:
    return lambda issuer: issuer.token(now=NOW, **claims)


def heading(**header: Any) -> Bad:
    return lambda issuer: issuer.token(now=NOW, header=header)


def raw(header: bytes | Mapping[str, Any] | None = None, payload: bytes | Mapping[str, Any] | None = None) -> Bad:
    """A token of exactly these parts, rightly signed."""
    return lambda issuer: compact(
        issuer.header() if header is None else header,
        issuer.claims(now=NOW) if payload is None else payload,
        signed("ES256", issuer.keys["key-1"]),
    )


def repeated(name: str, where: str) -> Bad:
    """A token in whose header or claims `name` occurs twice, the good value last."""

    def make(issuer: LoopbackIssuer) -> str:
        parts = {"header": issuer.header(), "payload": issuer.claims(now=NOW)}
        good = json.dumps(parts[where])
        parts[where] = ("{" + json.dumps(name) + ': "evil", ' + good[1:]).encode()  # type: ignore[assignment]
        return compact(parts["header"], parts["payload"], signed("ES256", issuer.keys["key-1"]))

    return make


def by_public_key(issuer: LoopbackIssuer) -> str:
    """HS256 whose secret is the issuer's public key, as a verifier would have it at hand."""
    secret = issuer.keys["key-1"].as_pem(private=False)  # type: ignore[union-attr] # an EC key
    return compact(
        issuer.header(alg="HS256"),
        issuer.claims(now=NOW),
        lambda data: hmac.digest(secret, data, "sha256"),
    )


def by_jwk_in_header(issuer: LoopbackIssuer) -> str:
    own = new_key()
    return compact(issuer.header(jwk=public_jwk(own, "key-1")), issuer.claims(now=NOW), signed("ES256", own))


def with_signature(change: Callable[[bytes], bytes]) -> Bad:
    return lambda issuer: compact(
        issuer.header(), issuer.claims(now=NOW), lambda data: change(signed("ES256", issuer.keys["key-1"])(data))
    )


def edited(issuer: LoopbackIssuer) -> str:
    """A good token whose claims were exchanged for others."""
    header, _, signature = issuer.token(now=NOW).split(".")
    return ".".join([header, issuer.token(now=NOW, sub="mallory").split(".")[1], signature])


def no_canonical_base64(issuer: LoopbackIssuer) -> str:
    """A good token with unused bits set in its signature's last character: another text for the same bytes."""
    token = issuer.token(now=NOW)
    return token[:-1] + chr(ord(token[-1]) + 1)


BAD: dict[str, tuple[Bad, Code, str]] = {
    # Length and form.
    "1 MB of token": (claiming(pad="x" * 1_000_000), Code.BAD_TOKEN, "too long"),
    "1 MB of no token": (lambda _: "." * 1_000_000, Code.BAD_TOKEN, "too long"),
    "nothing": (lambda _: "", Code.BAD_TOKEN, "form"),
    "opaque": (lambda _: "Ae9xR2rKpQ0", Code.BAD_TOKEN, "form"),
    "two parts": (lambda i: i.token(now=NOW).rpartition(".")[0], Code.BAD_TOKEN, "form"),
    "five parts, as encrypted tokens have": (lambda i: i.token(now=NOW) + ".a.b", Code.BAD_TOKEN, "form"),
    "not ASCII": (lambda i: i.token(now=NOW) + "\u00e9", Code.BAD_TOKEN, "form"),
    "a line break inside": (lambda i: i.token(now=NOW).replace(".", ".\n", 1), Code.BAD_TOKEN, "form"),
    "padding": (lambda i: i.token(now=NOW) + "==", Code.BAD_TOKEN, "form"),
    "another text of the same bytes": (no_canonical_base64, Code.BAD_TOKEN, "form"),
    "header is no JSON": (raw(header=b"not JSON"), Code.BAD_TOKEN, "form"),
    "header is no object": (raw(header=b'["ES256"]'), Code.BAD_TOKEN, "form"),
    "claims are no UTF-8": (raw(payload=b'{"iss": "\xff"}'), Code.BAD_TOKEN, "form"),
    "claims nest too deep": (raw(payload=b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"), Code.BAD_TOKEN, "form"),
    "a number of 5,000 digits": (raw(payload=b'{"iat": ' + b"9" * 5000 + b"}"), Code.BAD_TOKEN, "form"),
    "alg twice": (repeated("alg", "header"), Code.BAD_TOKEN, "form"),
    "iss twice": (repeated("iss", "payload"), Code.BAD_TOKEN, "form"),
    "sub twice": (repeated("sub", "payload"), Code.BAD_TOKEN, "form"),
    # Issuer.
    "unknown issuer": (claiming(iss="https://evil.example"), Code.UNKNOWN_ISSUER, "iss"),
    "no issuer": (claiming(iss=None), Code.UNKNOWN_ISSUER, "iss"),
    "issuer of another type": (lambda i: i.token(now=NOW, iss=[i.issuer]), Code.UNKNOWN_ISSUER, "iss"),
    "issuer with a slash more": (lambda i: i.token(now=NOW, iss=i.issuer + "/"), Code.UNKNOWN_ISSUER, "iss"),
    # Header.
    "alg none": (raw({"alg": "none", "typ": "at+jwt"}), Code.BAD_TOKEN, "header: alg"),
    "alg none without signature": (
        lambda i: compact(i.header(alg="none"), i.claims(now=NOW), lambda _: b""), Code.BAD_TOKEN, "header: alg",
    ),
    "alg nOnE": (heading(alg="nOnE"), Code.BAD_TOKEN, "header: alg"),
    "no alg": (heading(alg=None), Code.BAD_TOKEN, "header: alg"),
    "alg of another type": (heading(alg=["ES256"]), Code.BAD_TOKEN, "header: alg"),
    "alg in lower case": (heading(alg="es256"), Code.BAD_TOKEN, "header: alg"),
    "alg that one of the row begins": (heading(alg="ES256K"), Code.BAD_TOKEN, "header: alg"),
    "alg not of the row": (heading(alg="ES384"), Code.BAD_TOKEN, "header: alg"),
    "HS256 with the public key": (by_public_key, Code.BAD_TOKEN, "header: alg"),
    "typ JWT": (heading(typ="JWT"), Code.BAD_TOKEN, "header: typ"),
    "an ID token's type": (heading(typ=None), Code.BAD_TOKEN, "header: typ"),
    "a type that ours begins": (heading(typ="at+jwt2"), Code.BAD_TOKEN, "header: typ"),
    "typ of another type": (heading(typ=1), Code.BAD_TOKEN, "header: typ"),
    "a DPoP proof": (heading(typ="dpop+jwt"), Code.BAD_TOKEN, "header: typ"),
    "jku": (heading(jku="https://evil.example/jwks"), Code.BAD_TOKEN, "header: jku"),
    "jwk": (by_jwk_in_header, Code.BAD_TOKEN, "header: jwk"),
    "x5u": (heading(x5u="https://evil.example/cert"), Code.BAD_TOKEN, "header: x5u"),
    "x5c": (heading(x5c=["MIIB"]), Code.BAD_TOKEN, "header: x5c"),
    "crit": (heading(crit=["exp"], exp=1), Code.BAD_TOKEN, "header: crit"),
    "b64": (heading(b64=False), Code.BAD_TOKEN, "header: b64"),
    "kid of another type": (heading(kid=7), Code.BAD_TOKEN, "header: kid"),
    "kid too long": (heading(kid="k" * 257), Code.BAD_TOKEN, "header: kid"),
    # Key and signature.
    "unknown kid as long as allowed": (heading(kid="k" * 256), Code.BAD_TOKEN, "no such key of the issuer"),
    "unknown kid": (heading(kid="key-2"), Code.BAD_TOKEN, "no such key of the issuer"),
    "another's key": (lambda i: i.token(now=NOW, key=new_key()), Code.BAD_TOKEN, "signature"),
    "claims exchanged": (edited, Code.BAD_TOKEN, "signature"),
    "one bit of the signature": (with_signature(lambda s: bytes([s[0] ^ 1]) + s[1:]), Code.BAD_TOKEN, "signature"),
    "no signature": (with_signature(lambda _: b""), Code.BAD_TOKEN, "signature"),
    "a signature of zeros": (with_signature(lambda _: bytes(64)), Code.BAD_TOKEN, "signature"),
    "a signature with a tail": (with_signature(lambda s: s + b"\0"), Code.BAD_TOKEN, "signature"),
    # Audience and times.
    "another audience": (claiming(aud="https://other.example"), Code.TOKEN_AUDIENCE, "aud"),
    "an audience that ours begins": (claiming(aud=AUDIENCE + "/v2"), Code.TOKEN_AUDIENCE, "aud"),
    "no audience": (claiming(aud=None), Code.BAD_TOKEN, "aud"),
    "no audiences": (claiming(aud=[]), Code.TOKEN_AUDIENCE, "aud"),
    "audience of another type": (claiming(aud=[AUDIENCE, 1]), Code.BAD_TOKEN, "aud"),
    "expired by a second": (claiming(exp=NOW // SECOND - 1), Code.TOKEN_EXPIRED, "exp"),
    "expired now": (claiming(exp=NOW // SECOND), Code.TOKEN_EXPIRED, "exp"),
    "no exp": (claiming(exp=None), Code.BAD_TOKEN, "exp"),
    "exp is a text": (claiming(exp=str(NOW)), Code.BAD_TOKEN, "exp"),
    "exp is true": (claiming(exp=True), Code.BAD_TOKEN, "exp"),
    "exp is a float": (claiming(exp=NOW / SECOND + 9.5), Code.BAD_TOKEN, "exp"),
    "exp is beyond all time": (claiming(exp=10**400), Code.BAD_TOKEN, "exp"),
    "no iat": (claiming(iat=None), Code.BAD_TOKEN, "iat"),
    "iat is negative": (claiming(iat=-1), Code.BAD_TOKEN, "iat"),
    "iat in the future": (claiming(iat=NOW // SECOND + 6), Code.BAD_TOKEN, "iat is in the future"),
    "nbf in the future": (claiming(nbf=NOW // SECOND + 6), Code.BAD_TOKEN, "nbf is in the future"),
    "bound to a key": (claiming(cnf={"jkt": "abc"}), Code.BAD_TOKEN, "cnf"),
    # Other claims.
    "no sub": (claiming(sub=None), Code.BAD_TOKEN, "sub"),
    "sub is empty": (claiming(sub=""), Code.BAD_TOKEN, "sub"),
    "sub is a number": (claiming(sub=7), Code.BAD_TOKEN, "sub"),
    "sub is too long": (claiming(sub="a" * 257), Code.BAD_TOKEN, "sub"),
    "sub has a control character": (claiming(sub="alice\n"), Code.BAD_TOKEN, "sub"),
    "no client_id": (claiming(client_id=None), Code.BAD_TOKEN, "client_id"),
    "client_id is a list": (claiming(client_id=["a"]), Code.BAD_TOKEN, "client_id"),
    "no jti": (claiming(jti=None), Code.BAD_TOKEN, "jti"),
    "sid is a number": (claiming(sid=1), Code.BAD_TOKEN, "sid"),
    "scope is a number": (claiming(scope=7), Code.BAD_TOKEN, "scope"),
    "scope is a list of a number": (claiming(scope=["read", 7]), Code.BAD_TOKEN, "scope"),
    "scope is a list of two in one": (claiming(scope=["read write"]), Code.BAD_TOKEN, "scope"),
    "scope is a list of nothing": (claiming(scope=["read", ""]), Code.BAD_TOKEN, "scope"),
    "scope is a list of 33": (claiming(scope=["abc"] * 33), Code.BAD_TOKEN, "scope"),
    "scope has two spaces": (claiming(scope="read  write"), Code.BAD_TOKEN, "scope"),
    "scope of 33": (claiming(scope=" ".join("abc" for _ in range(33))), Code.BAD_TOKEN, "scope"),
    "acr is a list": (claiming(acr=["x"]), Code.BAD_TOKEN, "acr"),
    "amr is a text": (claiming(amr="pwd"), Code.BAD_TOKEN, "amr"),
    "amr of another type": (claiming(amr=["pwd", 1]), Code.BAD_TOKEN, "amr"),
    "auth_time is a text": (claiming(auth_time="now"), Code.BAD_TOKEN, "auth_time"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_bad_tokens_are_refused(name: str, issuer: LoopbackIssuer, verifier: AccessTokenVerifier) -> None:
    make, code, detail = BAD[name]
    error = await refusal(verifier, make(issuer))
    assert isinstance(error, TokenRefused)
    assert (error.status, error.error, error.code) == (401, "invalid_token", code)
    assert detail in error.detail


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, (_, _, detail) in BAD.items()
        if detail in {"too long", "form", "iss"} or detail.startswith("header")
    ],
)
async def test_what_is_refused_before_the_key_causes_no_fetch(
    name: str, issuer: LoopbackIssuer, verifier: AccessTokenVerifier
) -> None:
    await refusal(verifier, BAD[name][0](issuer))
    assert issuer.requests == []


async def test_a_tenant_that_the_row_needs_must_be_there(issuer: LoopbackIssuer, keys: KeySource) -> None:
    verifier = AccessTokenVerifier([issuer.row(tenant_claim="org")], keys)
    assert (await refusal(verifier, issuer.token(now=NOW))).detail == "org"


async def test_a_token_whose_kid_names_a_key_of_another_kind_is_refused(keys: KeySource) -> None:
    async with LoopbackIssuer() as issuer:
        issuer.keys["rsa"] = new_key("RS256")
        issuer.publish()
        verifier = AccessTokenVerifier([issuer.row(algorithms=frozenset({"ES256", "RS256"}))], keys)
        token = issuer.token(now=NOW, header={"kid": "rsa"}, key=issuer.keys["key-1"])
        assert (await refusal(verifier, token)).detail == "no such key of the issuer"


async def test_a_key_that_does_not_fit_is_never_verified_with(
    issuer: LoopbackIssuer, verifier: AccessTokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = new_key("ES384")

    async def chosen(*_: object, **__: object) -> object:
        return wrong

    monkeypatch.setattr(KeySource, "key", chosen)
    assert (await refusal(verifier, issuer.token(now=NOW, key=wrong))).detail == "signature"


@given(
    st.text(max_size=60)
    | st.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}", fullmatch=True)
)
async def test_any_text_is_refused_by_a_token_error(text: str) -> None:
    verifier = AccessTokenVerifier([], KEYS_OF_NOBODY)
    assert (await refusal(verifier, text)).status == 401

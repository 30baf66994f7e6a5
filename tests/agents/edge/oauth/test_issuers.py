"""Rows of the issuer table: what an operator can and cannot say."""

from __future__ import annotations

from typing import Any

import pytest

from sealbus.agents.edge.oauth.client_authentication import ClientSecret
from sealbus.agents.edge.oauth.issuers import (
    ACCESS_TOKEN_TYPES,
    ALGORITHMS,
    IntrospectionEndpoint,
    Issuer,
    is_secure_url,
)
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import TrustDomain

PARTNER = TrustDomain("partner.example")
ASKED = IntrospectionEndpoint("https://idp.example/introspect", ClientSecret("edge", "secret"))


def row(**changes: Any) -> Issuer:
    return Issuer(**{"issuer": "https://idp.example", "audiences": frozenset({"https://edge.example"}), **changes})


def test_a_row_needs_an_issuer_and_an_audience_and_is_strict_by_default() -> None:
    issuer = row()
    assert issuer.types == ACCESS_TOKEN_TYPES == {"at+jwt", "application/at+jwt"}
    assert issuer.algorithms == {"ES256", "RS256"}
    assert (issuer.jwks_uri, dict(issuer.claims), issuer.session_claim) == (None, {}, "sid")


def test_a_row_does_not_change_with_the_map_it_was_made_from() -> None:
    claims = {"dept": "dept"}
    issuer = row(claims=claims)
    claims["email"] = "email"
    assert dict(issuer.claims) == {"dept": "dept"}
    assert hash(issuer) == hash(row(claims={"dept": "dept"}))


def test_of_a_partners_scopes_none_is_known_unless_the_row_says_so() -> None:
    assert row().scopes is None
    assert row(domain=PARTNER).scopes == frozenset[str]()
    assert row(domain=PARTNER, scopes=frozenset({"read"})).scopes == frozenset({"read"})


def test_clients_can_ask_those_whose_access_tokens_are_taken() -> None:
    assertions = {"domain": PARTNER, "assertion_audience": "https://edge.example/token"}
    assert row().grants
    assert row(**assertions).grants
    assert not row(**assertions, audiences=frozenset()).grants
    assert not row(domain=PARTNER, workloads=True).grants


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "http://idp.example"},
        {"issuer": "https://idp.example?tenant=1"},
        {"issuer": "https://idp.example#a"},
        {"issuer": "https://idp.example/" + "a" * 256},
        {"issuer": ""},
        {"audiences": frozenset()},
        {"audiences": frozenset({""})},
        {"algorithms": frozenset()},
        {"algorithms": frozenset({"ES256", "none"})},
        {"algorithms": frozenset({"HS256"})},
        {"algorithms": frozenset({"EdDSA"})},
        {"jwks_uri": "http://idp.example/jwks"},
        {"jwks_uri": "http://127.0.0.1/jwks"},
        {"types": frozenset()},
        {"types": frozenset({"JWT"})},
        {"claims": {"": "a"}},
        {"claims": {"a": ""}},
        {"claims": {"a": "x" * 257}},
        {"claims": {"a": "same", "b": "same"}},
        {"claims": {"a": "door"}},
        {"claims": {f"claim-{number}": f"claim-{number}" for number in range(33)}},
        {"session_claim": ""},
        {"tenant_claim": "org", "tenant": "acme"},
        {"tenant_claim": ""},
        {"tenant": "a\nb"},
        {"scopes": frozenset({""})},
        {"scopes": frozenset({"read write"})},
        {"workloads": True},
        {"client_claim": ""},
        {"client_claim": "sub"},
        {"require": {"": "a"}},
        {"require": {"a": ""}},
        {"require": {"a": "x" * 257}},
        {"assertion_audience": "https://edge.example/token"},
        {"assertion_audience": "", "domain": PARTNER},
        {"assertion_audience": "https://edge.example", "domain": PARTNER},
        {"assertion_audience": "https://edge.example/token", "domain": PARTNER, "workloads": True},
        {"assertion_audience": "https://edge.example/token", "domain": PARTNER, "introspection": ASKED},
        {"audiences": frozenset(), "domain": PARTNER},
    ],
)
def test_what_cannot_be_right_is_a_configuration_error(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        row(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithms": ALGORITHMS},
        {"claims": {f"claim-{number}": f"claim-{number}" for number in range(32)}},
        {"tenant": "acme"},
        {"scopes": frozenset()},
        {"domain": PARTNER, "require": {"owner": "acme"}, "client_claim": "azp"},
        {"domain": PARTNER, "workloads": True, "client_claim": "sub"},
        {"audiences": frozenset(), "domain": PARTNER, "assertion_audience": "https://edge.example/token"},
        {"scopes": frozenset({"read", "write"})},
        {"tenant_claim": "org"},
        {"types": frozenset({"jwt", ""})},
        {"jwks_uri": "https://keys.example/jwks?v=1"},
    ],
)
def test_all_that_an_operator_may_say(change: dict[str, Any]) -> None:
    made = row(**change)
    assert {name: getattr(made, name) for name in change} == change


def test_an_issuer_on_loopback_may_have_its_keys_there() -> None:
    issuer = row(issuer="http://127.0.0.1:8080/development-only", jwks_uri="http://127.0.0.1:8080/jwks")
    assert issuer.jwks_uri is not None
    with pytest.raises(ConfigurationError):
        row(issuer="http://127.0.0.1:8080", jwks_uri="http://192.0.2.1/jwks")


@pytest.mark.parametrize(
    ("url", "secure"),
    [
        ("https://idp.example", True),
        ("https://idp.example:8443/a/b?c=d", True),
        ("https://[2001:db8::1]/jwks", True),
        ("http://127.0.0.1:9000", True),
        ("http://127.8.9.1", True),
        ("http://[::1]:9000/a", True),
        ("http://localhost:9000", True),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://192.0.2.1", False),
        ("http://user@127.0.0.1", False),
        ("http://127.0.0.1\\@evil.example", False),
        ("https://user:secret@idp.example", False),
        ("https://idp.example#a", False),
        ("https://idp.example\n", False),
        ("https://idp.example/ a", False),
        ("https://idp.\u00e9xample", False),
        ("https://", False),
        ("HTTPS://idp.example", False),
        ("ftp://127.0.0.1", False),
        ("file:///etc/passwd", False),
    ],
)
def test_secure_urls(url: str, secure: bool) -> None:
    assert is_secure_url(url) is secure
    assert is_secure_url(url, plain=False) is (secure and url.startswith("https:"))

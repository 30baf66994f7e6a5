from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.workload_api import StandingClock

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.certificates import BACKDATED
from sealbus.agents.dev.workload_api.jwt_keys import KeyRing, TokenError
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

HOME, AWAY = TrustDomain("example.org"), TrustDomain("other.org")
ME = HOME.id("/agent/planner")


@pytest.fixture
def clock() -> StandingClock:
    """The authority's clock."""
    return StandingClock()


@pytest.fixture
def authority(clock: StandingClock) -> DevelopmentAuthority:
    """An authority of example.org."""
    return DevelopmentAuthority(HOME, clock=clock)


def test_leaf_is_an_x509_svid(authority: DevelopmentAuthority, clock: StandingClock) -> None:
    """X509-SVID.md section 4, and what verifiers want beyond it."""
    svid = authority.issue_x509(ME, dns_names=["planner.local"], ttl=60)
    leaf = x509.load_der_x509_certificate(svid.chain[0])
    ca = authority.x509.current.certificate
    leaf.verify_directly_issued_by(ca)
    assert leaf.subject != ca.subject
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(ME)]
    assert names.get_values_for_type(x509.DNSName) == ["planner.local"]
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    assert set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    }
    assert leaf.not_valid_before_utc.timestamp() == clock() // SECOND - BACKDATED
    assert leaf.not_valid_after_utc.timestamp() == clock() // SECOND + 60 == svid.not_after // SECOND


def test_ca_is_one(authority: DevelopmentAuthority) -> None:
    """Signs certificates and nothing else, and is named after its trust domain only."""
    ca = authority.x509.current.certificate
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = ca.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://example.org"]


def test_each_svid_has_its_own_key(authority: DevelopmentAuthority) -> None:
    """Rotation replaces the key too."""
    assert authority.issue_x509(ME, ttl=60).key != authority.issue_x509(ME, ttl=60).key
    assert repr(authority.issue_x509(ME, ttl=60)).count("key=") == 0


def test_jwk_set_is_spires(authority: DevelopmentAuthority) -> None:
    """EC keys with `kid`, without `use`, without any private member."""
    (key,) = json.loads(authority.jwt_bundle())["keys"]
    assert set(key) == {"kty", "kid", "crv", "x", "y"}
    assert (key["kty"], key["crv"]) == ("EC", "P-256")


@pytest.mark.parametrize("kind", ["x509", "jwt"])
def test_rotation_overlaps(authority: DevelopmentAuthority, kind: str) -> None:
    """Published before it signs, trusted until it is pruned; each step is told of."""
    heard: list[int] = []
    end = authority.on_change(lambda: heard.append(1))
    ring: KeyRing[object] = getattr(authority, kind)
    first = ring.current
    getattr(authority, f"prepare_{kind}")()
    second = ring.prepared
    assert (ring.current, ring.trusted) == (first, (first, second))
    with pytest.raises(ValueError, match="already"):
        getattr(authority, f"prepare_{kind}")()
    getattr(authority, f"activate_{kind}")()
    assert (ring.current, ring.prepared, ring.trusted) == (second, None, (second, first))
    with pytest.raises(ValueError, match="no key"):
        getattr(authority, f"activate_{kind}")()
    getattr(authority, f"prune_{kind}")()
    assert ring.trusted == (second,)
    assert len(heard) == 3
    end()
    getattr(authority, f"prepare_{kind}")()
    assert len(heard) == 3


def test_bundles_follow_the_keys(authority: DevelopmentAuthority) -> None:
    """What is trusted is what is handed out."""
    authority.prepare_x509()
    authority.prepare_jwt()
    assert len(authority.x509_bundle()) == 2
    assert [key["kid"] for key in json.loads(authority.jwt_bundle())["keys"]] == [
        key.kid for key in authority.jwt.trusted
    ]


def test_foreign_ids_are_refused(authority: DevelopmentAuthority) -> None:
    """An authority vouches for its own trust domain only."""
    foreign = SpiffeId("spiffe://other.org/agent/planner")
    with pytest.raises(ConfigurationError):
        authority.issue_x509(foreign, ttl=60)
    with pytest.raises(ConfigurationError):
        authority.issue_jwt(foreign, ["a"], ttl=60)


def test_check_accepts_what_was_issued(authority: DevelopmentAuthority, clock: StandingClock) -> None:
    """`ValidateJWTSVID`: subject and claims, here or in a federated trust domain."""
    away = DevelopmentAuthority(AWAY, clock=clock)
    there = AWAY.id("/agent/partner")
    token = away.issue_jwt(there, ["orders"], ttl=60).token
    with pytest.raises(TokenError):
        authority.check(token, "orders")
    end = authority.federate(away)
    assert authority.check(token, "orders")["sub"] == str(there)
    assert set(authority.jwt_bundles()) == set(authority.x509_bundles()) == {HOME, AWAY}
    end()
    end()
    with pytest.raises(TokenError):
        authority.check(token, "orders")
    claims = authority.check(authority.issue_jwt(ME, ["orders"], ttl=60).token, "orders")
    assert claims == {"aud": ["orders"], "sub": str(ME), "iat": clock() // SECOND, "exp": clock() // SECOND + 60}


def test_check_refuses_everything_else(authority: DevelopmentAuthority, clock: StandingClock) -> None:
    """Another audience, an expired one, a changed one, another key's, a foreign subject, no token at all."""
    good = authority.issue_jwt(ME, ["orders"], ttl=60).token
    head, claims, signature = good.split(".")
    away = DevelopmentAuthority(AWAY, clock=clock)
    authority.federate(away)
    away._own = lambda spiffe_id: None  # type: ignore[method-assign]
    pretended = away.issue_jwt(ME, ["orders"], ttl=60).token
    none = urlsafe_b64encode(b'{"alg":"none","kid":"x"}').rstrip(b"=").decode()
    changed = urlsafe_b64encode(urlsafe_b64decode(claims + "==").replace(b"planner", b"planned")).rstrip(b"=").decode()
    for token in (
        "",
        "a.b.c",
        f"{head}.{claims}.",
        f"{head}.{changed}.{signature}",
        f"{none}.{claims}.{signature}",
        f"{good}.x",
        pretended,
        "é.é.é",
    ):
        with pytest.raises(TokenError):
            authority.check(token, "orders")
    with pytest.raises(TokenError):
        authority.check(good, "order")
    clock.advance(61)
    with pytest.raises(TokenError):
        authority.check(good, "orders")


def test_a_trust_domain_does_not_federate_with_itself(authority: DevelopmentAuthority) -> None:
    """It would merge two bundles of one name."""
    with pytest.raises(ValueError, match="itself"):
        authority.federate(DevelopmentAuthority(HOME))

from __future__ import annotations

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.identity.jwt_svid import read_jwt_bundles
from sealbus.envelopes.trust.bundles import TrustBundles
from sealbus.envelopes.trust.spiffe_id import TrustDomain

HOME, AWAY = TrustDomain("example.org"), TrustDomain("other.org")


def jwks(name: str = "example.org") -> bytes:
    return DevelopmentAuthority(TrustDomain(name)).jwt_bundle()


def test_bundles_are_kept_by_trust_domain() -> None:
    """Two trust domains, two bundles, never merged; their bytes are kept as they came."""
    home, away = jwks(), jwks()
    reading = read_jwt_bundles({"spiffe://example.org": home, "spiffe://other.org": away}, TrustBundles())
    assert reading.changed
    assert reading.refused == ()
    assert {name: bundle.jwks for name, bundle in reading.bundles.items()} == {HOME: home, AWAY: away}
    assert set(reading.bundles[HOME].keys).isdisjoint(reading.bundles[AWAY].keys)


def test_the_same_bytes_are_no_change() -> None:
    """Nothing is parsed again, and nobody is told."""
    given = {"spiffe://example.org": jwks()}
    first = read_jwt_bundles(given, TrustBundles())
    again = read_jwt_bundles(given, first.bundles)
    assert not again.changed
    assert again.bundles[HOME] is first.bundles[HOME]


def test_a_refused_bundle_leaves_the_old_one_of_its_trust_domain_only() -> None:
    """The other trust domain's goes on changing; a first one that is refused is not there at all."""
    before = read_jwt_bundles({"spiffe://example.org": jwks(), "spiffe://other.org": jwks()}, TrustBundles()).bundles
    key = jwks().removeprefix(b'{"keys":[').removesuffix(b"]}")
    repeated = b'{"keys":[' + key + b"," + key + b"]}"
    after = read_jwt_bundles({"spiffe://example.org": repeated, "spiffe://other.org": jwks()}, before)
    assert after.bundles[HOME] is before[HOME]
    assert after.bundles[AWAY] is not before[AWAY]
    assert len(after.refused) == 1
    assert after.changed
    assert HOME not in read_jwt_bundles({"spiffe://example.org": repeated}, TrustBundles()).bundles


def test_absence_is_redaction() -> None:
    """SPIFFE_Workload_API.md section 4.4: what is not named any more is not trusted any more."""
    before = read_jwt_bundles({"spiffe://example.org": jwks(), "spiffe://other.org": jwks()}, TrustBundles()).bundles
    after = read_jwt_bundles({"spiffe://example.org": before[HOME].jwks}, before)
    assert after.changed
    assert list(after.bundles) == [HOME]


def test_a_name_that_is_no_trust_domain_is_refused() -> None:
    """It cannot shadow one that is."""
    reading = read_jwt_bundles({"spiffe://Example.org": jwks(), "spiffe://example.org": jwks()}, TrustBundles())
    assert list(reading.bundles) == [HOME]
    assert len(reading.refused) == 1

"""Trust over time: which bundle a key is looked for in, and when."""

from __future__ import annotations

import pytest
from support.log_world import bundle

from sealbus.envelopes.export.trust import LATE, ArchivedBundle, TrustArchive
from sealbus.envelopes.trust.bundles import JwtBundle, TrustBundles
from sealbus.envelopes.trust.spiffe_id import TrustDomain

OWN, OTHER = TrustDomain("example.org"), TrustDomain("partner.example")
HOUR = 60 * LATE


def of(since: int, *kids: str, domain: TrustDomain = OWN) -> ArchivedBundle:
    return ArchivedBundle(since, JwtBundle.parse(domain, bundle(*kids)))


ARCHIVE = TrustArchive([of(HOUR, "a"), of(2 * HOUR, "a", "b"), of(3 * HOUR, "b"), of(4 * HOUR, "c")])


def keys(trust: TrustBundles) -> str:
    return "".join(kid for kid in "abc" if trust.key(OWN, kid) is not None)


@pytest.mark.parametrize(
    ("time", "known"),
    [
        (0, "abc"),
        (HOUR, "abc"),
        (3 * HOUR - 1, "abc"),
        (3 * HOUR, "abc"),
        (3 * HOUR + LATE - 1, "abc"),
        (3 * HOUR + LATE, "bc"),
        (4 * HOUR + LATE - 1, "bc"),
        (4 * HOUR + LATE, "c"),
        (9 * HOUR, "c"),
    ],
)
def test_a_key_is_found_from_the_beginning_until_it_was_taken_away(time: int, known: str) -> None:
    assert keys(ARCHIVE.at(time)) == known


@pytest.mark.parametrize(
    ("time", "known"),
    [(0, "a"), (2 * HOUR - 1, "a"), (2 * HOUR, "ab"), (3 * HOUR, "b"), (4 * HOUR, "c"), (9 * HOUR, "c")],
)
def test_what_was_current_is_one_bundle_of_each_trust_domain(time: int, known: str) -> None:
    assert keys(ARCHIVE.current(time)) == known
    assert set(ARCHIVE.current(time)) == {OWN}


def test_the_current_bundle_is_what_it_shows() -> None:
    assert set(ARCHIVE.at(3 * HOUR + LATE)[OWN].keys) == {"b"}
    assert ARCHIVE.at(3 * HOUR + LATE) is ARCHIVE.at(3 * HOUR + 2 * LATE)


def test_of_two_keys_of_one_name_the_current_one_counts() -> None:
    jwks = [bundle("a"), bundle("b").replace(b'"kid": "b"', b'"kid": "a"')]
    archive = TrustArchive(ArchivedBundle(n * HOUR, JwtBundle.parse(OWN, one)) for n, one in enumerate(jwks))
    first, second = (JwtBundle.parse(OWN, one).keys["a"] for one in jwks)
    for time, expected in ((0, first), (HOUR, second), (HOUR + LATE, second)):
        found = archive.at(time).key(OWN, "a")
        assert found is not None
        assert found.is_same(expected)


def test_a_bundle_that_claims_to_be_earlier_than_the_one_before_is_not() -> None:
    archive = TrustArchive([of(HOUR, "a"), of(5 * HOUR, "b"), of(2 * HOUR, "c")])
    assert [since for since, _ in archive] == [0, 5 * HOUR, 5 * HOUR]
    assert set(archive.at(5 * HOUR)[OWN].keys) == {"c"}


def test_trust_domains_are_never_pooled() -> None:
    archive = TrustArchive([of(0, "a"), of(0, "b", domain=OTHER)])
    assert archive.at(0).key(OTHER, "a") is None
    assert archive.at(0).key(OWN, "b") is None
    assert len(archive) == 2
    with pytest.raises(KeyError):
        archive.at(0).key(TrustDomain("third.example"), "a")


def test_what_is_added_counts_at_once() -> None:
    archive = TrustArchive([of(0, "a")])
    assert keys(archive.at(HOUR)) == "a"
    archive.add(of(HOUR, "b"))
    assert keys(archive.at(HOUR)) == "ab"
    assert [one.bundle for one in TrustArchive(archive)] == [one.bundle for one in archive]

"""Which bundles a message of some time must open under."""

from __future__ import annotations

import pytest

from sealbus.envelopes.errors import BundleRefused
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.trust.spiffe_id import TrustDomain

OWN, OTHER = TrustDomain("example.org"), TrustDomain("other.example")


def record(kids: str, current: int, domain: TrustDomain = OWN) -> BundleRecord:
    return BundleRecord(trust_domain=domain, current=current, jwt=jwks(kids))


def jwks(kids: str) -> bytes:
    keys = ",".join(JWK.replace("KID", kid) for kid in kids)
    return f'{{"keys":[{keys}]}}'.encode()


JWK = (
    '{"kty":"EC","crv":"P-256","kid":"KID","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",'
    '"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}'
)


def found(history: TrustHistory, time: int, domain: TrustDomain = OWN) -> list[str]:
    return ["".join(sorted(bundles[domain].keys)) for bundles in history.at(time)]


def test_the_one_in_force_and_the_next() -> None:
    history = TrustHistory([record("a", 10), record("ab", 20), record("b", 30)])
    assert found(history, 0) == ["a", "ab"]
    assert found(history, 10) == ["a", "ab"]
    assert found(history, 19) == ["a", "ab"]
    assert found(history, 20) == ["ab", "b"]
    assert found(history, 30) == found(history, 31) == ["b"]


def test_trust_domains_change_each_for_itself() -> None:
    history = TrustHistory([record("a", 10), record("x", 15, OTHER), record("ab", 20)])
    assert found(history, 12) == ["a", "ab"]
    assert found(history, 12, OTHER) == ["x", "x"]
    assert found(history, 25, OTHER) == ["x"]


def test_records_are_added_in_any_order_and_once() -> None:
    history = TrustHistory([record("b", 30), record("a", 10)])
    assert found(history, 10) == ["a", "b"]
    assert history.add(record("ab", 20))
    assert not history.add(record("ab", 20))
    assert found(history, 10) == ["a", "ab"]
    last = history.last(OWN)
    assert last is not None
    assert last.current == 30
    assert history.last(OTHER) is None
    assert history.trust_domains == (OWN,)


def test_nothing_is_known() -> None:
    assert TrustHistory().at(5) == ()


def test_a_misshapen_bundle_is_refused_and_changes_nothing() -> None:
    history = TrustHistory()
    with pytest.raises(BundleRefused):
        history.add(BundleRecord(trust_domain=OWN, current=1, jwt=b"{}"))
    assert history.at(5) == ()


def test_what_is_needed_from_a_time_on_answers_as_the_whole_does() -> None:
    records = [record("a", 10), record("x", 15, OTHER), record("ab", 20), record("b", 30), record("bc", 30, OTHER)]
    whole = TrustHistory(records)
    assert TrustHistory().since(0) == ()
    for time in range(40):
        needed = whole.since(time)
        assert list(needed) == sorted(needed, key=lambda one: one.current)
        part = TrustHistory(needed)
        for later in range(time, 40):
            assert [found(part, later, domain) for domain in (OWN, OTHER)] == [
                found(whole, later, domain) for domain in (OWN, OTHER)
            ]
    assert [one.current for one in whole.since(0)] == [10, 15, 20, 30, 30]
    assert [one.current for one in whole.since(20)] == [15, 20, 30, 30]
    assert [one.current for one in whole.since(100)] == [30, 30]


def test_what_is_not_retained_is_forgotten() -> None:
    history = TrustHistory([record("a", 10), record("ab", 20), record("x", 15, OTHER), record("b", 30)])
    assert found(history, 25) == ["ab", "b"]
    history.retain([record("a", 10), record("b", 30), record("never", 40)])
    assert found(history, 25) == ["a", "b"]
    assert history.trust_domains == (OWN,)
    assert history.add(record("ab", 20))

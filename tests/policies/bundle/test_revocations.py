"""Revocations by time, as a policy's data holds them."""

from __future__ import annotations

import pytest
from support.policies import bundle

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.check import check_bundle
from sealbus.policies.bundle.revocations import issued_before
from sealbus.policies.lint.module import PolicyRefused


def data(document: Json) -> dict[str, Json]:
    return {"sealbus": {"registry": {"issued_before": document}}}


def test_times_by_id() -> None:
    found = issued_before(data({"spiffe://example.org/agent/a": 1_795_528_800_000_000}))
    assert found == {SpiffeId("spiffe://example.org/agent/a"): 1_795_528_800_000_000}


@pytest.mark.parametrize("without", [{}, {"sealbus": {}}, {"sealbus": {"registry": {"users": {}}}}])
def test_none(without: dict[str, Json]) -> None:
    assert issued_before(without) == {}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"sealbus": []}, "no object"),
        ({"sealbus": {"registry": 1}}, "no object"),
        (data([]), "no object"),
        (data({"spiffe://example.org/agent/a": "2026-11-24T00:00:00Z"}), "microseconds"),
        (data({"spiffe://example.org/agent/a": True}), "microseconds"),
        (data({"spiffe://example.org/agent/a": -1}), "microseconds"),
        (data({"agent/a": 1}), "no SPIFFE ID"),
    ],
)
def test_what_cannot_be_understood_is_no_policy(document: dict[str, Json], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        issued_before(document)
    with pytest.raises(PolicyRefused, match=r"data\.json: .*\[revocation\]"):
        check_bundle(bundle(data=document))

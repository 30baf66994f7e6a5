from __future__ import annotations

from sealbus.agents.edge.http.admission import Admission
from sealbus.bus.telemetry import Counters


def _admission(counters: Counters | None = None) -> Admission:
    return Admission(whole=6, of_network=4, of_address=2, counters=counters or Counters(), listener="edge.address")


def test_an_address_a_network_and_all_have_their_bounds() -> None:
    counters = Counters()
    admission = _admission(counters)
    refused = {"listener": "edge.address"}
    assert all(admission.enter("192.0.2.1") for _ in range(2))
    assert admission.enter("192.0.2.1") is None
    assert all(admission.enter("192.0.2.2") for _ in range(2))
    assert admission.enter("192.0.2.3") is None
    assert all(admission.enter(host) for host in ("198.51.100.1", "2001:db8::1"))
    assert admission.enter("203.0.113.1") is None
    assert counters.value("sealbus_edge_connections_total", listener="edge.address") == 6
    for bound in ("address", "network", "whole"):
        assert counters.value("sealbus_edge_connections_refused_total", bound=bound, **refused) == 1


def test_an_ipv6_network_counts_as_one_address() -> None:
    admission = _admission()
    assert all(admission.enter(host) for host in ("2001:db8::1", "2001:db8::2"))
    assert admission.enter("2001:db8::3") is None
    assert all(admission.enter(f"2001:db8:0:{number}::1") for number in (1, 2))
    assert admission.enter("2001:db8:0:3::1") is None


def test_a_place_is_given_back_once() -> None:
    admission = _admission()
    leave = admission.enter("192.0.2.1")
    assert leave is not None
    assert admission.enter("192.0.2.1") is not None
    leave()
    leave()
    assert admission.enter("192.0.2.1") is not None
    assert admission.enter("192.0.2.1") is None


def test_metrics_show_before_anything_is_refused() -> None:
    counters = Counters()
    _admission(counters)
    assert 'sealbus_edge_connections_refused_total{bound="address",listener="edge.address"} 0' in counters.render()

"""Who is on the other side of a connection: one workload of the trust domain, or nobody."""

from __future__ import annotations

import ssl
from typing import Any, cast

import pytest
from support.x509 import ThrowawayCa

from sealbus.agents.edge.http.peer import Peer, peer_of
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

DOMAIN = TrustDomain("example.org")
CA = ThrowawayCa("example.org")


class Shaken:
    """A TLS connection after its handshake, with the peer's certificate, whatever that is."""

    def __init__(self, certificate: bytes | None, named: dict[str, Any] | None) -> None:
        self._certificate = certificate
        self._named = named

    def getpeercert(self, *, binary_form: bool = False) -> bytes | dict[str, Any] | None:
        return self._certificate if binary_form else self._named

    def as_tls(self) -> ssl.SSLObject:
        return cast("ssl.SSLObject", self)


NAMED = {"notAfter": "Jan  1 00:00:00 2030 GMT"}


def test_a_workload_of_the_domain_is_known_until_its_certificate_ends() -> None:
    svid = CA.issue("spiffe://example.org/agent/web")
    peer = peer_of(Shaken(svid.cert_der, NAMED).as_tls(), DOMAIN)
    assert peer == Peer(spiffe_id=SpiffeId("spiffe://example.org/agent/web"), expires=1_893_456_000_000_000)


@pytest.mark.parametrize(
    "uri",
    ["spiffe://other.org/agent/web", "spiffe://example.org", "https://example.org/web", "spiffe://example.org/a/../b"],
)
def test_any_other_name_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"SPIFFE ID|another trust domain"):
        peer_of(Shaken(CA.issue(uri).cert_der, NAMED).as_tls(), DOMAIN)


@pytest.mark.parametrize("domain", ["example.orgs", "example.or", "n.example.org"])
def test_a_workload_of_nearly_the_domain_is_refused(domain: str) -> None:
    svid = CA.issue(f"spiffe://{domain}/agent/web")
    with pytest.raises(ValueError, match="another trust domain"):
        peer_of(Shaken(svid.cert_der, NAMED).as_tls(), DOMAIN)


@pytest.mark.parametrize(
    "shaken",
    [
        Shaken(None, None),
        Shaken(None, NAMED),
        Shaken(CA.issue("spiffe://example.org/agent/web").cert_der, None),
        Shaken(CA.issue("spiffe://example.org/agent/web").cert_der, {}),  # what `ssl` gives for one it did not verify
    ],
)
def test_a_certificate_that_was_not_verified_is_none(shaken: Shaken) -> None:
    with pytest.raises(ValueError, match="no certificate"):
        peer_of(shaken.as_tls(), DOMAIN)


def test_a_connection_without_tls_has_no_peer() -> None:
    with pytest.raises(ValueError, match="no certificate"):
        peer_of(None, DOMAIN)

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from cryptography import x509
from spiffe._proto import workload_pb2 as proto
from support.x509 import IssuedSvid, ThrowawayCa

from sealbus.agents.dev.workload_api import certificates
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.identity.x509_svid import SvidError, parse_domain, read_x509
from sealbus.envelopes.errors import EnvelopeError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

ME = "spiffe://example.org/agent/planner"
OTHER = "spiffe://example.org/agent/other"
CA = ThrowawayCa("example.org")
FOREIGN = ThrowawayCa("other.org")
OTHER_ORG = TrustDomain("other.org")


def now() -> int:
    return int(time.time()) * SECOND


def one(svid: IssuedSvid, *, bundle: bytes = CA.cert_der, spiffe_id: str = "") -> proto.X509SVID:
    return proto.X509SVID(
        spiffe_id=spiffe_id or svid.spiffe_id, x509_svid=svid.cert_der, x509_svid_key=svid.key_der, bundle=bundle
    )


def response(*svids: proto.X509SVID, federated: dict[str, bytes] | None = None) -> proto.X509SVIDResponse:
    return proto.X509SVIDResponse(svids=svids, federated_bundles=federated or {})


def test_material_is_what_was_given() -> None:
    """Chain, key, times and own bundle, as bytes that TLS can use; the key is not shown."""
    svid = CA.issue(ME)
    material = read_x509(response(one(svid)), now=now()).material
    assert material.spiffe_id == SpiffeId(ME)
    assert material.chain == (svid.cert_der,)
    assert material.key == svid.key_der
    assert dict(material.bundles) == {TrustDomain("example.org"): (CA.cert_der,)}
    assert (material.not_before, material.not_after) == (svid.not_before, svid.not_after)
    assert repr(svid.key_der) not in repr(material)


def test_the_first_identity_is_the_default_and_another_can_be_wanted() -> None:
    """SPIFFE_Workload_API.md section 8."""
    both = response(one(CA.issue(ME)), one(CA.issue(OTHER)))
    assert str(read_x509(both, now=now()).material.spiffe_id) == ME
    assert str(read_x509(both, wanted=SpiffeId(OTHER), now=now()).material.spiffe_id) == OTHER


REFUSED: dict[str, Callable[[], proto.X509SVIDResponse]] = {
    "none": response,
    "not wanted": lambda: response(one(CA.issue(OTHER))),
    "two URI names": lambda: response(one(CA.issue(ME, uris=[ME, OTHER]))),
    "the same URI name twice": lambda: response(one(CA.issue(ME, uris=[ME, ME]))),
    "no name": lambda: response(one(CA.issue(ME, uris=[]))),
    "another name": lambda: response(one(CA.issue(ME, uris=[OTHER]))),
    "no SPIFFE ID": lambda: response(one(CA.issue(ME), spiffe_id=f"{ME}\n")),
    "a CA": lambda: response(one(CA.issue(ME, authority=True))),
    "expired": lambda: response(one(CA.issue(ME, life=-3600, age=7200))),
    "not valid yet": lambda: response(one(CA.issue(ME, age=-60))),
    "of another CA": lambda: response(one(ThrowawayCa("example.org").issue(ME))),
    "of a federated CA": lambda: response(one(FOREIGN.issue(ME)), federated={"spiffe://other.org": FOREIGN.cert_der}),
    "another key": lambda: response(
        proto.X509SVID(
            spiffe_id=ME, x509_svid=CA.issue(ME).cert_der, x509_svid_key=CA.issue(ME).key_der, bundle=CA.cert_der
        )
    ),
    "no key": lambda: response(
        proto.X509SVID(spiffe_id=ME, x509_svid=CA.issue(ME).cert_der, x509_svid_key=b"", bundle=CA.cert_der)
    ),
    "no chain": lambda: response(
        proto.X509SVID(spiffe_id=ME, x509_svid=b"", x509_svid_key=CA.issue(ME).key_der, bundle=CA.cert_der)
    ),
    "no bundle": lambda: response(one(CA.issue(ME), bundle=b"")),
    "a bundle of anything": lambda: response(one(CA.issue(ME), bundle=b"\x30\x03abc")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_peers_would_refuse_is_refused(name: str) -> None:
    """Each rule of X509-SVID.md section 5 alone."""
    wanted = SpiffeId(ME) if name == "not wanted" else None
    with pytest.raises(SvidError):
        read_x509(REFUSED[name](), wanted=wanted, now=now())


@pytest.mark.parametrize(
    ("signs", "certifies", "lists"),
    [(False, False, False), (True, True, False), (True, False, True)],
    ids=["may not sign", "may certify", "may sign revocation lists"],
)
def test_key_usage_is_a_leafs(monkeypatch: pytest.MonkeyPatch, signs: bool, certifies: bool, lists: bool) -> None:
    """X509-SVID.md section 4.3: `digitalSignature`, and neither `keyCertSign` nor `cRLSign`."""
    authority = DevelopmentAuthority(TrustDomain("example.org"))
    usage = x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=True,
        key_cert_sign=certifies,
        crl_sign=lists,
        encipher_only=False,
        decipher_only=False,
    )
    monkeypatch.setattr(certificates, "_key_usage", lambda signs_certificates: usage)
    svid = authority.issue_x509(SpiffeId(ME), ttl=60)
    given = proto.X509SVID(
        spiffe_id=ME, x509_svid=svid.chain[0], x509_svid_key=svid.key, bundle=authority.x509_bundle()[0]
    )
    with pytest.raises(SvidError, match="not a leaf that may sign"):
        read_x509(response(given), now=now())


def test_a_leaf_is_no_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    """X509-SVID.md section 4.1: `cA` is false, whatever the key usage says."""
    authority, constraints = DevelopmentAuthority(TrustDomain("example.org")), x509.BasicConstraints
    with monkeypatch.context() as patched:
        patched.setattr(x509, "BasicConstraints", lambda ca, path_length: constraints(ca=True, path_length=None))
        svid = authority.issue_x509(SpiffeId(ME), ttl=60)
    given = proto.X509SVID(
        spiffe_id=ME, x509_svid=svid.chain[0], x509_svid_key=svid.key, bundle=authority.x509_bundle()[0]
    )
    with pytest.raises(SvidError, match="not a leaf that may sign"):
        read_x509(response(given), now=now())


def test_federated_bundles_are_kept_apart() -> None:
    """Each under its own trust domain; the own one is untouched by a federated entry of its name."""
    reading = read_x509(
        response(
            one(CA.issue(ME)),
            federated={"spiffe://other.org": FOREIGN.cert_der, "spiffe://example.org": FOREIGN.cert_der},
        ),
        now=now(),
    )
    assert dict(reading.material.bundles) == {
        TrustDomain("example.org"): (CA.cert_der,),
        OTHER_ORG: (FOREIGN.cert_der,),
    }
    assert reading.refused == ("X.509 bundle of example.org: given as a federated bundle too",)


def test_a_key_of_another_svid_is_refused_by_name() -> None:
    with pytest.raises(SvidError, match=rf"the key given with the X.509-SVID of {ME} does not belong to it"):
        read_x509(REFUSED["another key"](), now=now())


def test_a_refused_federated_bundle_leaves_the_old_one() -> None:
    """And one that is absent is gone."""
    before = {OTHER_ORG: (FOREIGN.cert_der,)}
    broken = response(one(CA.issue(ME)), federated={"spiffe://other.org": b"nonsense", "no trust domain": b""})
    reading = read_x509(broken, before=before, now=now())
    assert reading.material.bundles[OTHER_ORG] == (FOREIGN.cert_der,)
    assert len(reading.refused) == 2
    assert OTHER_ORG not in read_x509(broken, now=now()).material.bundles
    assert OTHER_ORG not in read_x509(response(one(CA.issue(ME))), before=before, now=now()).material.bundles


@pytest.mark.parametrize(
    "name", ["", "example.org", "spiffe://", "spiffe://Example.org", "spiffe://a/b", "spiffe://a\n"]
)
def test_only_the_spiffe_id_of_a_trust_domain_names_one(name: str) -> None:
    """No folding and no guessing."""
    with pytest.raises(EnvelopeError):
        parse_domain(name)

"""Who connects: one SPIFFE ID, vouched for by its own trust domain, or a refusal with its own code."""

from __future__ import annotations

import base64
import time

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from support.x509 import IssuedSvid, ThrowawayCa

from sealbus.agents.control.callout.peer import verify_peer
from sealbus.envelopes.errors import Code, ConnectRefused
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import TrustDomain

OURS, THEIRS = ThrowawayCa("example.org"), ThrowawayCa("partner.org")
BUNDLES = {TrustDomain(ca.trust_domain): (ca.cert_der,) for ca in (OURS, THEIRS)}
ID = "spiffe://example.org/agent/shop"


def now() -> int:
    return int(time.time() * SECOND)


def chain(svid: IssuedSvid, ca: ThrowawayCa) -> list[str]:
    return [svid.cert_pem.decode(), ca.cert_pem.decode()]


def refused(*chains: list[str], at: int | None = None) -> Code:
    with pytest.raises(ConnectRefused) as caught:
        verify_peer(chains, BUNDLES, now=now() if at is None else at)
    return caught.value.code


def test_a_workload_of_ours() -> None:
    svid = OURS.issue(ID)
    peer = verify_peer([chain(svid, OURS)], BUNDLES, now=now())
    assert (str(peer.spiffe_id), peer.not_after) == (ID, svid.not_after)


def test_a_workload_of_a_federated_trust_domain() -> None:
    svid = THEIRS.issue("spiffe://partner.org/agent/buyer")
    assert str(verify_peer([chain(svid, THEIRS)], BUNDLES, now=now()).spiffe_id) == "spiffe://partner.org/agent/buyer"


def test_no_certificate() -> None:
    assert refused() is Code.NO_CLIENT_CERTIFICATE


def test_a_federated_authority_in_our_name() -> None:
    """The server verifies this chain, for it trusts both authorities."""
    assert refused(chain(THEIRS.issue(ID), THEIRS)) is Code.WRONG_AUTHORITY


def test_our_root_behind_their_leaf() -> None:
    """Said by a server that lies, or was misled: the chain is verified here as well."""
    assert refused(chain(THEIRS.issue(ID), OURS)) is Code.WRONG_AUTHORITY


def test_several_chains_of_which_one_is_of_our_root() -> None:
    svid = OURS.issue(ID)
    verify_peer([chain(svid, THEIRS), chain(svid, OURS)], BUNDLES, now=now())
    verify_peer([chain(svid, OURS), chain(svid, THEIRS)], BUNDLES, now=now())
    other = chain(OURS.issue(ID), OURS)
    assert refused(chain(svid, OURS), other, chain(svid, OURS)) is Code.BAD_SVID
    assert refused(chain(THEIRS.issue(ID), THEIRS), chain(THEIRS.issue(ID), OURS)) is Code.BAD_SVID


@pytest.mark.parametrize("uris", [(), (ID, "spiffe://example.org/agent/other"), (ID, "https://example.org"), (ID, ID)])
def test_not_exactly_one_uri(uris: tuple[str, ...]) -> None:
    assert refused(chain(OURS.issue(ID, uris=uris), OURS)) is Code.NOT_ONE_URI


@pytest.mark.parametrize(
    "uri", ["https://example.org/agent/shop", "spiffe://Example.org/x", "spiffe://example.org/a b", "spiffe://x/../y"]
)
def test_a_uri_that_is_no_spiffe_id(uri: str) -> None:
    assert refused(chain(OURS.issue(ID, uris=[uri]), OURS)) is Code.BAD_SVID


def test_an_authority_is_no_workload() -> None:
    assert refused(chain(OURS.issue(ID, authority=True), OURS)) is Code.BAD_SVID


@pytest.mark.parametrize(
    ("sign", "certify", "revoke", "code"),
    [
        (False, False, False, Code.BAD_SVID),
        (True, True, False, Code.BAD_SVID),
        (True, False, True, Code.BAD_SVID),
        (True, False, False, None),
    ],
)
def test_a_key_that_may_sign_and_nothing_that_an_authority_may(
    sign: bool, certify: bool, revoke: bool, code: Code | None
) -> None:
    usage = x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certify,
        crl_sign=revoke,
        encipher_only=False,
        decipher_only=False,
    )
    shown = chain(OURS.issue(ID, usage=usage), OURS)
    if code is None:
        verify_peer([shown], BUNDLES, now=now())
        # An authority stays one, whatever its key is said to be for.
        for last in (False, True):
            authority = OURS.issue(ID, usage=usage, authority=True, constraints_last=last)
            assert refused(chain(authority, OURS)) is Code.BAD_SVID
    else:
        assert refused(shown) is code


def test_a_certificate_without_key_usage() -> None:
    """A bare leaf of the CA itself: no name at all."""
    assert refused([OURS.cert_pem.decode()]) is Code.BAD_SVID


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate(text: str) -> None:
    assert refused([text]) is Code.BAD_SVID


def test_a_trust_domain_that_we_have_no_bundle_of() -> None:
    strangers = ThrowawayCa("strangers.org")
    svid = strangers.issue("spiffe://strangers.org/agent/x")
    assert refused(chain(svid, strangers)) is Code.UNKNOWN_TRUST_DOMAIN


def test_an_expired_certificate_and_one_that_is_about_to() -> None:
    svid = OURS.issue(ID, life=60)
    assert refused(chain(svid, OURS), at=svid.not_after) is Code.SVID_EXPIRED
    assert refused(chain(svid, OURS), at=svid.not_after - SECOND // 2) is Code.SVID_EXPIRED
    verify_peer([chain(svid, OURS)], BUNDLES, now=svid.not_after - SECOND)


def test_a_certificate_that_is_not_valid_yet() -> None:
    svid = OURS.issue(ID, age=-600)
    assert refused(chain(svid, OURS)) is Code.WRONG_AUTHORITY


def test_the_bundle_that_counts_is_the_one_of_now() -> None:
    svid = OURS.issue(ID)
    later = {TrustDomain("example.org"): (ThrowawayCa("example.org").cert_der,)}
    with pytest.raises(ConnectRefused) as caught:
        verify_peer([chain(svid, OURS)], later, now=now())
    assert caught.value.code is Code.WRONG_AUTHORITY


def test_what_is_refused_says_nothing_of_the_certificate() -> None:
    with pytest.raises(ConnectRefused) as caught:
        verify_peer([chain(THEIRS.issue(ID), THEIRS)], BUNDLES, now=now())
    assert "BEGIN" not in str(caught.value)


# A changed serial number may be negative, which the parser warns of.
STRANGE = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")


@STRANGE
@given(st.binary(max_size=200))
def test_any_certificate_is_a_workload_or_one_error(raw: bytes) -> None:
    text = "-----BEGIN CERTIFICATE-----\n" + base64.b64encode(raw).decode() + "\n-----END CERTIFICATE-----\n"
    with pytest.raises(ConnectRefused):
        verify_peer([[text]], BUNDLES, now=now())


LEAF = OURS.issue(ID)


@STRANGE
@given(st.integers(min_value=0, max_value=len(LEAF.cert_der) - 1), st.integers(min_value=1, max_value=255))
def test_a_certificate_with_any_signed_byte_changed_is_refused(at: int, change: int) -> None:
    changed = bytearray(LEAF.cert_der)
    changed[at] ^= change
    text = "-----BEGIN CERTIFICATE-----\n" + base64.b64encode(changed).decode() + "\n-----END CERTIFICATE-----\n"
    try:
        verify_peer([[text, OURS.cert_pem.decode()]], BUNDLES, now=now())
    except ConnectRefused:
        return
    # A signature does not cover its own encoding: how many bits of its last byte are unused may differ.
    signed = x509.load_der_x509_certificate(LEAF.cert_der).tbs_certificate_bytes
    assert x509.load_der_x509_certificate(bytes(changed)).tbs_certificate_bytes == signed

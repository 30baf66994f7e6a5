"""The handshake proves both sides by SPIFFE ID, in memory: no socket, the real `ssl`."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.identity import StaticIdentity
from support.x509 import IssuedSvid, ThrowawayCa

from sealbus.bus.nats.connection.tls import SpiffeContext, WrongPeer, client_context, server_context, spiffe_id_of
from sealbus.bus.ports import X509Material
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

SERVER = "spiffe://example.org/nats/server"
CLIENT = "spiffe://example.org/agent/a"
CA = ThrowawayCa("example.org")
OTHER = ThrowawayCa("other.org")
EXPECTED = frozenset({SpiffeId(SERVER)})


def material(*, federated: tuple[ThrowawayCa, ...] = ()) -> X509Material:
    return StaticIdentity(CA, CLIENT, federated=federated).x509()


def shake_hands(
    client: ssl.SSLContext, server: IssuedSvid, folder: Path, *, version: ssl.TLSVersion | None = None
) -> str:
    """Shake hands with a server that has `server`'s certificate; return the client's SPIFFE ID as the server saw it."""
    pem = folder / f"{server.certificate.serial_number}.pem"
    pem.write_bytes(server.cert_pem + server.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=CA.cert_der)
    if version is not None:
        context.maximum_version = version
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_side=False, server_hostname="localhost")
    theirs = context.wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for side in (ours, theirs):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
    assert ours.version() == "TLSv1.3"
    return spiffe_id_of(theirs.getpeercert(binary_form=True) or b"")


def test_both_sides_are_proved(tmp_path: Path) -> None:
    context = client_context(material(), expected=EXPECTED)
    assert shake_hands(context, CA.issue(SERVER), tmp_path) == CLIENT
    several = client_context(material(), expected=EXPECTED | {SpiffeId("spiffe://example.org/nats/b")})
    assert shake_hands(several, CA.issue("spiffe://example.org/nats/b"), tmp_path) == CLIENT


@pytest.mark.parametrize(
    ("uris", "words"),
    [
        (["spiffe://example.org/agent/evil"], "the server is spiffe://example.org/agent/evil, expected"),
        ([SERVER, SERVER], "2 URI names"),
        ([SERVER, "https://example.org"], "2 URI names"),
        ([], "no subject alternative name"),
        ([SERVER + "/"], "the server is"),
        ([SERVER.upper()], "the server is"),
    ],
)
def test_another_server_of_the_same_authority(tmp_path: Path, uris: Sequence[str], words: str) -> None:
    with pytest.raises(WrongPeer, match=words):
        shake_hands(client_context(material(), expected=EXPECTED), CA.issue(SERVER, uris=uris), tmp_path)


def test_a_certificate_authority_is_no_server(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(client_context(material(), expected=EXPECTED), CA.issue(SERVER, authority=True), tmp_path)
    with pytest.raises(ValueError, match="authority"):
        spiffe_id_of(CA.issue(SERVER, authority=True).cert_der)


def test_a_federated_authority_cannot_name_our_server(tmp_path: Path) -> None:
    """`spiffe-tls` merges all bundles, and would accept this one."""
    context = client_context(material(federated=(OTHER,)), expected=EXPECTED)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"self-signed|unable to get"):
        shake_hands(context, OTHER.issue(SERVER), tmp_path)


def test_an_expired_server(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(client_context(material(), expected=EXPECTED), CA.issue(SERVER, life=-10), tmp_path)


def test_tls_1_2_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol|version"):
        shake_hands(
            client_context(material(), expected=EXPECTED), CA.issue(SERVER), tmp_path, version=ssl.TLSVersion.TLSv1_2
        )


def test_an_anchor_need_not_be_self_signed(tmp_path: Path) -> None:
    """A SPIFFE bundle may hold an intermediate authority alone."""
    middle = CA.issue("spiffe://example.org/ca", authority=True, organization="middle")
    below = ThrowawayCa("example.org", above=middle)
    given = replace(material(), bundles={TrustDomain("example.org"): (middle.cert_der,)})
    assert shake_hands(client_context(given, expected=EXPECTED), below.issue(SERVER), tmp_path) == CLIENT


def test_expected_ids_are_of_one_trust_domain() -> None:
    both = EXPECTED | {SpiffeId("spiffe://other.org/nats/server")}
    for expected in (both, frozenset[SpiffeId]()):
        with pytest.raises(ConfigurationError, match="one trust domain"):
            client_context(material(federated=(OTHER,)), expected=expected)
    with pytest.raises(ConfigurationError, match=r"no X\.509 bundle of other\.org"):
        client_context(material(), expected=frozenset({SpiffeId("spiffe://other.org/nats/server")}))


def test_what_cannot_be_loaded() -> None:
    for broken in (
        replace(material(), chain=(b"junk",)),
        replace(material(), key=b"junk"),
        replace(material(), key=CA.issue(CLIENT).key_der),
        replace(material(), bundles={TrustDomain("example.org"): (b"junk",)}),
    ):
        with pytest.raises(ConfigurationError, match="cannot be loaded"):
            client_context(broken, expected=EXPECTED)


def test_the_key_is_never_on_disk_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "memfd_create"):
        pytest.skip("memfd_create is Linux's")
    paths: list[str] = []
    before = set(Path("/proc/self/fd").iterdir())
    load = ssl.SSLContext.load_cert_chain

    def note(self: ssl.SSLContext, path: str, **rest: str) -> None:
        paths.append(str(Path(path).readlink()))
        load(self, path, **rest)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", note)
    client_context(material(), expected=EXPECTED)
    assert len(paths) == 1
    assert paths[0].startswith("/memfd:")
    assert len(set(Path("/proc/self/fd").iterdir())) == len(before)


def test_elsewhere_it_is_encrypted_and_gone_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    seen: list[tuple[Path, bytes, int]] = []
    load = ssl.SSLContext.load_cert_chain

    def note(self: ssl.SSLContext, path: str, **rest: str) -> None:
        seen.append((Path(path), Path(path).read_bytes(), Path(path).stat().st_mode & 0o777))
        load(self, path, **rest)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", note)
    context = client_context(material(), expected=EXPECTED)
    monkeypatch.undo()
    path, content, mode = seen[0]
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in content
    assert b"BEGIN PRIVATE KEY" not in content
    assert mode == 0o600
    assert not path.exists()
    assert shake_hands(context, CA.issue(SERVER), tmp_path) == CLIENT


def test_without_a_certificate_or_a_context_of_ours_nothing_passes() -> None:
    context = SpiffeContext(EXPECTED)
    with pytest.raises(WrongPeer, match="no certificate"):
        context.check_peer(None)
    with pytest.raises(WrongPeer, match=r"not an X\.509-SVID"):
        context.check_peer(b"junk")


def test_a_server_wants_certificates_of_one_trust_domain_only() -> None:
    context = server_context(material(), trust_domain=TrustDomain("example.org"))
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.num_tickets == 0
    with pytest.raises(ConfigurationError, match=r"no X.509 bundle of other\.org"):
        server_context(material(), trust_domain=TrustDomain("other.org"))

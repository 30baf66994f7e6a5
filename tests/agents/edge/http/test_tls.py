"""Certificates of the edge's listeners: each handshake shows the newest, and a half-written pair changes nothing."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Literal

import pytest
from support.identity import StaticIdentity
from support.x509 import IssuedSvid, ThrowawayCa

from sealbus.agents.edge.http.tls import RotatingContext, file_context, listener_tls, svid_context
from sealbus.agents.runtime.settings.schema import ConsoleTable, EdgeTable
from sealbus.bus.nats.connection.tls import client_context
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

EDGE = "spiffe://example.org/edge"
WEB = "spiffe://example.org/agent/web"
CA = ThrowawayCa("example.org")
OTHER = ThrowawayCa("other.org")
DOMAIN = TrustDomain("example.org")


def shake_hands(client: ssl.SSLContext, server: RotatingContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Shake hands in memory; return both sides."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(to_client, to_server, server_side=False, server_hostname="localhost")
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for side in (theirs, ours):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
    return theirs, ours


def shown(server: RotatingContext) -> bytes | None:
    """Return the certificate that `server` shows to anybody."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    return shake_hands(anybody, server)[0].getpeercert(binary_form=True)


def write(folder: Path, svid: IssuedSvid, *, key: IssuedSvid | None = None) -> tuple[Path, Path]:
    """Replace the two files, as a tool that renews certificates does."""
    paths = folder / "edge.crt", folder / "edge.key"
    for path, pem in zip(paths, (svid.cert_pem, (key or svid).key_pem), strict=True):
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_bytes(pem)
        fresh.replace(path)
    return paths


def test_files_are_read_again_when_they_were_replaced(tmp_path: Path) -> None:
    first, second = CA.issue(EDGE), CA.issue(EDGE)
    context = file_context(*write(tmp_path, first))
    assert shown(context) == first.cert_der
    write(tmp_path, second)
    assert shown(context) == second.cert_der
    # Once, not at each handshake.
    assert context._current() is context._current()


def test_a_pair_that_does_not_fit_leaves_the_last_good_one_in_use(tmp_path: Path) -> None:
    first, second = CA.issue(EDGE), CA.issue(EDGE)
    certificate, key = write(tmp_path, first)
    context = file_context(certificate, key)
    write(tmp_path, second, key=first)
    assert shown(context) == first.cert_der
    key.unlink()
    assert shown(context) == first.cert_der
    write(tmp_path, second)
    assert shown(context) == second.cert_der


def times(counters: Counters) -> dict[str, float]:
    """Return what is shown of certificates."""
    rows = [line.split() for line in counters.render().splitlines() if line.startswith("sealbus_certificate_")]
    return {name.removeprefix("sealbus_certificate_"): float(value) for name, value in rows}


def life(listener: str, svid: IssuedSvid) -> dict[str, float]:
    return {
        f'issued_timestamp_seconds{{listener="{listener}"}}': svid.not_before / 1_000_000,
        f'expiry_timestamp_seconds{{listener="{listener}"}}': svid.not_after / 1_000_000,
    }


@pytest.mark.parametrize("listener", ["edge", "console"])
def test_when_the_certificate_in_use_ends_is_shown(tmp_path: Path, listener: Literal["edge", "console"]) -> None:
    """Without a handshake, and by no path; a pair that cannot be used changes nothing."""
    first, second = CA.issue(EDGE), CA.issue(EDGE, life=7200.0, age=120.0)
    certificate, key = write(tmp_path, first)
    table = (EdgeTable if listener == "edge" else ConsoleTable)(certificate=certificate, key=key)
    counters = Counters()
    assert listener_tls(listener, table, counters=counters) is not None
    assert times(counters) == life(listener, first)
    write(tmp_path, second, key=first)
    assert times(counters) == life(listener, first)
    write(tmp_path, second)
    assert times(counters) == life(listener, second)
    assert life(listener, first) != life(listener, second)
    certificate.unlink()
    assert times(counters) == life(listener, second)


def test_a_chain_shows_the_end_of_its_first_certificate(tmp_path: Path) -> None:
    leaf, other = CA.issue(EDGE), CA.issue(EDGE, life=60.0)
    certificate, key = write(tmp_path, leaf)
    certificate.write_bytes(leaf.cert_pem + other.cert_pem)
    counters = Counters()
    listener_tls("edge", EdgeTable(certificate=certificate, key=key), counters=counters)
    assert times(counters) == life("edge", leaf)


def test_a_listener_without_a_certificate_shows_none() -> None:
    counters = Counters()
    assert listener_tls("console", ConsoleTable(), counters=counters) is None
    assert times(counters) == {}


@pytest.mark.parametrize(
    ("mode", "good"), [(0o600, True), (0o440, True), (0o640, True), (0o644, False), (0o620, False)]
)
def test_a_key_that_everybody_can_use_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, *, good: bool
) -> None:
    """At the start, and when it is replaced by such a one: then the last good one stays, and the log says why."""
    first, second = CA.issue(EDGE), CA.issue(EDGE)
    certificate, key = write(tmp_path, first)
    context = file_context(certificate, key)
    write(tmp_path, second)
    key.chmod(mode)
    assert shown(context) == (second if good else first).cert_der
    assert ("can be used by everybody" in caplog.text) != good
    if not good:
        with pytest.raises(ConfigurationError, match=rf"edge\.key .* \(mode {mode:04o}\): chmod 600 it"):
            file_context(certificate, key)


def test_files_that_cannot_be_used_at_the_start_are_a_mistake_of_the_settings(tmp_path: Path) -> None:
    certificate, key = write(tmp_path, CA.issue(EDGE), key=CA.issue(EDGE))
    with pytest.raises(ConfigurationError, match=r"edge\.certificate"):
        file_context(certificate, key)
    with pytest.raises(ConfigurationError, match="No such file"):
        file_context(certificate, tmp_path / "absent.key")


@pytest.mark.parametrize(
    ("address", "plaintext", "allowed"),
    [("127.0.0.1:0", False, True), ("192.0.2.1:0", False, False), ("192.0.2.1:0", True, True)],
)
def test_a_listener_without_tls_that_others_reach_needs_a_proxy_that_does_it(
    address: str, *, plaintext: bool, allowed: bool
) -> None:
    table = EdgeTable(address=address, plaintext=plaintext)
    if allowed:
        assert listener_tls("edge", table, counters=Counters()) is None
        return
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1 is not loopback"):
        listener_tls("edge", table, counters=Counters())


def test_the_public_listener_speaks_nothing_older_than_tls_1_2(tmp_path: Path) -> None:
    context = file_context(*write(tmp_path, CA.issue(EDGE)))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shake_hands(old, context)


def test_the_token_service_shows_the_svid_of_now_and_wants_one_of_its_domain() -> None:
    edge, web = StaticIdentity(CA, EDGE), StaticIdentity(CA, WEB)
    server = svid_context(edge, DOMAIN)
    expected = frozenset({SpiffeId(EDGE)})
    theirs, ours = shake_hands(client_context(web.x509(), expected=expected), server)
    assert ours.getpeercert(binary_form=True) == web.x509().chain[0]
    before = theirs.getpeercert(binary_form=True)
    assert before == edge.x509().chain[0]
    edge.renew(3600)
    after = shake_hands(client_context(web.x509(), expected=expected), server)[0].getpeercert(binary_form=True)
    assert after == edge.x509().chain[0] != before


def test_nobody_of_another_ca_and_nobody_without_a_certificate_gets_in() -> None:
    server = svid_context(StaticIdentity(CA, EDGE), DOMAIN)
    stranger = StaticIdentity(OTHER, "spiffe://other.org/agent/web", federated=(CA,))
    with pytest.raises(ssl.SSLError):
        shake_hands(client_context(stranger.x509(), expected=frozenset({SpiffeId(EDGE)})), server)
    with pytest.raises(ssl.SSLError):
        shown(server)


def test_without_an_svid_a_handshake_fails_and_the_next_one_is_tried() -> None:
    edge = StaticIdentity(CA, EDGE)
    server = svid_context(edge, DOMAIN)
    edge.material = None
    with pytest.raises(ssl.SSLError, match=r"no X\.509-SVID"):
        server.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    edge.renew(3600)
    assert server.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True) is not None

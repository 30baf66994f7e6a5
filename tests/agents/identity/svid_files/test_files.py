from __future__ import annotations

import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from support.identity import StaticIdentity
from support.x509 import ThrowawayCa

from sealbus.agents.identity.svid_files.files import SvidFiles
from sealbus.bus.ports import X509Material
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import TrustDomain

HOME, PARTNER = "example.org", "partner.org"
CA, FOREIGN = ThrowawayCa(HOME), ThrowawayCa(PARTNER)


def material() -> X509Material:
    """A new SVID at each call."""
    found = StaticIdentity(CA, "spiffe://example.org/nats/server", federated=(FOREIGN,)).material
    assert found is not None
    return found


@pytest.fixture
def files(tmp_path: Path) -> SvidFiles:
    made = SvidFiles(tmp_path / "svid")
    made.prepare()
    return made


def read(folder: Path) -> tuple[list[bytes], object, list[bytes]]:
    """Return chain and bundle as DER, and the public key of the private one."""
    chain, bundle = (
        [one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(data)]
        for data in ((folder / "svid.pem").read_bytes(), (folder / "bundle.pem").read_bytes())
    )
    return chain, load_pem_private_key((folder / "svid.key").read_bytes(), None).public_key(), bundle


def test_what_is_written_is_the_svid_of_now(files: SvidFiles) -> None:
    for given in (material(), material()):
        files.write(given)
        chain, key, bundle = read(files.folder)
        assert chain == list(given.chain)
        assert key == x509.load_der_x509_certificate(given.chain[0]).public_key()
        assert bundle == [CA.cert_der]


def test_the_key_is_the_owners_alone_whatever_the_umask(files: SvidFiles) -> None:
    before = os.umask(0)
    try:
        files.write(material())
    finally:
        os.umask(before)
    assert stat.S_IMODE((files.folder / "svid.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(files.folder.stat().st_mode) == 0o700


def test_a_federated_authority_is_trusted_only_if_that_was_said(tmp_path: Path) -> None:
    files = SvidFiles(tmp_path / "svid", also_trusted=[TrustDomain(PARTNER)])
    files.prepare()
    files.write(material())
    assert read(files.folder)[2] == [CA.cert_der, FOREIGN.cert_der]


def test_a_trust_domain_without_a_bundle_is_not_trusted_and_keeps_nothing_back(tmp_path: Path) -> None:
    """A federation that has ended must not end our own server's certificate, too."""
    files = SvidFiles(tmp_path / "svid", also_trusted=[TrustDomain(PARTNER)])
    files.prepare()
    assert files.write(material()) == ()
    alone = replace(material(), bundles={TrustDomain(HOME): (CA.cert_der,)})
    assert files.write(alone) == (TrustDomain(PARTNER),)
    chain, _, bundle = read(files.folder)
    assert (chain, bundle) == (list(alone.chain), [CA.cert_der])


def test_a_reader_of_one_set_never_sees_parts_of_two(files: SvidFiles) -> None:
    """Chain and key always fit, for whoever opens the current set once, however often it is replaced meanwhile."""
    files.write(material())
    done, seen, wrong = threading.Event(), 0, []

    def reader() -> None:
        nonlocal seen
        while not done.is_set():
            folder = os.open(files.folder / ".current", os.O_RDONLY | os.O_DIRECTORY)
            try:
                found = read(Path(f"/proc/self/fd/{folder}"))
            except FileNotFoundError:
                continue  # two rotations later: whoever is that slow looks again
            finally:
                os.close(folder)
            if found[1] != x509.load_der_x509_certificate(found[0][0]).public_key():
                wrong.append(found)
            seen += 1

    thread = threading.Thread(target=reader)
    thread.start()
    try:
        for _ in range(100):
            files.write(material())
    finally:
        done.set()
        thread.join()
    assert wrong == []
    assert seen > 10


def test_only_the_current_set_and_the_one_before_are_kept(files: SvidFiles) -> None:
    for _ in range(5):
        files.write(material())
    left = sorted(path.name for path in files.folder.glob(".set-*"))
    assert len(left) == 2
    assert str((files.folder / ".current").readlink()) in left


def test_leftovers_of_a_crash_are_removed(files: SvidFiles) -> None:
    files.write(material())
    (files.folder / ".set-dead").mkdir()
    (files.folder / ".set-dead" / "svid.key").write_text("half")
    (files.folder / ".set-beef.link").symlink_to(".set-dead")
    files.write(material())
    assert not (files.folder / ".set-dead").exists()
    assert not os.path.lexists(files.folder / ".set-beef.link")


def test_a_failure_leaves_the_set_before_and_no_key_behind(files: SvidFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write(material())
    before, names = read(files.folder), sorted(files.folder.iterdir())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ConfigurationError, match="No space left"):
            files.write(material())
    assert read(files.folder) == before
    assert sorted(files.folder.iterdir()) == names


def test_withdrawn_nothing_is_left(files: SvidFiles) -> None:
    files.write(material())
    files.write(material())
    files.withdraw()
    assert not any((files.folder / name).exists() for name in ("svid.pem", "svid.key", "bundle.pem"))
    assert list(files.folder.glob(".set-*")) == []
    files.withdraw()
    files.write(material())
    assert read(files.folder)[0]


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(ConfigurationError, match="only this user may write to"):
        SvidFiles(open_to_all).prepare()
    link = tmp_path / "link"
    link.symlink_to(open_to_all)
    with pytest.raises(ConfigurationError):
        SvidFiles(link).prepare()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        SvidFiles(tmp_path / "file").prepare()


def test_files_of_somebody_else_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "svid.key").write_text("mine")
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigurationError, match="not from this command"):
        SvidFiles(tmp_path).prepare()
    assert (tmp_path / "svid.key").read_text() == "mine"

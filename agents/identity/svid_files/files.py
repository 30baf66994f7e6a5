"""An X.509-SVID as PEM files, for servers that do not speak SPIFFE: chain, key and bundle change together.

::

    DIR/svid.pem    -> .current/svid.pem        the chain, leaf first
    DIR/svid.key    -> .current/svid.key        its private key, PKCS#8, mode 0600
    DIR/bundle.pem  -> .current/bundle.pem      the authorities to trust
    DIR/.current    -> .set-<random>            replaced by rename

A reader that resolves a path of DIR sees whole files. A reader that opens `.current` once and reads from that folder sees
files that belong together: the set before the current one stays until the next rotation.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sealbus.agents.files import PRIVATE, PUBLIC, create_file, file_errors
from sealbus.bus.ports import X509Material
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import TrustDomain

_WRITTEN_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


class SvidFiles:
    """The files of one identity in `folder`. The caller ensures that there is one writer at a time.

    `bundle.pem` holds the X.509 authorities of the SVID's own trust domain and of `also_trusted`. A server cannot tell them
    apart: a federated authority could then issue an SVID for one of our IDs (nats-server does not bind a trust domain to its
    bundle). Use `also_trusted` only for a server whose clients' chains are checked again, as an auth callout does.
    """

    def __init__(self, folder: Path, *, also_trusted: Iterable[TrustDomain] = ()) -> None:
        self.folder: Final = folder.absolute()
        self._also_trusted = tuple(also_trusted)

    def prepare(self) -> None:
        """Make the folder, mode 0700; raise `ConfigurationError` if others may write to it, or it cannot be used."""
        with file_errors(f"{self.folder} cannot be used"):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & _WRITTEN_BY_OTHERS:
                raise ConfigurationError(f"{self.folder}: a folder that only this user may write to is needed")
            for name in ("svid.pem", "svid.key", "bundle.pem"):
                self._link(self.folder / name, f".current/{name}")

    def write(self, material: X509Material) -> tuple[TrustDomain, ...]:
        """Put `material` in force for readers from now on, durably.

        Returns the trust domains of `also_trusted` that have no bundle now, and so are not trusted: our own SVID is renewed
        nevertheless. Raises `ConfigurationError` if writing fails; then the set before stays in force.
        """
        untrusted = tuple(domain for domain in self._also_trusted if domain not in material.bundles)
        contents = {
            "svid.pem": (pem_certificates(material.chain), PUBLIC),
            "svid.key": (pem_key(material.key), PRIVATE),
            "bundle.pem": (pem_certificates(self._anchors(material)), PUBLIC),
        }
        new_set = self.folder / f".set-{secrets.token_hex(8)}"
        try:
            before = self._current()
            new_set.mkdir(mode=0o700)
            for name, (content, mode) in contents.items():
                create_file(new_set / name, content, mode=mode)
            _sync(new_set)
            self._swap(new_set.name)
            self._remove_all_but(new_set.name, before)
        except OSError as error:
            shutil.rmtree(new_set, ignore_errors=True)
            raise ConfigurationError(f"{self.folder} cannot be written to: {error.strerror}") from error
        return untrusted

    def withdraw(self) -> None:
        """Remove chain, key and bundle, because the Workload API withdrew the identity of this workload."""
        with file_errors(f"{self.folder} cannot be emptied"):
            (self.folder / ".current").unlink(missing_ok=True)
            self._remove_all_but()
            _sync(self.folder)

    def _anchors(self, material: X509Material) -> list[bytes]:
        anchors = list(material.bundles[material.spiffe_id.trust_domain])
        for domain in self._also_trusted:
            anchors += material.bundles.get(domain, ())
        return anchors

    def _current(self) -> str:
        try:
            return str((self.folder / ".current").readlink())
        except FileNotFoundError:
            return ""

    def _swap(self, name: str) -> None:
        temporary = self.folder / f".set-{secrets.token_hex(8)}.link"
        temporary.symlink_to(name)
        temporary.replace(self.folder / ".current")
        _sync(self.folder)

    def _remove_all_but(self, *current: str) -> None:
        for path in self.folder.glob(".set-*"):
            if path.name in current:
                continue
            if path.is_symlink():
                path.unlink()
            else:
                shutil.rmtree(path)

    def _link(self, path: Path, target: str) -> None:
        if path.is_symlink() and str(path.readlink()) == target:
            return
        if os.path.lexists(path):
            raise ConfigurationError(f"{path} exists already, and is not from this command: choose another folder")
        path.symlink_to(target)


def _sync(folder: Path) -> None:
    """Make the names in `folder` durable; a sync of the files does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pem_certificates(certificates: Iterable[bytes]) -> bytes:
    """Return certificates in DER as one PEM text."""
    return b"".join(
        x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM) for der in certificates
    )


def pem_key(key: bytes) -> bytes:
    """Return a private key in DER as PEM, PKCS#8, not encrypted."""
    return serialization.load_der_private_key(key, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

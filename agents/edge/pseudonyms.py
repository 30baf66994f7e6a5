"""Pseudonyms of users: what stands in a user context in place of the user's id, so that it is in no message and no log.

A pseudonym is HMAC-SHA-256 under a key of the deployment, and cannot be turned back: whoever holds the key can only tell
whether it is that of somebody they name (`sealbus audit reveal`). The same user has the same one for as long as the key
stays, so that policies, revocations and resources can name it; without the key nobody can compute it from a list of ids.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final, Self

from sealbus.envelopes.errors import ConfigurationError

__all__ = ["KEY_BYTES", "PREFIX", "Pseudonyms", "write_pseudonym_key"]

KEY_BYTES: Final = 32
PREFIX: Final = "pseudonym:"
"""What every pseudonym begins with, so that nobody takes it for an id of the identity provider's."""

_CONTEXT: Final = b"sealbus.pseudonym.v1"
_FORM: Final = re.compile(rb"([0-9a-f]{64})\n?")
_MOST: Final = 128
"""Bytes that are read of a key file: more than a key has."""


class Pseudonyms:
    """The pseudonyms under one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigurationError(f"a pseudonym key has {KEY_BYTES} bytes")
        self._key = key

    def __repr__(self) -> str:
        return "Pseudonyms(...)"

    @classmethod
    def read(cls, file: Path) -> Self:
        """Return those under the key in `file`: 64 hexadecimal digits, readable by its owner alone (mode 0600).

        Raises `ConfigurationError` for any other file. Blocks.
        """
        try:
            # A fifo in its place is refused, not waited for.
            descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as opened:
                about = os.fstat(opened.fileno())
                content = opened.read(_MOST) if stat.S_ISREG(about.st_mode) else b""
        except OSError as error:
            raise ConfigurationError(f"the pseudonym key {file} cannot be read: {error.strerror}") from error
        if stat.S_IMODE(about.st_mode) & 0o077:
            raise ConfigurationError(f"the pseudonym key {file} can be read by others: chmod 600 it")
        found = _FORM.fullmatch(content)
        if found is None:
            raise ConfigurationError(f"{file} is no pseudonym key: `sealbus edge pseudonym-key FILE` makes one")
        return cls(bytes.fromhex(found[1].decode()))

    def of(self, issuer: str, subject: str) -> str:
        """Return the pseudonym of the user whom `issuer` calls `subject`; never the same for two issuers' users."""
        name = issuer.encode()
        message = _CONTEXT + len(name).to_bytes(4, "big") + name + subject.encode()
        return PREFIX + hmac.new(self._key, message, hashlib.sha256).hexdigest()


def write_pseudonym_key(file: Path) -> None:
    """Write a new random key to `file`, which must not be there yet, with mode 0600; raises `ConfigurationError`.

    Blocks until it is on the disk: pseudonyms under a key that is lost are nobody's.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from error

"""Files with secrets of the edge, which only their owner can read: random keys, and credentials of OAuth clients."""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final

from sealbus.agents.files import PRIVATE, create_file, file_errors
from sealbus.envelopes.errors import ConfigurationError

KEY_BYTES: Final = 32
_KEY_FORM: Final = re.compile(rb"([0-9a-f]{64})\n?")
_KEY_FILE_BYTES: Final = 128
"""Bytes read of a key file: more than a key has."""


def read_private(file: Path, *, name: str, most: int) -> bytes:
    """Return the first `most` bytes of `file`, or none if it is not a regular file. Blocks.

    Raises `ConfigurationError`, which calls the file `name`, if it cannot be read, or if others than its owner can read it.
    """
    with file_errors(f"{name} {file} cannot be read"):
        # Not blocking: a FIFO in its place is refused, not waited for.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            about = os.fstat(opened.fileno())
            content = opened.read(most) if stat.S_ISREG(about.st_mode) else b""
    if stat.S_IMODE(about.st_mode) & 0o077:
        raise ConfigurationError(f"{name} {file} can be read by others: chmod 600 it")
    return content


def read_key(file: Path) -> bytes:
    """Return the key of 32 bytes in `file`: 64 hexadecimal digits. Raises `ConfigurationError` as `read_private` does."""
    match = _KEY_FORM.fullmatch(read_private(file, name="the key", most=_KEY_FILE_BYTES))
    if match is None:
        raise ConfigurationError(f"{file} is not such a key: `sealbus edge key FILE` makes one")
    return bytes.fromhex(match[1].decode())


def write_key(file: Path) -> None:
    """Write a new random key to `file`, which must not exist yet, with mode 0600; raises `ConfigurationError`.

    Blocks until the key is on the disk: pseudonyms under a lost key can never be revealed.
    """
    with file_errors(f"{file} cannot be written"):
        create_file(file, secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n", mode=PRIVATE)

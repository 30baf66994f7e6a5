"""Files of the keys that sign checkpoints: one private key each, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from sealbus.envelopes.errors import ConfigurationError, LogError
from sealbus.envelopes.log.note_keys import KEY_BYTES, NoteSigner

__all__ = ["load_signers", "make_key_file"]

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_BYTES = 1_024


def make_key_file(path: Path, origin: str) -> NoteSigner:
    """Make a key of the log `origin`, write it to `path`, which must not exist, with mode 0600, and return it.

    Raises `ConfigurationError` if the file cannot be made, or `origin` cannot be the name of a key.
    """
    try:
        signer = NoteSigner(origin, secrets.token_bytes(KEY_BYTES))
    except LogError as error:
        raise ConfigurationError(f"{origin!r} cannot be the origin of a log: {error.detail}") from error
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii" if origin.isascii() else "utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(signer.secret_text() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise ConfigurationError(f"{path} exists already: no key is ever written over") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
    return signer


def load_signers(paths: Sequence[Path], origin: str) -> tuple[NoteSigner, ...]:
    """Return the keys in `paths`, all of the log `origin`: one, or two while one replaces the other.

    A key is of the log that it is named after, and of those whose origins go on from its name after a slash: one key
    may serve the logs of several periods.

    Raises `ConfigurationError` for none, for a file that cannot be read or that others can, and for what is no such key.
    """
    if not paths:
        raise ConfigurationError("control.notary.keys is not set: make a key with `sealbus notary keygen`")
    signers = tuple(_load(path) for path in paths)
    for signer, path in zip(signers, paths, strict=True):
        if not f"{origin}/".startswith(f"{signer.verifier.name}/"):
            raise ConfigurationError(f"{path} is a key of {signer.verifier.name!r}, and the log is {origin!r}")
    if len({signer.verifier for signer in signers}) != len(signers):
        raise ConfigurationError("control.notary.keys: one key is listed twice")
    return signers


def _load(path: Path) -> NoteSigner:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(file.fileno()).st_mode & _OTHERS:
                raise ConfigurationError(f"{path} can be used by others than its owner: chmod 600 {path}")
            text = file.read(_BYTES).decode("utf-8").removesuffix("\n")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is no key of a log") from error
    try:
        return NoteSigner.parse(text)
    except LogError as error:
        raise ConfigurationError(f"{path} is no key of a log: {error.detail}") from error

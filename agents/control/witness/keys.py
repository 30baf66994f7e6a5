"""Key files of a witness: each holds one private key, readable by its owner alone."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sealbus.agents.edge.oauth.private_file import read_private
from sealbus.agents.files import PRIVATE, create_file, file_errors
from sealbus.envelopes.errors import ConfigurationError, LogError
from sealbus.envelopes.log.cosignature import CosignatureSigner, CosignatureType
from sealbus.envelopes.log.note import KEY_BYTES

_BYTES: Final = 1_024


def make_witness_key(path: Path, name: str, kind: CosignatureType) -> CosignatureSigner:
    """Make a key for the witness `name`, write it to `path`, which must not exist, with mode 0600, and return it.

    Raises `ConfigurationError` if the file cannot be made, or `name` cannot be the name of such a key.
    """
    try:
        signer = CosignatureSigner(name, kind, secrets.token_bytes(KEY_BYTES))
    except LogError as error:
        raise ConfigurationError(f"{name!r} cannot be the name of a witness: {error.detail}") from error
    if path.exists():
        raise ConfigurationError(f"{path} exists already: keys are never overwritten")
    with file_errors(f"{path} cannot be written"):
        create_file(path, f"{signer.secret_text()}\n".encode(), mode=PRIVATE)
    return signer


def load_witness_key(path: Path) -> CosignatureSigner:
    """Return the key in `path`.

    Raises `ConfigurationError` for a file that cannot be read or that others can read, and for one that is no such key.
    """
    try:
        return CosignatureSigner.parse(
            read_private(path, name="the key", most=_BYTES).decode("utf-8").removesuffix("\n")
        )
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not a key of a witness") from error
    except LogError as error:
        raise ConfigurationError(f"{path} is not a key of a witness: {error.detail}") from error


def load_witness_keys(paths: Sequence[Path]) -> tuple[CosignatureSigner, ...]:
    """Return the keys in `paths`, at least one, all different. Raises `ConfigurationError` as `load_witness_key` does."""
    if not paths:
        raise ConfigurationError("control.witness.signing_keys is not set: make a key with `sealbus witness keygen`")
    signers = tuple(load_witness_key(path) for path in paths)
    if len({signer.verifier for signer in signers}) != len(signers):
        raise ConfigurationError("control.witness.signing_keys: one key is listed twice")
    return signers

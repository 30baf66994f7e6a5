"""`--key FILE`: the private key that signs a bundle. The file is read when the key is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sealbus.envelopes.trust.keys import SigningKey
from sealbus.agents.cli.options import EXISTING_FILE

F = TypeVar("F", bound=Callable[..., Any])


def key_option(*, required: bool = True) -> Callable[[F], F]:
    """Add `--key FILE`."""
    return click.option(
        "--key",
        "key_file",
        type=EXISTING_FILE,
        required=required,
        default=None,
        help="Private key on P-256 in PEM: openssl ecparam -name prime256v1 -genkey -noout -out FILE.",
    )


def read_key(file: Path | None) -> SigningKey:
    """Return the key in `file`. Raises `ConfigurationError` without a file, or for a file without such a key."""
    from sealbus.envelopes.errors import ConfigurationError
    from sealbus.envelopes.trust.keys import read_signing_key

    if file is None:
        raise ConfigurationError("name the signing key: --key FILE")
    return read_signing_key(file.read_bytes(), name=str(file))

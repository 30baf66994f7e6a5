"""How the edge authenticates to an issuer as a client of its own: by a key (RFC 7523), or by a secret (RFC 6749)."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from sealbus.agents.edge.oauth.private_file import read_private
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import SECOND

__all__ = ["ClientAuthentication", "ClientSecret", "PrivateKeyJwt", "client_authentication"]

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_SECONDS: Final = 60
"""How long an assertion may be used: it is made for one request."""
_FILE_BYTES: Final = 8_192


class ClientAuthentication(Protocol):
    """A client's credentials at one issuer."""

    def sign(self, form: Mapping[str, str], *, issuer: str, now: int) -> tuple[dict[str, str], dict[str, str]]:
        """Return `form` and the header fields with which the client sends it to `issuer` at `now` (microseconds)."""


@dataclass(frozen=True, slots=True)
class PrivateKeyJwt:
    """A client that signs an assertion with its P-256 key (RFC 7523 section 2.2); `kid` is the key's thumbprint."""

    client_id: str
    key: ECKey = field(repr=False)

    def sign(self, form: Mapping[str, str], *, issuer: str, now: int) -> tuple[dict[str, str], dict[str, str]]:
        """Return `form` with a fresh assertion for `issuer`."""
        seconds = now // SECOND
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": issuer,
            "jti": os.urandom(16).hex(),
            "iat": seconds,
            "exp": seconds + _ASSERTION_SECONDS,
        }
        assertion = jwt.encode({"alg": "ES256", "kid": self.key.thumbprint()}, claims, self.key)
        said = {"client_id": self.client_id, "client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion}
        return {**form, **said}, {}


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A client that shows a secret, in `Authorization` (RFC 6749 section 2.3.1)."""

    client_id: str
    secret: str = field(repr=False)

    def sign(self, form: Mapping[str, str], *, issuer: str, now: int) -> tuple[dict[str, str], dict[str, str]]:
        """Return `form` as it is, and the field with the secret."""
        del issuer, now
        pair = f"{quote(self.client_id, safe='')}:{quote(self.secret, safe='')}"
        return dict(form), {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def client_authentication(
    client_id: str, *, key: Path | None, secret: Path | None, setting: str
) -> ClientAuthentication:
    """Return the credentials of a client from one of two files, which its owner alone can read.

    `key` is a P-256 key in PEM, `secret` holds a text. Raises `ConfigurationError`, which names `setting`. Blocks.
    """
    if (key is None) == (secret is None):
        raise ConfigurationError(f"{setting}: give either client_key or client_secret, a file")
    if secret is not None:
        text = read_private(secret, name=f"{setting}:", most=_FILE_BYTES).decode("ascii", "replace").strip()
        if not text.isprintable() or not text or "\ufffd" in text:
            raise ConfigurationError(f"{setting}: {secret} does not hold a secret in ASCII")
        return ClientSecret(client_id, text)
    try:
        found = ECKey.import_key(read_private(key, name=f"{setting}:", most=_FILE_BYTES) if key is not None else b"")
        fits = found.curve_name == "P-256" and found.is_private
    except (JoseError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{setting}: {key} is not a private P-256 key in PEM") from error
    if not fits:
        raise ConfigurationError(f"{setting}: {key} is not a private P-256 key in PEM")
    return PrivateKeyJwt(client_id, found)

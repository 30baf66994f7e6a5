"""How the edge authenticates to an issuer as a client of its own: by a key (RFC 7523), a JWT-SVID, or a secret (RFC 6749)."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
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

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_SVID_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
_ASSERTION_SECONDS: Final = 60
"""How long an assertion may be used: it is made for one request."""
_FILE_BYTES: Final = 8_192


class ClientAuthentication(Protocol):
    """A client's credentials at one issuer."""

    async def sign(self, form: Mapping[str, str], *, issuer: str, now: int) -> tuple[dict[str, str], dict[str, str]]:
        """Return `form` and the header fields with which the client sends it to `issuer` at `now` (microseconds)."""


@dataclass(frozen=True, slots=True)
class PrivateKeyJwt:
    """A client that signs an assertion with its P-256 key (RFC 7523 section 2.2); `kid` is the key's thumbprint."""

    client_id: str
    key: ECKey = field(repr=False)

    async def sign(self, form: Mapping[str, str], *, issuer: str, now: int) -> tuple[dict[str, str], dict[str, str]]:
        """Return `form` with a fresh assertion for `issuer`."""
        assertion = self.assertion(self.client_id, audience=issuer, now=now)
        parameters = {
            "client_id": self.client_id,
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": assertion,
        }
        return {**form, **parameters}, {}

    def assertion(self, subject: str, *, audience: str, now: int) -> str:
        """Return a JWT by which the client says to `audience` alone, for a minute, that it acts for `subject`.

        Of itself that authenticates it; of a user it is the grant of RFC 7523 section 2.1.
        """
        seconds = now // SECOND
        claims = {
            "iss": self.client_id,
            "sub": subject,
            "aud": audience,
            "jti": os.urandom(16).hex(),
            "iat": seconds,
            "exp": seconds + _ASSERTION_SECONDS,
        }
        return jwt.encode({"alg": "ES256", "kid": self.key.thumbprint()}, claims, self.key)


@dataclass(frozen=True, slots=True)
class JwtSvidClient:
    """A client that shows a JWT-SVID (draft-ietf-oauth-spiffe-client-auth), which `fetch` gets for the issuer alone."""

    client_id: str
    fetch: Callable[[str], Awaitable[str]] = field(repr=False)

    async def sign(self, form: Mapping[str, str], *, issuer: str, now: int) -> tuple[dict[str, str], dict[str, str]]:
        """Return `form` with a JWT-SVID whose audience is `issuer`; raise `IdentityUnavailable` if there is none."""
        del now
        parameters = {"client_assertion_type": _SVID_TYPE, "client_assertion": await self.fetch(issuer)}
        return {**form, "client_id": self.client_id, **parameters}, {}


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A client that shows a secret, in `Authorization` (RFC 6749 section 2.3.1)."""

    client_id: str
    secret: str = field(repr=False)

    async def sign(self, form: Mapping[str, str], *, issuer: str, now: int) -> tuple[dict[str, str], dict[str, str]]:
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
        private = ECKey.import_key(read_private(key, name=f"{setting}:", most=_FILE_BYTES) if key is not None else b"")
        fits = private.curve_name == "P-256" and private.is_private
    except (JoseError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{setting}: {key} is not a private P-256 key in PEM") from error
    if not fits:
        raise ConfigurationError(f"{setting}: {key} is not a private P-256 key in PEM")
    return PrivateKeyJwt(client_id, private)

"""The tokens of the development IdP, their signing key, and a store of short-lived values."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from joserfc import jwt
from joserfc.jwk import ECKey

from sealbus.agents.dev.idp.login import Login
from sealbus.bus.ports import Clock
from sealbus.envelopes.limits import SECOND

ALGORITHM: Final = "ES256"
ID_TOKEN_SECONDS: Final = 300

T = TypeVar("T")


class TokenSigner:
    """A signer of `issuer`'s tokens with a P-256 key that is made here and never leaves memory."""

    def __init__(self, issuer: str, *, clock: Clock) -> None:
        self.issuer = issuer
        self._clock = clock
        self._key = ECKey.generate_key("P-256", {"use": "sig", "alg": ALGORITHM}, auto_kid=True)

    def key_set(self) -> dict[str, object]:
        """Return the JWK Set of the public key."""
        return {"keys": [self._key.as_dict(private=False)]}

    def access_token(self, login: Login) -> str:
        """Return an access token (RFC 9068) of `login`; never valid if its lifetime is not positive."""
        now = self._clock() // SECOND
        expires = now + login.expires_in
        issued = min(now, expires - 1)
        claims: dict[str, object] = {
            # The user's claims come first, so that they cannot replace the following claims.
            **login.user.claims,
            "iss": self.issuer,
            "aud": login.audience,
            "sub": login.user.identifier,
            "client_id": login.client_id,
            "iat": issued,
            "exp": expires,
            "jti": secrets.token_urlsafe(16),
            "sid": login.session,
            "auth_time": min(login.auth_time, issued),
            **_methods(login),
        }
        if login.scope:
            claims["scope"] = login.scope
        return self._signed("at+jwt", claims)

    def id_token(self, login: Login) -> str:
        """Return an ID token (OpenID Connect Core section 2) that names the user and holds no other claims of the user."""
        now = self._clock() // SECOND
        claims: dict[str, object] = {
            "iss": self.issuer,
            "aud": login.client_id,
            "sub": login.user.identifier,
            "iat": now,
            "exp": now + ID_TOKEN_SECONDS,
            "auth_time": login.auth_time,
            "sid": login.session,
            **_methods(login),
        }
        if login.nonce:
            claims["nonce"] = login.nonce
        return self._signed("JWT", claims)

    def _signed(self, kind: str, claims: dict[str, object]) -> str:
        header = {"alg": ALGORITHM, "typ": kind, "kid": self._key.kid}
        return jwt.encode(header, claims, self._key, algorithms=[ALGORITHM])


def _methods(login: Login) -> dict[str, object]:
    """Return the claims of the login's methods that are set (RFC 9068 section 2.2.1)."""
    methods = {"acr": login.user.acr, "amr": list(login.user.amr)}
    return {name: value for name, value in methods.items() if value}


class Expiring(Generic[T]):
    """A store of values by unguessable keys for `seconds`; beyond `most` values the oldest is removed, to bound the memory.

    All values of a store live equally long, so they expire in the order in which they came.
    """

    def __init__(self, *, seconds: int, most: int, clock: Clock) -> None:
        self._life = seconds * SECOND
        self._most = most
        self._clock = clock
        self._values: dict[str, tuple[int, T]] = {}

    def __len__(self) -> int:
        self._drop()
        return len(self._values)

    def put(self, key: str, value: T) -> None:
        """Store `value`; the key must be new."""
        self._drop()
        if len(self._values) >= self._most:
            del self._values[next(iter(self._values))]
        self._values[key] = (self._clock() + self._life, value)

    def get(self, key: str) -> T | None:
        """Return the value of `key` if it has not expired."""
        self._drop()
        entry = self._values.get(key)
        return entry[1] if entry is not None else None

    def take(self, key: str) -> T | None:
        """Return the value of `key` and remove it, as single-use values require."""
        self._drop()
        entry = self._values.pop(key, None)
        return entry[1] if entry is not None else None

    def values(self) -> Iterator[T]:
        """Return the values that have not expired."""
        self._drop()
        return iter([value for _, value in self._values.values()])

    def _drop(self) -> None:
        now = self._clock()
        while self._values:
            key = next(iter(self._values))
            if self._values[key][0] > now:
                return
            del self._values[key]

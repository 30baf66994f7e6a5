"""A client that signs proofs of possession (RFC 9449): the tests' own code."""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any

from joserfc.jwk import Key
from support.issuer import compact, new_key, public_jwk, signed

__all__ = ["Holder"]


class Holder:
    """Who holds a key; `now` are microseconds since the Unix epoch, by default those of the clock."""

    def __init__(self, algorithm: str = "ES256") -> None:
        self.algorithm = algorithm
        self.key: Key = new_key(algorithm)
        self.made = 0

    @property
    def cnf(self) -> dict[str, str]:
        """What a token that is bound to the key says."""
        return {"jkt": self.key.thumbprint()}

    def claims(self, token: str, method: str, url: str, *, now: int | None = None, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good proof; `changes` replace them, None removes one."""
        self.made += 1
        claims = {
            "jti": f"proof-{self.made}-{self.key.thumbprint()[:8]}",
            "htm": method,
            "htu": url,
            "iat": int(time.time()) if now is None else now // 1_000_000,
            "ath": urlsafe_b64encode(sha256(token.encode()).digest()).rstrip(b"=").decode(),
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def header(self, **changes: Any) -> dict[str, Any]:
        """Return the header of a good proof; `changes` replace its members, None removes one."""
        header = {"typ": "dpop+jwt", "alg": self.algorithm, "jwk": public_jwk(self.key, None), **changes}
        return {name: value for name, value in header.items() if value is not None}

    def proof(self, token: str, method: str, url: str, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """Return a proof for one request."""
        return compact(
            self.header(**(header or {})),
            self.claims(token, method, url, **changes),
            signed(self.algorithm, self.key),
        )

"""Collects every secret that comes into being while a test runs, where it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.secret_search import Kept, Secret

from sealbus.agents.dev import users
from sealbus.agents.dev.idp.login import DeviceLogin
from sealbus.agents.dev.idp.server import DevelopmentIdp
from sealbus.agents.dev.idp.signing import Expiring, TokenSigner
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.edge.oauth.tokens import user_context as minting
from sealbus.envelopes.trust.keys import SigningKey

__all__ = ["Secrets"]


class Secrets:
    """Secrets by value, each with a name; `watch` begins to collect those that sealbus makes."""

    def __init__(self) -> None:
        self._by_value: dict[bytes, Secret] = {}

    def __iter__(self) -> Iterator[Secret]:
        return iter(tuple(self._by_value.values()))

    def add(self, name: str, value: str | bytes, kept: Kept = Kept.SECRET) -> str:
        """Note a secret and return it as text, for whom it is one."""
        raw = value.encode() if isinstance(value, str) else value
        self._by_value.setdefault(raw, Secret(f"{name} #{len(self._by_value)}", kept, raw))
        return raw.decode("latin-1")

    def add_token(self, name: str, token: str | bytes, kept: Kept = Kept.SECRET) -> None:
        """Note a JWT by its signature: whatever holds the token holds it, and without it the token is worth nothing."""
        raw = token.encode() if isinstance(token, str) else token
        self.add(name, raw.rpartition(b".")[2], kept)

    def add_key(self, name: str, key: ec.EllipticCurvePrivateKey) -> None:
        """Note a private key: the number, which stands in DER, PEM and JWK, and what of it is in a line of PEM."""
        number = key.private_numbers().private_value
        self.add(name, number.to_bytes(32, "big"))
        self.add(f"{name} in decimal digits", str(number))
        for form, line in ((serialization.PrivateFormat.PKCS8, 2), (serialization.PrivateFormat.TraditionalOpenSSL, 1)):
            pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
            # A PEM breaks lines within the number: this is the line that has most of it.
            self.add(f"{name} in PEM", pem.splitlines()[line])

    def kinds(self) -> set[str]:
        """Return the names without their numbers, to see that the run had them all."""
        return {secret.name.partition(" #")[0] for secret in self}

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Collect from now on, where things are made; nothing is changed about them."""

        def after(owner: Any, name: str, note: Callable[..., object]) -> None:
            made = getattr(owner, name)

            def noting(*arguments: Any, **named: Any) -> Any:
                result = made(*arguments, **named)
                note(result, *arguments)
                return result

            patch.setattr(owner, name, noting)

        after(TokenSigner, "_signed", lambda token, _, kind, claims: self._token(token, kind))
        after(TokenSigner, "__init__", lambda _, signer, *rest: self.add_key("IdP key", _private(signer)))
        after(DevelopmentIdp, "__init__", lambda _, idp, *rest: self.add("script secret", idp._secret))
        after(Expiring, "put", lambda _, store, key, value: self._kept_by_the_idp(key, value))
        after(SigningKey, "__init__", lambda _, key, private: self.add_key("signing key", private))
        after(DevelopmentAuthority, "issue_x509", lambda svid, *rest: self._der("X.509-SVID key", svid.key))
        after(DevelopmentAuthority, "_save", lambda _, authority: self._authority(authority))
        after(
            DevelopmentAuthority,
            "issue_jwt",
            lambda issued, *rest: self.add_token("JWT-SVID", issued.token, Kept.CREDENTIAL),
        )
        for module in (users, minting):
            after(module, "mint_context", lambda made, *rest: self._context(made))

    def _token(self, token: str, kind: str) -> None:
        self.add_token("access token" if kind == "at+jwt" else "ID token", token)

    def _kept_by_the_idp(self, key: str, value: object) -> None:
        if isinstance(value, DeviceLogin):
            self.add("device code", key)
            self.add("user code", value.user_code)
        else:
            self.add("pending login" if isinstance(value, dict) else "authorization code", key)

    def _authority(self, authority: DevelopmentAuthority) -> None:
        self.add_key("CA key", authority.x509.current.key)
        self.add_key("JWT-SVID signing key", authority.jwt.current.key)

    def _context(self, statement: Any) -> None:
        self.add("signature of a user context", statement.proof.signature, Kept.CREDENTIAL)

    def _der(self, name: str, der: bytes) -> None:
        key = serialization.load_der_private_key(der, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.add_key(name, key)


def _private(signer: TokenSigner) -> ec.EllipticCurvePrivateKey:
    key = signer._key.private_key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key

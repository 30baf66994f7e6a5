"""A development authority's keys in one private file, so that `sealbus dev` keeps its trust bundle over restarts."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sealbus.agents.dev.workload_api.certificates import X509Authority
from sealbus.agents.dev.workload_api.jwt_keys import JwtKey, KeyRing
from sealbus.agents.files import PRIVATE, replace_file
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import TrustDomain

K = TypeVar("K")

_VERSION = 1
_ROLES = ("current", "prepared", "old")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityState:
    """The state that an authority needs to continue after a restart."""

    x509: KeyRing[X509Authority]
    jwt: KeyRing[JwtKey]


def save_state(path: Path, trust_domain: TrustDomain, state: AuthorityState) -> None:
    """Replace the file `path`, mode 0600, by the keys; a missing folder is made with mode 0700."""
    document = {
        "v": _VERSION,
        "trust_domain": str(trust_domain),
        "x509": [
            {"role": role, "certificate": _text(authority.der), "key": _key_text(authority.key)}
            for role, authority in _roles(state.x509)
        ],
        "jwt": [{"role": role, "kid": key.kid, "key": _key_text(key.key)} for role, key in _roles(state.jwt)],
    }
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, json.dumps(document, indent=1).encode(), mode=PRIVATE)


def load_state(path: Path, trust_domain: TrustDomain) -> AuthorityState | None:
    """Read the file of `save_state`; return None if there is no such file.

    Raises `ConfigurationError`, naming the file and what to do, if others may read it, if it is damaged, or if it belongs to
    another trust domain.
    """
    try:
        mode = path.stat().st_mode
        document = json.loads(path.read_bytes())
        version, stored = document["v"], document["trust_domain"]
        x509_items = [(item["role"], _authority(item["certificate"], item["key"])) for item in document["x509"]]
        jwt_items = [(item["role"], JwtKey(kid=str(item["kid"]), key=_key(item["key"]))) for item in document["jwt"]]
        state = AuthorityState(x509=_ring(x509_items), jwt=_ring(jwt_items))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigurationError(f"{path} is not a readable development authority: remove it") from error
    if version != _VERSION:
        raise ConfigurationError(f"{path} was written by another version of sealbus: remove it")
    if mode & 0o077:
        raise ConfigurationError(f"{path} holds private keys and others may read it: remove it, or chmod 600 it")
    if stored != str(trust_domain):
        raise ConfigurationError(f"{path} belongs to the trust domain {stored}, not {trust_domain}: remove it")
    return state


def _roles(ring: KeyRing[K]) -> list[tuple[str, K]]:
    prepared = [] if ring.prepared is None else [("prepared", ring.prepared)]
    return [("current", ring.current), *prepared, *(("old", key) for key in ring.old)]


def _ring(items: list[tuple[str, K]]) -> KeyRing[K]:
    by_role = {role: [key for named, key in items if named == role] for role in _ROLES}
    (current,) = by_role["current"]
    (prepared,) = by_role["prepared"] or (None,)
    return KeyRing(current, prepared=prepared, old=tuple(by_role["old"]))


def _authority(certificate: str, key: str) -> X509Authority:
    return X509Authority(certificate=x509.load_der_x509_certificate(b64decode(certificate)), key=_key(key))


def _key(text: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_der_private_key(b64decode(text), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic curve key")
    return key


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return _text(
        key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")

"""Makers of valid things for tests: keys, JWT-SVIDs and the bundle that verifies them, sealers, drafts.

Everything is made by `sealbus.envelopes` itself but the JWT-SVIDs, which are built by hand so that a test can break
them. Times start at `NOW`; nothing reads a clock.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft, Sealer
from sealbus.envelopes.trust.keys import PublicKey, SigningKey
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.proof import Credential
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = [
    "HOUR",
    "MINUTE",
    "NAMES",
    "NOW",
    "TRUST_DOMAIN",
    "Issuer",
    "Json",
    "agent",
    "base64url",
    "call_draft",
    "event_draft",
    "message_id",
    "private_key",
    "record_draft",
    "reply_draft",
    "signing_key",
    "status_draft",
    "task_draft",
]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

NOW = 1_764_000_000 * SECOND
"""A moment in November 2025, in microseconds: the `iat` of what the makers make, unless said otherwise."""
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
TRUST_DOMAIN = TrustDomain("example.org")
NAMES = Names(TRUST_DOMAIN)


def agent(name: str) -> SpiffeId:
    """Return the SPIFFE ID of an agent in `example.org`."""
    return NAMES.id_of(name)


@lru_cache(maxsize=64)
def private_key(label: str) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 private key of `label`, the same in every run."""
    secret = int.from_bytes(sha256(label.encode()).digest(), "big") % (2**255) + 1
    return ec.derive_private_key(secret, ec.SECP256R1())


def signing_key(label: str) -> SigningKey:
    """Return the signing key of `label`, the same in every run."""
    return SigningKey(private_key(label))


def message_id(number: int) -> bytes:
    """Return a UUIDv7 for `number`, below 2^48."""
    return number.to_bytes(6, "big") + b"\x70\x00\x80" + bytes(7)


def base64url(data: bytes) -> str:
    """Return the unpadded base64url of `data`."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """A stand-in for SPIRE: one P-256 key that signs JWT-SVIDs for a trust domain, and the JWKS that verifies them."""

    trust_domain: TrustDomain = TRUST_DOMAIN
    kid: str = "key-1"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: private_key("issuer"), repr=False)

    def jwk(self) -> dict[str, Json]:
        """Return the public JWK, without `use`, as SPIRE's Workload API gives it."""
        numbers = self.key.public_key().public_numbers()
        return {
            "kty": "EC",
            "crv": "P-256",
            "kid": self.kid,
            "x": base64url(numbers.x.to_bytes(32, "big")),
            "y": base64url(numbers.y.to_bytes(32, "big")),
        }

    def jwks(self) -> bytes:
        """Return the JWT bundle of the trust domain, as JWKS bytes."""
        return json.dumps({"keys": [self.jwk()]}).encode()

    def sign(self, header: bytes, claims: bytes) -> bytes:
        """Return a compact JWS over exactly these JSON bytes, ES256, whatever they say."""
        signed = f"{base64url(header)}.{base64url(claims)}".encode()
        r, s = decode_dss_signature(self.key.sign(signed, ec.ECDSA(SHA256())))
        return signed + b"." + base64url(r.to_bytes(32, "big") + s.to_bytes(32, "big")).encode()

    def token(
        self,
        sub: SpiffeId,
        key: PublicKey,
        *,
        iat: int = NOW - MINUTE,
        exp: int = NOW + HOUR,
        header: Mapping[str, Json] | None = None,
        claims: Mapping[str, Json] | None = None,
    ) -> bytes:
        """Return a JWT-SVID for `key`; `iat` and `exp` in microseconds, as everywhere, whole seconds in the token.

        `header` and `claims` override single entries.
        """
        jose: dict[str, Json] = {"alg": "ES256", "kid": self.kid, "typ": "JWT"}
        body: dict[str, Json] = {
            "sub": sub.value,
            "aud": [key.thumbprint],
            "iat": iat // SECOND,
            "exp": exp // SECOND,
        }
        return self.sign(json.dumps(jose | dict(header or {})).encode(), json.dumps(body | dict(claims or {})).encode())

    def sealer(
        self, iss: SpiffeId, *, key: SigningKey | None = None, iat: int = NOW - MINUTE, exp: int = NOW + HOUR
    ) -> Sealer:
        """Return a sealer for `iss` with a key of its own and a JWT-SVID for it."""
        own = key if key is not None else signing_key(iss.value)
        token = self.token(iss, own.public, iat=iat, exp=exp)
        return Sealer(iss=iss, key=own, credential=Credential(1, token), expires=exp)


def task_draft(number: int = 1, *, aud: str = "inventory", verb: str = "update", body: bytes = b"{}") -> Draft:
    """Return a task for agent `aud` that any agent may seal; change single entries with `_replace`."""
    return Draft(
        kind=Kind.TASK,
        id=message_id(number),
        to=f"task.{aud}.{verb}",
        aud=agent(aud),
        iat=NOW,
        exp=NOW + HOUR,
        end=NOW + HOUR,
        body=body,
        typ="application/json",
    )


def call_draft(number: int = 1, *, iss: str = "planner", aud: str = "pricing", verb: str = "quote") -> Draft:
    """Return a call from agent `iss`, whose inbox the reply goes to, to agent `aud`."""
    return Draft(
        kind=Kind.CALL,
        id=message_id(number),
        to=f"call.{aud}.{verb}",
        aud=agent(aud),
        iat=NOW,
        exp=NOW + MINUTE,
        end=NOW + MINUTE,
        body=b"{}",
        typ="application/json",
        rpl=f"_INBOX.{iss}.{number}",
    )


def reply_draft(call: bytes, to: str, number: int = 1, *, aud: str = "planner") -> Draft:
    """Return the reply to the call whose H(header) is `call` and whose `rpl` is `to`."""
    return Draft(
        kind=Kind.REPLY,
        id=message_id(number),
        to=to,
        aud=agent(aud),
        iat=NOW,
        exp=NOW + MINUTE,
        body=b"{}",
        typ="application/json",
        re=call,
    )


def status_draft(task: bytes, task_id: bytes, number: int = 1, *, aud: str = "planner", seq: int = 0) -> Draft:
    """Return a status of the task whose H(header) is `task` and whose id is `task_id`, for its requester `aud`."""
    return Draft(
        kind=Kind.STATUS,
        id=message_id(number),
        to=f"status.{aud}.{task_id.hex()}",
        aud=agent(aud),
        iat=NOW,
        exp=NOW + HOUR,
        body=b"{}",
        typ="application/json",
        re=task,
        seq=seq,
    )


def event_draft(number: int = 1, *, iss: str = "inventory", name: str = "changed") -> Draft:
    """Return an event of agent `iss`, for whoever listens."""
    return Draft(
        kind=Kind.EVENT,
        id=message_id(number),
        to=f"event.{iss}.{name}",
        iat=NOW,
        exp=NOW + HOUR,
        body=b"{}",
        typ="application/json",
    )


def record_draft(body: bytes, dig: bytes, number: int = 1, *, iss: str = "inventory") -> Draft:
    """Return an audit message of agent `iss`; `dig` is the root of SPEC.md section 8 over the items in `body`."""
    return Draft(
        kind=Kind.RECORD,
        id=message_id(number),
        to=f"audit.{iss}",
        iat=NOW,
        exp=NOW + HOUR,
        body=body,
        typ="application/vnd.sealbus.audit.v1",
        dig=dig,
    )

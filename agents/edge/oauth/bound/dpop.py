"""Verify proofs of possession (DPoP, RFC 9449): a client signs one for each request, with the key of its access token.

The checks of section 4.3 that need only the proof and its request; the JWT follows the rules of an access token.
`possession.py` checks whether a proof was used before. Everything here is pure.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from sealbus.agents.edge.http.limits import EdgeLimits
from sealbus.agents.edge.http.problem import EdgeError, TokenRefused
from sealbus.agents.edge.oauth.bearer import PROOF_ALGORITHMS
from sealbus.agents.edge.oauth.issuers import is_secure_url
from sealbus.agents.edge.oauth.keys.key_set import VerificationKey, embedded_key
from sealbus.agents.edge.oauth.tokens.jwt import EXTENSIONS, Claims, is_signed, parsed
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND

FIELD: Final = "DPoP"
"""The name of the field with the proof."""

_TYPE: Final = "dpop+jwt"
_REFUSED: Final = ("jku", "x5u", "x5c", *EXTENSIONS)
"""Headers that neither a proof nor a token may have. A proof does have its key (`jwk`)."""
_PORTS: Final = {"https": ":443", "http": ":80"}
_NONCE_BYTES: Final = 16
_ID_BYTES: Final = 16


class ProofRefused(EdgeError):
    """401: the access token is bound to a key, and the request does not prove possession of the key.

    With `nonce` the proof lacks only the nonce, which the answer holds (section 9).
    """

    def __init__(self, detail: str, *, nonce: bool = False) -> None:
        code = Code.USE_DPOP_NONCE if nonce else Code.BAD_DPOP_PROOF
        super().__init__(code, 401, detail, error="use_dpop_nonce" if nonce else "invalid_dpop_proof")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A verified proof: the thumbprint of its key, a digest that identifies it (16 bytes), and its time (microseconds)."""

    thumbprint: str
    digest: bytes
    issued: int


class Nonces:
    """The nonces under a key of 32 bytes, which all processes of an edge share. Each is given out for `seconds`."""

    def __init__(self, key: bytes, seconds: int) -> None:
        self._key: Final = key
        self._period: Final = seconds * SECOND

    def __repr__(self) -> str:
        return "Nonces(...)"

    def current(self, now: int) -> str:
        """Return the nonce to give out at `now` (microseconds)."""
        return self._of(now // self._period)

    def holds(self, nonce: str, now: int) -> bool:
        """Return whether `nonce` is that of `now` (microseconds), or of the period before."""
        period = now // self._period
        return any(
            hmac.compare_digest(nonce.encode(), self._of(candidate).encode()) for candidate in (period, period - 1)
        )

    def _of(self, period: int) -> str:
        mac = hmac.new(self._key, b"sealbus.dpop-nonce.v1" + period.to_bytes(8), sha256).digest()
        return _base64url(mac[:_NONCE_BYTES])


def verify_proof(
    proof: str,
    *,
    method: str,
    urls: frozenset[str],
    token: str,
    now: int,
    limits: EdgeLimits,
    nonces: Nonces | None = None,
) -> Proof:
    """Verify `proof` for a request with `method` and `token` to one of `urls`, which all name the same resource.

    Numbers in errors are those of the checks in section 4.3. The caller makes check 1, and the two parts of 12 that are not
    here: whether the key is that of the token, and whether the proof was used before. `now` is microseconds since the Unix
    epoch. With `nonces` a proof must hold one of them.

    Raises `ProofRefused`.
    """
    if len(proof) > limits.proof_bytes:
        raise ProofRefused("the proof is too long")
    parts = parsed(proof, limits)
    if parts is None:
        raise ProofRefused("2: not a JWT in compact form")
    jws, header, says = parts
    algorithm, key = _key(header, limits)
    if not is_signed(jws, algorithm, key):
        raise ProofRefused("6: signature")
    claims = Claims(says)
    try:
        token_id, issued = claims.text("jti"), claims.time("iat")
        if claims.text("htm") != method:
            raise ProofRefused("8: htm")
        if _normal(claims.text("htu")) not in urls:
            raise ProofRefused("9: htu")
        if not -limits.future_seconds * SECOND <= now - issued <= limits.proof_seconds * SECOND:
            raise ProofRefused("11: iat")
        if not hmac.compare_digest(claims.text("ath").encode(), _base64url(sha256(token.encode()).digest()).encode()):
            raise ProofRefused("12: ath")
        if nonces is not None and not ("nonce" in claims and nonces.holds(claims.text("nonce"), now)):
            raise ProofRefused("10: nonce", nonce=True)
    except TokenRefused as error:
        raise ProofRefused(f"3: {error.detail}") from error
    own = key.thumbprint()
    return Proof(thumbprint=own, digest=sha256(f"{own} {token_id}".encode()).digest()[:_ID_BYTES], issued=issued)


def public_urls(resource: str, path: str) -> frozenset[str]:
    """Return the normalised URLs by which clients may name `path` of the edge whose resource is `resource`.

    A proxy in front may have removed the path of the resource, or not.
    """
    parts = urlsplit(resource)
    root = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
    return frozenset({_normal(root + path), _normal(resource.rstrip("/") + path)})


def _key(header: dict[str, Json], limits: EdgeLimits) -> tuple[str, VerificationKey]:
    for name in _REFUSED:
        if name in header:
            raise ProofRefused(f"header: {name}")
    if header.get("typ") != _TYPE:
        raise ProofRefused("4: typ")
    algorithm = header.get("alg")
    if type(algorithm) is not str or algorithm not in PROOF_ALGORITHMS:
        raise ProofRefused("5: alg")
    try:
        return algorithm, embedded_key(header.get("jwk"), algorithm, limits)
    except ValueError as error:
        raise ProofRefused("7: jwk") from error


def _normal(url: str) -> str:
    """Return `url` with scheme and host in lower case, without the default port (RFC 3986 sections 6.2.2 and 6.2.3).

    Returns "" if `url` has a query or a fragment (section 4.2), or is neither https nor http on loopback (`is_secure_url`).
    """
    parts = urlsplit(url) if is_secure_url(url.partition("://")[0].lower() + "://" + url.partition("://")[2]) else None
    if parts is None or "?" in url:
        return ""
    host = parts.netloc.lower().removesuffix(_PORTS[parts.scheme])
    return f"{parts.scheme}://{host}{parts.path or '/'}"


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")

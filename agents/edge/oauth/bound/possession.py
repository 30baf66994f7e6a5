"""Whether who sends a bound access token holds its key: shown by a proof (RFC 9449) or a certificate (RFC 8705).

A token that is bound is never accepted without, and one that is not bound is never accepted as if it were.
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.peer import CLIENT_CERTIFICATE
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.bearer import Presented, Scheme
from sealbus.agents.edge.oauth.bound.dpop import FIELD, Nonces, Proof, ProofRefused, public_urls, verify_proof
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken, BindingKind
from sealbus.bus.work.idempotency.replay_guard import ReplayGuard
from sealbus.envelopes.limits import SECOND


class Possession:
    """The checks of one edge, whose resource is `resource`; `guard` knows the proofs that any of its processes saw.

    With `nonces` a proof must hold one.
    """

    def __init__(
        self,
        resource: str,
        guard: ReplayGuard,
        *,
        nonces: Nonces | None = None,
        limits: EdgeLimits = DEFAULT_EDGE_LIMITS,
    ) -> None:
        self._resource: Final = resource
        self._guard: Final = guard
        self._nonces: Final = nonces
        self._limits: Final = limits

    def nonce(self, now: int) -> str | None:
        """Return the nonce for a client's next proof, where the edge wants one."""
        return self._nonces.current(now) if self._nonces is not None else None

    def check(self, presented: Presented, token: AccessToken, scope: Scope, *, now: int) -> Proof | None:
        """Return the verified proof of a request that needs one, which has to be used then; `token` is what it presents.

        Raises `TokenRefused` or `ProofRefused`.
        """
        kind = token.bound.kind if token.bound is not None else None
        if (presented.scheme is Scheme.DPOP) is not (kind is BindingKind.KEY):
            # Section 7.2: as a bearer token it would lose its protection, and a proof protects nothing that is not bound.
            raise TokenRefused("cnf: the token does not belong to this scheme")
        match kind:
            case None:
                return None
            case BindingKind.CERTIFICATE:
                if token.bound is None or scope.get(CLIENT_CERTIFICATE) != token.bound.value:
                    raise TokenRefused("cnf: not the client's certificate")
                return None
            case BindingKind.KEY:
                proof = self._proof(presented, scope, now)
                if token.bound is None or proof.thumbprint != token.bound.value:
                    raise ProofRefused("12: not the key of the token")
                return proof

    def _proof(self, presented: Presented, scope: Scope, now: int) -> Proof:
        fields = Headers(scope=scope).getlist(FIELD)
        if len(fields) != 1:
            raise ProofRefused("1: not one DPoP field")
        return verify_proof(
            fields[0],
            method=scope["method"],
            urls=public_urls(self._resource, scope["path"]),
            token=presented.token,
            now=now,
            limits=self._limits,
            nonces=self._nonces,
        )

    async def use(self, proof: Proof) -> None:
        """Use `proof`, for all processes of the edge; raise `ProofRefused` if it was used before.

        Raises `StateUnavailable`, `BusUnavailable` or `IdentityUnavailable` if that cannot be known.
        """
        ahead = self._limits.future_seconds * SECOND
        # Another process's clock may be behind ours by twice what it may be off.
        until = proof.issued + self._limits.proof_seconds * SECOND + 2 * ahead
        if not await self._guard.use(proof.digest, made=proof.issued - ahead, until=until):
            raise ProofRefused("12: used before")

"""Mint a signed user context from a verified access token; no other part of the token leaves this module.

A context names the user as the token's `name` does: by the issuer's id, or by a pseudonym (`pseudonyms`).
"""

from __future__ import annotations

from dataclasses import dataclass

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.issuers import DOOR_CLAIM
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.envelopes.errors import Code, IdentityUnavailable, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.user_context import STANDING, ContextDraft, mint_context
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextMinter:
    """How one edge mints user contexts: for which trust domain, and for how long.

    A chain may start with the context while the token lives and within `limits.context_start_seconds`; it may continue until
    `limits.context_end_seconds` from the minting.
    """

    trust_domain: TrustDomain
    limits: EdgeLimits = DEFAULT_EDGE_LIMITS

    def mint(
        self,
        token: AccessToken,
        sealer: Sealer,
        *,
        transaction: bytes,
        now: int,
        workload: SpiffeId | None,
        door: str = "",
    ) -> Statement:
        """Return the user context of `token`, signed by `sealer` at `now`, for `workload` alone if it is given.

        `now` is microseconds since the Unix epoch. `transaction` is 16 random bytes, under which the records of all that
        follows are found. `door` names the protocol by which the user came, if it is not the edge's own; it becomes a claim
        of the context, so that policies and records show it.

        Raises `TokenRefused` for a token that has expired (`token_expired`) or holds more than a context can
        (`bad_token`), `IdentityUnavailable` if the sealer's credential has expired.
        """
        if now >= token.expires:
            raise TokenRefused("exp", code=Code.TOKEN_EXPIRED)
        if not token.name:
            raise TokenRefused("the user was given no name")
        if token.session.startswith(STANDING):
            # Sessions with this prefix are those of standing grants, which a log has to show.
            raise TokenRefused("the session has a name that is ours")
        if now >= sealer.expires:
            raise IdentityUnavailable("the edge's credential has expired")
        draft = ContextDraft(
            txn=transaction,
            aud=self.trust_domain,
            iat=now,
            exp=min(now + self.limits.context_start_seconds * SECOND, token.expires),
            end=now + self.limits.context_end_seconds * SECOND,
            sub=token.name,
            idp=token.issuer,
            sid=token.session,
            cid=token.client,
            scp=token.scope,
            clm={**token.claims, DOOR_CLAIM: door} if door else token.claims,
            ten=token.tenant,
            wkl=workload,
            acr=token.acr,
            amr=token.amr,
            aut=token.auth_time,
            typ=token.type,
            dom=token.domain,
        )
        try:
            return mint_context(draft, sealer)
        except SealError as error:
            raise TokenRefused("more claims than a user context can hold") from error

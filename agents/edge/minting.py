"""From a verified access token to a signed user context; nothing else of the token goes further than here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from sealbus.agents.edge.access_token import AccessToken
from sealbus.agents.edge.errors import TokenRefused
from sealbus.agents.edge.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.pseudonyms import Pseudonyms
from sealbus.envelopes.context import ContextDraft, mint_context
from sealbus.envelopes.errors import Code, IdentityUnavailable, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.seal import Sealer
from sealbus.envelopes.spiffe_id import SpiffeId, TrustDomain
from sealbus.envelopes.wire import Statement

__all__ = ["mint"]

_NO_REQUEST: Final[Mapping[str, str]] = {}


def mint(
    token: AccessToken,
    sealer: Sealer,
    *,
    trust_domain: TrustDomain,
    now: int,
    workload: SpiffeId | None,
    request: Mapping[str, str] = _NO_REQUEST,
    pseudonyms: Pseudonyms | None = None,
    limits: EdgeLimits = DEFAULT_EDGE_LIMITS,
) -> Statement:
    """Return the user context of `token`, signed by `sealer` at `now`, for `workload` alone if it is given.

    With `pseudonyms` it names the user by one of them. `request` are facts about the HTTP request, such as `ip`. A chain
    may start with the context as long as the token lives and `limits` allow, and go on until `limits.context_end_seconds`
    from now.

    Raises `TokenRefused` for a token that has ended by now (`token_expired`) or says more than a context can hold
    (`bad_token`), `IdentityUnavailable` if the sealer's credential has ended.
    """
    if now >= token.expires:
        raise TokenRefused("exp", code=Code.TOKEN_EXPIRED)
    if now >= sealer.expires:
        raise IdentityUnavailable("the edge's credential has ended")
    draft = ContextDraft(
        txn=os.urandom(16),
        aud=trust_domain,
        iat=now,
        exp=min(now + limits.context_start_seconds * SECOND, token.expires),
        end=now + limits.context_end_seconds * SECOND,
        sub=token.subject if pseudonyms is None else pseudonyms.of(token.issuer, token.subject),
        idp=token.issuer,
        sid=token.session,
        cid=token.client,
        scp=token.scope,
        clm=token.claims,
        ten=token.tenant,
        wkl=workload,
        acr=token.acr,
        amr=token.amr,
        aut=token.auth_time,
        req=request or None,
    )
    try:
        return mint_context(draft, sealer)
    except SealError as error:
        raise TokenRefused("more claims than a user context can hold") from error

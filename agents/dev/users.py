"""User contexts for development: what the edge would mint after a login, minted without one. Never for production."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

from sealbus.envelopes.context import ContextDraft, mint_context
from sealbus.envelopes.context_payload import ClaimValue
from sealbus.envelopes.lifetimes import DEFAULT_LIFETIMES, Lifetimes
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.seal import Sealer
from sealbus.envelopes.spiffe_id import SpiffeId, TrustDomain
from sealbus.envelopes.wire import Statement

__all__ = ["DEV_IDP", "EDGE_PATH", "mint_user"]

EDGE_PATH: Final = "/edge"
"""Path of the edge's SPIFFE ID."""
DEV_IDP: Final = "https://idp.sealbus.invalid"
"""Issuer of development users where no development IdP runs, in `sealbus.testing` for instance: a name that can never
resolve (RFC 2606), so that it is not taken for a real one."""

START: Final = 15 * 60 * SECOND
"""How long a chain may start with the context (SPEC.md section 6)."""
GO_ON: Final = 8 * 3_600 * SECOND


def mint_user(
    sealer: Sealer,
    identifier: str,
    *,
    trust_domain: TrustDomain,
    now: int,
    session: str = "",
    client: str = "dev",
    scope: Sequence[str] = (),
    claims: Mapping[str, ClaimValue] | None = None,
    tenant: str | None = None,
    workload: SpiffeId | None = None,
    issuer: str = DEV_IDP,
    lifetimes: Lifetimes = DEFAULT_LIFETIMES,
) -> Statement:
    """Return a signed user context of `identifier`, within the readers' `lifetimes`.

    `sealer` must be that of a configured minter for it to be accepted.
    """
    return mint_context(
        ContextDraft(
            txn=os.urandom(16),
            aud=trust_domain,
            iat=now,
            exp=now + min(START, lifetimes.context_start, lifetimes.context_life),
            end=now + min(GO_ON, lifetimes.context_life),
            sub=identifier,
            idp=issuer,
            sid=session or f"session-{identifier}",
            cid=client,
            scp=tuple(scope),
            clm=claims or {},
            ten=tenant,
            wkl=workload,
        ),
        sealer,
    )

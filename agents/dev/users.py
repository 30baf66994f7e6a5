"""User contexts for development, minted as the edge would after a login, but without one. Never for production.

The commands' `--user` is based on them, in `sealbus dev` only.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Final

from sealbus.agents.dev.idp.access import fetch_token, read_access
from sealbus.agents.identity import WorkloadIdentity
from sealbus.agents.runtime.open import workload_api_of
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.ports import wall_clock
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.lifetimes import DEFAULT_LIFETIMES, Lifetimes
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.user_context import ClaimValue, ContextDraft, mint_context
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = ["DEV_IDP", "EDGE_PATH", "mint_user", "minted_user"]

EDGE_PATH: Final = "/edge"
"""Path of the edge's SPIFFE ID."""
DEV_IDP: Final = "https://idp.sealbus.invalid"
"""Issuer of development users where no development IdP runs, as in `sealbus.testing`: a name that can never resolve (RFC
2606), so that it is not taken for a real one."""

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


async def minted_user(settings: Settings, identifier: str, workload: str, session: str = "") -> Statement:
    """Return a context of `identifier` for the workload named `workload`, signed by the edge's identity.

    Raises `ConfigurationError` if no `sealbus dev` is running, or its identity provider does not know the user.
    """
    if settings.workload_api is None or "{name}" not in settings.workload_api or settings.dev.access is None:
        raise ConfigurationError("--user needs a running `sealbus dev`: elsewhere the edge mints user contexts")
    # A user who cannot log in gets no context; the token itself is not used further.
    await asyncio.to_thread(fetch_token, read_access(settings.dev.access), {"user": identifier, "client": "dev"})
    async with WorkloadIdentity.connect(workload_api_of(settings, "edge")) as edge:
        return mint_user(
            edge.sealer(),
            identifier,
            trust_domain=settings.trust_domain,
            now=wall_clock(),
            session=session,
            workload=settings.names.id_of(workload),
            issuer=settings.dev.issuer or DEV_IDP,
            lifetimes=settings.lifetimes,
        )

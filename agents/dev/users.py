"""Users of development: tokens of `sealbus dev` without a login, and contexts without an edge. Never for production."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

from sealbus.agents.dev.idp.access import fetch_token, read_access
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.lifetimes import DEFAULT_LIFETIMES, Lifetimes
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.user_context import ClaimValue, ContextDraft, SubjectType, mint_context
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = ["DEV_IDP", "EDGE_PATH", "approver_token", "dev_token", "mint_user"]

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
    acr: str | None = None,
    amr: Sequence[str] | None = None,
    login_age: float | None = None,
    typ: SubjectType | None = None,
    domain: TrustDomain | None = None,
    issuer: str = DEV_IDP,
    lifetimes: Lifetimes = DEFAULT_LIFETIMES,
) -> Statement:
    """Return a signed user context of `identifier`, within the readers' `lifetimes`.

    `login_age` is how many seconds ago the user logged in; `None` says nothing about it. `typ` is what it is if no user, and
    `domain` that of the partner who calls it `identifier`. `sealer` must be that of a
    configured minter for the context to be accepted.
    """
    return mint_context(
        ContextDraft(
            txn=os.urandom(16),
            aud=trust_domain,
            iat=now,
            exp=now + min(START, lifetimes.context_start, lifetimes.context_life),
            end=now + min(GO_ON, lifetimes.context_life),
            sub=identifier if domain is None else f"{identifier}@{domain}",
            idp=issuer,
            sid=session or f"session-{identifier}",
            cid=client,
            scp=tuple(scope),
            clm=claims or {},
            ten=tenant,
            wkl=workload,
            acr=acr,
            amr=tuple(amr) if amr is not None else None,
            aut=now - int(login_age * SECOND) if login_age is not None else None,
            typ=typ,
            dom=domain,
        ),
        sealer,
    )


def approver_token(settings: Settings, identifier: str, *, acr: str = "") -> str:
    """Return a token of a user of `sealbus dev` who has just logged in by `acr` to approve something; as `dev_token`."""
    if settings.dev.access is None:
        raise ConfigurationError("--user needs a running `sealbus dev`: elsewhere log in by `sealbus login`")
    asked = {"user": identifier, "client": "dev", "scope": "sealbus:approve", "acr": acr, "login_age": "0"}
    return str(fetch_token(read_access(settings.dev.access), asked)["access_token"])


def dev_token(settings: Settings, identifier: str, session: str = "") -> str:
    """Return an access token of a user of `sealbus dev`, as a login would give it. Blocks for a few seconds at most.

    Raises `ConfigurationError` if no `sealbus dev` is running, or its identity provider does not know the user.
    """
    if settings.dev.access is None:
        raise ConfigurationError(
            "--user needs a running `sealbus dev`: elsewhere log in by `sealbus login` and give --me"
        )
    asked = {"user": identifier, "client": "dev", "session": session}
    return str(fetch_token(read_access(settings.dev.access), asked)["access_token"])

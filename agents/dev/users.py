"""Users of development: tokens of `sealbus dev` without a login, and contexts without an edge. Never for production."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
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

EDGE_PATH: Final = "/edge"
"""Path of the edge's SPIFFE ID."""
DEV_IDP: Final = "https://idp.sealbus.invalid"
"""Issuer of development users if no development IdP runs, as in `sealbus.testing`: a name that never resolves (RFC 2606), so
that it is not mistaken for a real issuer."""

START: Final = 15 * 60 * SECOND
"""Microseconds in which a chain may start with the context (SPEC.md section 6)."""
GO_ON: Final = 8 * 3_600 * SECOND
"""Microseconds in which a chain may continue with the context."""


@dataclass(frozen=True, slots=True)
class DevUser:
    """A user of development and their login, as a context states them.

    `login_age` is how many seconds ago the user logged in; `None` leaves the time out. `workload` is the agent that may use
    the context, `typ` the type of a subject that is no user, `domain` the partner's who calls the user `identifier`.
    """

    identifier: str
    _: KW_ONLY
    session: str = ""
    client: str = "dev"
    scope: Sequence[str] = ()
    claims: Mapping[str, ClaimValue] | None = None
    tenant: str | None = None
    workload: SpiffeId | None = None
    acr: str | None = None
    amr: Sequence[str] | None = None
    login_age: float | None = None
    typ: SubjectType | None = None
    domain: TrustDomain | None = None
    issuer: str = DEV_IDP


def mint_user(
    sealer: Sealer, user: DevUser, *, trust_domain: TrustDomain, now: int, lifetimes: Lifetimes = DEFAULT_LIFETIMES
) -> Statement:
    """Return a signed context of `user` at the time `now` in microseconds, within the readers' `lifetimes`.

    Agents accept the context only if `sealer` is that of a configured minter.
    """
    return mint_context(
        ContextDraft(
            txn=os.urandom(16),
            aud=trust_domain,
            iat=now,
            exp=now + min(START, lifetimes.context_start, lifetimes.context_life),
            end=now + min(GO_ON, lifetimes.context_life),
            sub=user.identifier if user.domain is None else f"{user.identifier}@{user.domain}",
            idp=user.issuer,
            sid=user.session or f"session-{user.identifier}",
            cid=user.client,
            scp=tuple(user.scope),
            clm=user.claims or {},
            ten=user.tenant,
            wkl=user.workload,
            acr=user.acr,
            amr=tuple(user.amr) if user.amr is not None else None,
            aut=now - int(user.login_age * SECOND) if user.login_age is not None else None,
            typ=user.typ,
            dom=user.domain,
        ),
        sealer,
    )


def approver_token(settings: Settings, identifier: str, *, acr: str = "") -> str:
    """Return a token of a user of `sealbus dev` who has just logged in by `acr` to approve a task; as `dev_token`."""
    return _token(settings, "", user=identifier, scope="sealbus:approve", acr=acr, login_age="0")


def dev_token(settings: Settings, identifier: str, session: str = "") -> str:
    """Return an access token of a user of `sealbus dev`, as a login would give it. Blocks for a few seconds at most.

    Raises `ConfigurationError` if no `sealbus dev` is running, or its identity provider does not know the user.
    """
    return _token(settings, " and give --me", user=identifier, session=session)


def _token(settings: Settings, instead: str, **request: str) -> str:
    if settings.dev.access is None:
        raise ConfigurationError(f"--user needs a running `sealbus dev`: elsewhere log in by `sealbus login`{instead}")
    return str(fetch_token(read_access(settings.dev.access), {**request, "client": "dev"})["access_token"])

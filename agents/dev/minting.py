"""A user context from the development edge's own identity: what `--user` of the commands stands on. Only in `sealbus dev`."""

from __future__ import annotations

import asyncio

from sealbus.agents.dev.idp.access import fetch_token, read_access
from sealbus.agents.dev.users import DEV_IDP, mint_user
from sealbus.agents.identity import WorkloadIdentity
from sealbus.agents.runtime import workload_api_of
from sealbus.agents.settings import Settings
from sealbus.bus.clock import wall_clock
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.wire import Statement

__all__ = ["minted_user"]


async def minted_user(settings: Settings, identifier: str, workload: str, session: str = "") -> Statement:
    """Return a context of `identifier` for the workload named `workload`, signed by the edge's identity.

    Raises `ConfigurationError` where no `sealbus dev` runs, or its identity provider does not know the user.
    """
    if settings.workload_api is None or "{name}" not in settings.workload_api or settings.dev_access is None:
        raise ConfigurationError("--user needs a running `sealbus dev`: elsewhere the edge mints user contexts")
    # Who could not log in has no context either; the token is of no further use.
    await asyncio.to_thread(fetch_token, read_access(settings.dev_access), {"user": identifier, "client": "dev"})
    async with WorkloadIdentity.connect(workload_api_of(settings, "edge")) as edge:
        return mint_user(
            edge.sealer(),
            identifier,
            trust_domain=settings.trust_domain,
            now=wall_clock(),
            session=session,
            workload=settings.names.id_of(workload),
            issuer=settings.dev_issuer or DEV_IDP,
            lifetimes=settings.lifetimes,
        )

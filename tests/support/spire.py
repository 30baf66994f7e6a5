"""Real SPIRE for tests, of the user that runs them, quick to see changes: as `make stack` starts it, in a short folder."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from stack.spire import Spire, open_spire
from stack.spire_entry import Entry
from stack.tools import find_tool
from support.ports import held_port
from support.workload_api import short_folder

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = ["entry", "require_spire", "spire"]


def require_spire() -> None:
    """Return if there are spire-server and spire-agent; otherwise skip the test, or fail it in CI."""
    try:
        find_tool("spire-server")
        find_tool("spire-agent")
    except ConfigurationError as error:
        if os.environ.get("CI"):
            pytest.fail(error.detail)
        pytest.skip(error.detail)


def entry(
    spiffe_id: str,
    *,
    uid: int | None = None,
    x509_ttl: int = 60,
    jwt_ttl: int = 120,
    dns: tuple[str, ...] = (),
    federates_with: tuple[str, ...] = (),
) -> Entry:
    """Return an entry for the user that runs the tests, unless another is said."""
    return Entry(
        spiffe_id=SpiffeId(spiffe_id),
        uid=os.geteuid() if uid is None else uid,
        x509_ttl=x509_ttl,
        jwt_ttl=jwt_ttl,
        dns=dns,
        federates_with=tuple(TrustDomain(one) for one in federates_with),
    )


@asynccontextmanager
async def spire(*entries: Entry, trust_domain: str = "example.org") -> AsyncGenerator[Spire, None]:
    """Start SPIRE with `entries`, served by now, and stop it afterwards."""
    require_spire()
    with short_folder() as folder:
        folder.chmod(0o711)
        async with open_spire(
            folder, trust_domain=TrustDomain(trust_domain), port=held_port(), entries=entries, refresh=1
        ) as running:
            yield running

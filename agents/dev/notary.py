"""The notary of the development environment: one log in its state folder, with a key that is made at the first start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sealbus.agents.control.notary.keys import load_signers, make_key_file
from sealbus.agents.control.notary.notary import Notary
from sealbus.agents.control.notary.opening import open_notary
from sealbus.agents.settings import Settings
from sealbus.envelopes.spiffe_id import TrustDomain

__all__ = ["NOTARY", "DevLog", "running_notary"]

NOTARY = "notary"
"""The name of its workload."""


@dataclass(frozen=True, slots=True)
class DevLog:
    """Where the log and its key are, and what it is called."""

    origin: str
    key: Path
    folder: Path

    @classmethod
    def prepared(cls, state: Path, trust_domain: TrustDomain) -> DevLog:
        """Return the log in the state folder, its key made if there is none."""
        made = cls(origin=f"{trust_domain.name}/development/audit", key=state / "log.key", folder=state / "log")
        if not made.key.exists():
            make_key_file(made.key, made.origin)
        return made

    @property
    def verifier(self) -> str:
        """The log's verifier key, as root files hold it."""
        (signer,) = load_signers([self.key], self.origin)
        return signer.verifier.text


@asynccontextmanager
async def running_notary(settings: Settings) -> AsyncGenerator[Notary, None]:
    """Run the notary of `settings` while entered."""
    async with open_notary(settings, name=NOTARY) as notary, asyncio.TaskGroup() as group:
        running = group.create_task(notary.run(), name="notary")
        try:
            yield notary
        finally:
            running.cancel()

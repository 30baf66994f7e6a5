"""By what policy the callout decides where policies come from a bucket of the NATS that it guards.

It has to answer before anybody can read the bucket. So it starts with what it had, or with a bundle that the operator put
beside it, and follows the bucket once it has let its own process in.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from sealbus.agents.runtime.policy.source import open_sync
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.files import load_bundle
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.in_force import InForce

__all__ = ["CACHE", "first_bundle", "follow_bucket"]

_log: Final = logging.getLogger(__name__)

CACHE: Final = "callout"
"""Folder of its own in `policy.cache`."""

AGAIN_AFTER: Final = 1.0
"""Seconds to the next look into a bucket that has no policy yet."""


def first_bundle(policy: PolicyTable, bootstrap: Path | None) -> Bundle | None:
    """Return the bundle to decide by from the start where `policy` is a bucket, else None.

    Only the embedded engine reads a bundle: an OPA has its own from elsewhere. `bootstrap` counts only where nothing was
    ever taken from the bucket. Raises `ConfigurationError`, one line, for what is missing or may not be put in force.
    Blocks.
    """
    if policy.bucket is None or policy.engine != "embedded":
        return None
    if policy.cache is None:
        raise ConfigurationError("policy.cache is not set: the policy from the bus is kept in this folder")
    file = policy.cache / CACHE / "composed" / "bundle.tar.gz"
    if file.exists():
        # It is its own: verified part by part before it was composed.
        return load_bundle(file)
    if bootstrap is None:
        raise ConfigurationError(
            "control.callout.bootstrap is not set: nobody can read the bucket before the callout has a policy"
        )
    return load_bundle(bootstrap)


async def follow_bucket(policy: PolicyTable, connection: Connection, counters: Counters, in_force: InForce) -> None:
    """Put in force what the bucket says, until cancelled."""
    said = ""
    while True:
        try:
            async with open_sync(CACHE, policy, connection, counters=counters, in_force=in_force):
                await asyncio.get_running_loop().create_future()
        except ConfigurationError as error:
            if error.detail != said:
                said = error.detail
                _log.warning("the callout goes on with the policy that it has: %s", said)
        await asyncio.sleep(AGAIN_AFTER)

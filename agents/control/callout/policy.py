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
from sealbus.policies.bundle.files import load_bundle, write_file

__all__ = ["CACHE", "first_policy", "follow_bucket"]

_log: Final = logging.getLogger(__name__)

CACHE: Final = "callout"
"""Folder of its own in `policy.cache`."""

AGAIN_AFTER: Final = 1.0
"""Seconds to the next look into a bucket that has no policy yet."""


def first_policy(policy: PolicyTable, bootstrap: Path | None) -> PolicyTable:
    """Return the settings of the engine that decides from the start; those of `policy` unless it is a bucket.

    Only the embedded engine reads a bundle: an OPA has its own from elsewhere. `bootstrap` is verified by `policy.keys`
    and counts only where nothing was ever taken from the bucket. Raises `ConfigurationError`, one line, for what is
    missing or not to be believed. Blocks.
    """
    if policy.bucket is None or policy.engine != "embedded":
        return policy
    if policy.cache is None:
        raise ConfigurationError("policy.cache is not set: the policy from the bus is kept in this folder")
    file = policy.cache / CACHE / "composed" / "bundle.tar.gz"
    if not file.exists():
        if bootstrap is None:
            raise ConfigurationError(
                "control.callout.bootstrap is not set: nobody can read the bucket before the callout has a policy"
            )
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(load_bundle(bootstrap).raw, file)
    # What lies there is its own: verified part by part before it was composed, or given by the operator.
    return policy.model_copy(update={"bundle": str(file), "keys": ()})


async def follow_bucket(policy: PolicyTable, connection: Connection, counters: Counters) -> None:
    """Keep the file of `first_policy` what the bucket says, until cancelled."""
    said = ""
    while True:
        try:
            async with open_sync(CACHE, policy, connection, counters=counters):
                await asyncio.get_running_loop().create_future()
        except ConfigurationError as error:
            if error.detail != said:
                said = error.detail
                _log.warning("the callout goes on with the policy that it has: %s", said)
        await asyncio.sleep(AGAIN_AFTER)

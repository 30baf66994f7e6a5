"""The policy that the callout decides by, if policies come from a bucket of the NATS that it guards.

The callout must answer before anyone can read the bucket. So it starts with the last policy it had, or a bundle supplied by
the operator, and follows the bucket once it has admitted its own process.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from sealbus.agents.runtime.policy.source import file_verifier, kept_bundle, open_sync
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.files import load_bundle
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.lint.module import PolicyRefused

__all__ = ["CACHE", "first_bundle", "follow_bucket"]

_log: Final = logging.getLogger(__name__)

CACHE: Final = "callout"
"""The callout's folder within `policy.cache`."""

AGAIN_AFTER: Final = 1.0
"""Seconds until the next look into a bucket without a policy."""


def first_bundle(policy: PolicyTable, bootstrap: Path | None) -> Bundle | None:
    """Return the bundle to decide by from the start if `policy` is a bucket, else None.

    Only an embedded engine reads a bundle: an OPA gets its own elsewhere. `bootstrap` counts only if no policy was ever
    taken from the bucket, and is verified as what is pushed there. Raises `ConfigurationError` for what is missing or may not
    be put in force. Blocks.
    """
    if policy.bucket is None or not policy.in_process:
        return None
    kept = kept_bundle(CACHE, policy)
    if kept is not None:
        return kept
    if bootstrap is None:
        raise ConfigurationError(
            "control.callout.bootstrap is not set: nobody can read the bucket before the callout has a policy"
        )
    try:
        return load_bundle(bootstrap, file_verifier(policy))
    except PolicyRefused as refused:
        raise ConfigurationError(
            f"control.callout.bootstrap: {refused.detail}; make it by `sealbus policy build FOLDER --serial 1 -o FILE` and "
            "`sealbus policy sign FILE --name platform --key KEY`, with a key of policy.keys"
        ) from refused


async def follow_bucket(policy: PolicyTable, connection: Connection, counters: Counters, in_force: InForce) -> None:
    """Put in force what the bucket holds, until cancelled."""
    said = ""
    while True:
        try:
            async with open_sync(CACHE, policy, connection, counters=counters, in_force=in_force):
                await asyncio.get_running_loop().create_future()
        except ConfigurationError as error:
            if error.detail != said:
                said = error.detail
                _log.warning("the callout keeps using its present policy: %s", said)
        await asyncio.sleep(AGAIN_AFTER)

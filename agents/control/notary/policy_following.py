"""Follows the deployment's policy for the archive, from where every process has it: the bucket, or the file.

Evidence does not wait for policies: whatever is wrong with them is said, tried again, and ends nothing.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from sealbus.agents.control.notary.policy_archive import PolicyArchive
from sealbus.agents.former_policies import former_policy
from sealbus.agents.policy_source import anchors_of, file_verifier, open_sync
from sealbus.agents.policy_store import PolicyStore
from sealbus.agents.policy_sync import PolicySync
from sealbus.agents.settings import PolicySettings
from sealbus.bus.connection import Connection
from sealbus.bus.counters import Counters
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.policies.bundle import load_bundle
from sealbus.policies.watch import changes, mark

__all__ = ["AGAIN_AFTER", "follow_policy"]

_log: Final = logging.getLogger(__name__)

AGAIN_AFTER: Final = 1.0
"""Seconds to the next try where there is no policy, or the store is not to be read."""
NONE: Final = "policies are not archived: neither a bucket nor a file is set (policy.bundle)"


async def follow_policy(
    name: str, policy: PolicySettings, connection: Connection, archive: PolicyArchive, *, counters: Counters
) -> None:
    """Offer `archive` each policy that is current, and former ones that it wants, until cancelled.

    `name` is the folder's in `policy.cache`. Without a bucket or a file there is nothing to do, which is said.
    """
    said = ""
    while True:
        try:
            if policy.bucket is not None:
                async with open_sync(name, policy, connection, counters=counters) as sync:
                    await _follow_bucket(sync, policy, PolicyStore(connection, policy.bucket), archive)
            elif policy.bundle is not None:
                await _follow_file(policy.bundle, policy, archive)
            else:
                archive.problem = NONE
                _log.warning("%s", NONE)
                return
        except ConfigurationError as error:
            archive.problem = f"policies are not archived: {error.detail}"
            if archive.problem != said:
                said = archive.problem
                _log.warning("%s", said)
        await asyncio.sleep(AGAIN_AFTER)


async def _follow_bucket(sync: PolicySync, policy: PolicySettings, store: PolicyStore, archive: PolicyArchive) -> None:
    anchors = await asyncio.to_thread(anchors_of, policy)

    async def look_for_former() -> None:
        while True:
            revision = await archive.wanted()
            try:
                bundle = await former_policy(store, anchors, revision)
            except BusUnavailable:
                await asyncio.sleep(AGAIN_AFTER)
                continue
            if bundle is None:
                _log.warning("no bundle is kept of policy %s: decisions by it cannot be made again", revision)
                archive.give_up(revision)
            else:
                archive.offer(bundle)

    async with asyncio.TaskGroup() as group:
        group.create_task(look_for_former(), name="former-policies")
        while True:
            sync.changed.clear()
            archive.problem = sync.problem
            if sync.composed is not None:
                archive.offer(sync.composed)
            await sync.changed.wait()


async def _follow_file(file: Path, policy: PolicySettings, archive: PolicyArchive) -> None:
    verifier = await asyncio.to_thread(file_verifier, policy)
    since = mark(file)
    bundle = await asyncio.to_thread(load_bundle, file, verifier)
    archive.offer(bundle)
    archive.problem = ""
    async for _ in changes(file, since):
        try:
            bundle = await asyncio.to_thread(load_bundle, file, verifier, after=bundle)
        except ConfigurationError as error:
            archive.problem = f"the newest policy is not archived: {error.detail}"
            _log.warning("%s", archive.problem)
        else:
            archive.offer(bundle)
            archive.problem = ""

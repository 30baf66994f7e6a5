"""The policy by which the callout decides, if policies come from a bucket of the NATS that it guards.

The callout must answer before anyone can read the bucket. So it starts with the policy that it kept, or with a bundle
supplied by the operator, and follows the bucket once it has admitted its own process. Denials newer than the operator's
bundle are only in the bucket. So that bundle admits no other process before the bucket was read.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sealbus.agents.control.callout.responder import ConnectEngine
from sealbus.agents.runtime.policy.source import file_verifier, kept_bundle, open_sync
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.bus.nats.api import stream_state
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, PolicyUnavailable
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.files import load_bundle
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.decision.connect import ConnectAnswer
from sealbus.policies.lint.module import PolicyRefused

_logger: Final = logging.getLogger(__name__)

CACHE: Final = "callout"
"""The callout's folder within `policy.cache`."""

AGAIN_AFTER: Final = 1.0
"""Seconds until a bucket without a policy is read again."""

WAITING: Final = 16
"""Most connections that wait until the bucket was read: a quarter of those that a responder answers at a time
(`CONCURRENCY`)."""

NOT_KNOWN: Final = "the bucket of policies was not read yet: only this process is admitted by control.callout.bootstrap"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstBundle:
    """The policy at the start. `bootstrap` is whether it is the operator's file, and not the policy that was kept."""

    bundle: Bundle
    bootstrap: bool


def first_bundle(policy: PolicyTable, bootstrap: Path | None) -> FirstBundle | None:
    """Return the bundle to decide by from the start if `policy` is a bucket, else None.

    Only an embedded engine reads a bundle: OPA fetches its own. `bootstrap` counts only if no policy was ever read from the
    bucket, and is verified like a pushed bundle. Raises `ConfigurationError` for a bundle that is missing or may not be put
    in force. Blocks.
    """
    if policy.bucket is None or not policy.in_process:
        return None
    kept = kept_bundle(CACHE, policy)
    if kept is not None:
        return FirstBundle(bundle=kept, bootstrap=False)
    if bootstrap is None:
        raise ConfigurationError(
            "control.callout.bootstrap is not set: no process can read the bucket before the callout has a policy"
        )
    try:
        return FirstBundle(bundle=load_bundle(bootstrap, file_verifier(policy)), bootstrap=True)
    except PolicyRefused as refused:
        raise ConfigurationError(
            f"control.callout.bootstrap: {refused.detail}; make it by `sealbus policy build FOLDER --serial 1 -o FILE` and "
            "`sealbus policy sign FILE --name platform --key KEY`, with a key of policy.keys"
        ) from refused


class StartingEngine:
    """An engine that decides only about the workload `own` until `known` is set, and then about all workloads.

    Others wait until then, but only `WAITING` at a time, so that requests of `own` find a place. The callout ends each wait
    (`ANSWER_SHARE`). Further requests are refused with `PolicyUnavailable`; their clients connect to NATS again.
    """

    def __init__(self, engine: ConnectEngine, own: SpiffeId, known: asyncio.Event) -> None:
        self._engine = engine
        self._own = str(own)
        self._known = known
        self._waiting = 0

    async def connect(self, document: bytes) -> ConnectAnswer:
        """Return the engine's decision on one connection (`PolicyEngine.connect`)."""
        if not self._known.is_set() and json.loads(document)["subject"]["id"] != self._own:
            if self._waiting >= WAITING:
                return PolicyUnavailable(NOT_KNOWN)
            self._waiting += 1
            try:
                await self._known.wait()
            finally:
                self._waiting -= 1
        return await self._engine.connect(document)


async def follow_bucket(
    policy: PolicyTable, connection: Connection, counters: Counters, in_force: InForce, known: asyncio.Event
) -> None:
    """Put the bucket's policy in force, until cancelled; set `known` once it is, or if no policy was ever pushed."""
    logged = ""
    while True:
        try:
            if not known.is_set() and await _never_pushed(policy, connection):
                known.set()
            async with open_sync(CACHE, policy, connection, counters=counters, in_force=in_force):
                known.set()
                await asyncio.get_running_loop().create_future()
        except (ConfigurationError, BusUnavailable) as error:
            if error.detail != logged:
                logged = error.detail
                _logger.warning("the callout keeps using its present policy: %s", logged)
        await asyncio.sleep(AGAIN_AFTER)


async def _never_pushed(policy: PolicyTable, connection: Connection) -> bool:
    """Return whether no policy was ever pushed; a bucket may also be empty later. Raises `BusUnavailable` if unknown."""
    if policy.bucket is None:
        raise ConfigurationError("policy.bundle is not a bucket: set nats://policies")
    objects = PolicyStore(connection, policy.bucket).objects
    state = await stream_state(objects.request, objects.stream)
    return state is None or state.last == 0

"""Where a process has its policy from: a file, or a bucket that is kept in one; and what of it is no engine's business.

Revocations by time (`sealbus deny add --issued-before`) are part of the policy's data and act before any policy is asked. So
every process reads them from its bundle, whichever engine it has; without one (an OPA elsewhere, and no `policy.bundle`) it
knows of none.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.policy.sync import PolicySync, policy_synced
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.agents.runtime.settings.state_folder import lock_folder
from sealbus.bus.background import Background
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import PublicKey, key_id, read_public_key
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.files import changes, load_bundle, mark
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.bundle.revocations import issued_before
from sealbus.policies.bundle.signing import BundleVerifier

__all__ = ["PolicySource", "Revocations", "anchors_of", "file_verifier", "open_source", "open_sync"]

_log: Final = logging.getLogger(__name__)

_NONE: Final[Mapping[SpiffeId, int]] = MappingProxyType({})
REPLICAS: Final = 64
"""Processes of one agent on one machine, each with a folder of its own."""
_LOCK: Final = "lock"


class Revocations:
    """The revocations by time of the bundle `file`, and within 200 ms of its replacement those of the new one.

    A bundle that is refused (`load_bundle`) changes nothing.
    """

    def __init__(self, file: Path, verifier: BundleVerifier | None = None) -> None:
        self.before: Mapping[SpiffeId, int] = _NONE
        self._file = file
        self._verifier = verifier
        self._bundle: Bundle | None = None
        self._since = mark(file)

    async def start(self) -> None:
        """Read the file once. Raises `ConfigurationError` where it is none, or not to be believed."""
        self._since = mark(self._file)
        await self._load()

    async def run(self) -> None:
        """Follow the file until cancelled."""
        async for _ in changes(self._file, self._since):
            try:
                await self._load()
            except ConfigurationError as error:
                _log.warning("revocations stay as they are: %s", error.detail)

    async def _load(self) -> None:
        self._bundle = await asyncio.to_thread(load_bundle, self._file, self._verifier, after=self._bundle)
        self.before = issued_before(self._bundle.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    """`policy` names the file that the engine is to take; the rest is current at each call."""

    policy: PolicyTable
    revoked_before: Callable[[], Mapping[SpiffeId, int]]
    problem: Callable[[], str]


@asynccontextmanager
async def open_source(
    name: str, policy: PolicyTable, connection: Connection, *, counters: Counters | None = None
) -> AsyncGenerator[PolicySource, None]:
    """Follow the policy that the settings name for the workload `name`.

    Raises `ConfigurationError`, one line, for a setting that is missing and for a policy that may not be put in force.
    """
    async with AsyncExitStack() as stack:
        sync: PolicySync | None = None
        if policy.bucket is not None:
            sync = await stack.enter_async_context(open_sync(name, policy, connection, counters=counters))
            # It was verified part by part, and composed here: nobody else signs that.
            policy = policy.model_copy(update={"bundle": str(sync.bundle), "keys": ()})

        def problem() -> str:
            return sync.problem if sync is not None else ""

        if policy.file is None:
            yield PolicySource(policy=policy, revoked_before=lambda: _NONE, problem=problem)
            return
        revocations = Revocations(policy.file, file_verifier(policy))
        await revocations.start()
        group = await stack.enter_async_context(Background())
        following = group.create_task(revocations.run(), name="revocations")
        try:
            yield PolicySource(policy=policy, revoked_before=lambda: revocations.before, problem=problem)
        finally:
            following.cancel()


@asynccontextmanager
async def open_sync(
    name: str,
    policy: PolicyTable,
    connection: Connection,
    *,
    counters: Counters | None = None,
    check: Callable[[Bundle], None] | None = None,
) -> AsyncGenerator[PolicySync, None]:
    """Follow the bucket that the settings name; `check` as in `PartSet`.

    Raises `ConfigurationError`, one line that names what is missing.
    """
    if policy.bucket is None:
        raise ConfigurationError("policy.bundle is no bucket: say nats://policies")
    if policy.cache is None:
        raise ConfigurationError("policy.cache is not set: the policy from the bus is kept in this folder")
    if not policy.keys:
        raise ConfigurationError("policy.keys is not set: say which keys sign the policy that is taken from the bus")
    anchors = await asyncio.to_thread(anchors_of, policy)
    async with AsyncExitStack() as stack:
        folder, lock = await asyncio.to_thread(_own_folder, policy.cache, name)
        stack.callback(os.close, lock)
        sync = PolicySync(PolicyStore(connection, policy.bucket), folder, anchors, counters=counters, check=check)
        yield await stack.enter_async_context(policy_synced(sync))


def _own_folder(cache: Path, name: str) -> tuple[Path, int]:
    """Return the first folder for `name` that no living process has, and the lock that makes it ours.

    Two in one folder could put back what the other has just replaced.
    """
    for number in range(1, REPLICAS + 1):
        folder = cache / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return folder, lock_folder(folder, _LOCK)
        except OSError as error:
            raise ConfigurationError(f"policy.cache: {folder} cannot be written: {error.strerror}") from error
        except ConfigurationError:
            continue
    raise ConfigurationError(f"policy.cache: {REPLICAS} processes of {name} have all folders in {cache}")


def anchors_of(policy: PolicyTable) -> Mapping[str, PublicKey]:
    """Return the keys of `policy.keys` by key id. Raises `ConfigurationError` for a file that holds none. Blocks."""
    found: dict[str, PublicKey] = {}
    for file in policy.keys:
        try:
            pem = file.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"policy.keys: {file} cannot be read: {error.strerror}") from error
        key = read_public_key(pem, name=f"policy.keys: {file}")
        found[key_id(key)] = key
    return MappingProxyType(found)


def file_verifier(policy: PolicyTable) -> BundleVerifier | None:
    """Return who verifies the bundle file of `policy`, None where it need not be signed. Raises and blocks as above."""
    return BundleVerifier(keys=anchors_of(policy), scope=PLATFORM) if policy.keys else None

"""The source of a process's policy: a file, or a bucket that is mirrored to one; and the revocations by time.

Revocations by time (`sealbus deny add --issued-before`) are part of the policy's data and take effect before the policy is
asked. So every process reads them from its bundle, with any engine. A process without a bundle (an OPA elsewhere, and no
`policy.bundle`) has no such revocations.
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

from sealbus.agents.files import file_errors
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.policy.sync import PolicySync, kept_parts, policy_synced
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.agents.runtime.settings.state_folder import lock_folder
from sealbus.bus.background import Background
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import PublicKey, key_id, read_public_key
from sealbus.policies.bundle.composition import PartSet
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.in_force import BundleFile, InForce
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.bundle.signing import BundleVerifier
from sealbus.policies.lint.module import PolicyRefused

_logger: Final = logging.getLogger(__name__)

REPLICAS: Final = 64
"""Most processes of one agent on one machine; each has its own folder."""
_LOCK: Final = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    """A process's policy: embedded engines decide by `in_force`, which is empty if only an OPA elsewhere has the policy."""

    in_force: InForce
    problem: Callable[[], str] = str
    """Why the newest policy of a bucket is not in force; empty if all is well."""


@asynccontextmanager
async def open_source(
    name: str, policy: PolicyTable, connection: Connection, *, counters: Counters | None = None
) -> AsyncGenerator[PolicySource, None]:
    """Follow the policy that the settings name for the workload `name`. Only a bucket needs the `connection` entered.

    Raises `ConfigurationError`, one line, for a missing setting and for a policy that must not be put in force.
    """
    if policy.bucket is not None:
        async with open_sync(name, policy, connection, counters=counters) as sync:
            yield PolicySource(in_force=sync.in_force, problem=lambda: sync.problem)
    elif policy.file is not None:
        file = BundleFile(policy.file, file_verifier(policy))
        await file.start()
        async with Background() as group:
            following = group.create_task(file.run(), name="policy-file")
            try:
                yield PolicySource(in_force=file.in_force)
            finally:
                following.cancel()
    else:
        yield PolicySource(in_force=InForce())


@asynccontextmanager
async def open_sync(
    name: str,
    policy: PolicyTable,
    connection: Connection,
    *,
    counters: Counters | None = None,
    check: Callable[[Bundle], None] | None = None,
    in_force: InForce | None = None,
    for_opa: bool = False,
) -> AsyncGenerator[PolicySync, None]:
    """Follow the bucket that the settings name, and put its policy into `in_force`; `check` is as in `PartSet`.

    The composed bundle is kept in a file `for_opa`, and with any engine that is an OPA. Raises `ConfigurationError`, one
    line that names the missing setting.
    """
    bucket, cache, anchors = await asyncio.to_thread(_bucket_settings, policy)
    async with AsyncExitStack() as stack:
        folder, lock = await asyncio.to_thread(_own_folder, cache, name)
        stack.callback(os.close, lock)
        sync = PolicySync(
            PolicyStore(connection, bucket),
            folder,
            anchors,
            counters=counters,
            check=check,
            in_force=in_force,
            for_opa=for_opa or not policy.in_process,
        )
        yield await stack.enter_async_context(policy_synced(sync))


def kept_bundle(name: str, policy: PolicyTable) -> Bundle | None:
    """Return the composition of the parts that the process `name` kept from the bucket, each verified again; else None.

    Raises `ConfigurationError` as `open_sync` does. Blocks.
    """
    _, cache, anchors = _bucket_settings(policy)
    parts = PartSet(anchors)
    for part, raw in kept_parts(cache / name):
        try:
            parts.offer(part, raw)
        except PolicyRefused as refused:
            _logger.warning("policy part %s in %s is refused: %s", part, cache / name, refused.detail)
    return parts.composed


def _bucket_settings(policy: PolicyTable) -> tuple[str, Path, Mapping[str, PublicKey]]:
    """Return the bucket, the folder that keeps its content, and the keys that sign it."""
    if policy.bucket is None:
        raise ConfigurationError("policy.bundle is not a bucket: set nats://policies")
    if policy.cache is None:
        raise ConfigurationError("policy.cache is not set: it names the folder that keeps the policy from the bus")
    if not policy.keys:
        raise ConfigurationError("policy.keys is not set: it names the keys that sign the policy from the bus")
    return policy.bucket, policy.cache, anchors_of(policy)


def _own_folder(cache: Path, name: str) -> tuple[Path, int]:
    """Return the first folder for `name` that no running process has, and the lock by which this process has it.

    Of two processes in one folder, one could put back a policy that the other has just replaced.
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
    """Return the keys of `policy.keys` by key id. Raises `ConfigurationError` for a file that holds no key. Blocks."""
    keys: dict[str, PublicKey] = {}
    for file in policy.keys:
        with file_errors(f"policy.keys: {file} cannot be read"):
            pem = file.read_bytes()
        key = read_public_key(pem, name=f"policy.keys: {file}")
        keys[key_id(key)] = key
    return MappingProxyType(keys)


def file_verifier(policy: PolicyTable) -> BundleVerifier | None:
    """Return the verifier of the bundle file of `policy`, None if it need not be signed; as `anchors_of` otherwise."""
    return BundleVerifier(keys=anchors_of(policy), scope=PLATFORM) if policy.keys else None

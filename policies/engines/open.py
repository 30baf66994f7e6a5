"""A policy opened for questions of its own, on either engine, apart from any running engine."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from sealbus.policies.bundle.files import build_bundle, load_bundle, write_bundle
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.engines.embedded import EmbeddedEngine
from sealbus.policies.engines.sidecar import SidecarEngine
from sealbus.policies.opa.process import OpaProcess

DEADLINE: Final = 60.0
"""Seconds for one batch. Only the caller waits for these answers."""


@asynccontextmanager
async def open_policy(
    policy: Path, *, opa: Path | None = None, deadline: float = DEADLINE
) -> AsyncGenerator[PolicyEngine, None]:
    """Open an engine that decides by `policy`, a policy folder or a bundle file, as it is now.

    It is the embedded engine or, with `opa`, a process of that executable, which ends with the block. Raises
    `PolicyRefused` with file and line, and `ConfigurationError` if the policy cannot be read or OPA cannot be run.
    """
    bundle = await asyncio.to_thread(bundle_of, policy)
    with tempfile.TemporaryDirectory(prefix="sealbus-") as name:
        file = Path(name) / "policy" / "bundle.tar.gz"
        file.parent.mkdir()
        await asyncio.to_thread(write_bundle, bundle, file)
        if opa is None:
            async with EmbeddedEngine(file, deadline=deadline) as embedded:
                yield embedded
        else:
            socket = Path(name) / "opa" / "opa.sock"
            async with OpaProcess(opa, socket=socket, bundle=file), SidecarEngine(socket, deadline=deadline) as sidecar:
                yield sidecar


def bundle_of(policy: Path) -> Bundle:
    """Return the checked bundle of `policy`, a policy folder or a bundle file; raise as `open_policy` does. Blocks."""
    return build_bundle(policy) if policy.is_dir() else load_bundle(policy)

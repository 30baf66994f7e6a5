"""The settings file that `sealbus dev` writes for the commands in other terminals."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sealbus.envelopes.spiffe_id import SpiffeId, TrustDomain

__all__ = ["write_settings"]


def write_settings(
    path: Path,
    *,
    trust_domain: TrustDomain,
    nats: str,
    server_id: SpiffeId,
    workload_api: str,
    engine: str,
    bundle: Path,
    opa: str,
    minter: SpiffeId,
    max_bytes: int,
) -> None:
    """Write `path` by rename, mode 0600. TOML basic strings and JSON strings are the same for what stands here."""
    lines = [
        "# Written by `sealbus dev`, and gone when it stops.",
        f"trust_domain = {json.dumps(trust_domain.name)}",
        f"nats = [{json.dumps(nats)}]",
        f"nats_ids = [{json.dumps(server_id.value)}]",
        f"workload_api = {json.dumps(workload_api)}",
        "[policy]",
        f"engine = {json.dumps(engine)}",
        f"bundle = {json.dumps(str(bundle))}",
        *([f"opa = {json.dumps(opa)}"] if opa else []),
        "[context]",
        f"minters = [{json.dumps(minter.value)}]",
        "[streams.max_bytes]",
        f"tasks = {max_bytes}",
        f"audit = {max_bytes}",
    ]
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    temporary.replace(path)

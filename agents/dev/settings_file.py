"""The settings file that `sealbus dev` writes for the commands in other terminals."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sealbus.agents.dev.declared import Declared
from sealbus.agents.settings_sources import Key, dotted
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.subjects import OwnSubject

if TYPE_CHECKING:
    from sealbus.agents.dev.notary import DevLog

__all__ = ["write_settings"]


def write_settings(
    path: Path,
    *,
    declared: Declared,
    issuer: str,
    access: Path,
    nats: str,
    server_id: SpiffeId,
    workload_api: str,
    engine: str,
    bundle: Path,
    opa: str,
    edge_id: SpiffeId,
    edge_address: str,
    token_service: str,
    actions: Sequence[str],
    max_bytes: int,
    policy: Path,
    log: DevLog | None = None,
) -> None:
    """Write `path` by rename, mode 0600. TOML basic strings and JSON strings are the same for what stands here."""
    lines = [
        "# Written by `sealbus dev`, and gone when it stops.",
        f"trust_domain = {_text(declared.trust_domain)}",
        f"nats = [{_text(nats)}]",
        f"nats_ids = [{_text(server_id.value)}]",
        f"workload_api = {_text(workload_api)}",
        "[policy]",
        f"engine = {_text(engine)}",
        f"bundle = {_text(str(bundle))}",
        *([f"opa = {_text(opa)}"] if opa else []),
        "[agents]",
        f"template = {_text(declared.template)}",
        *(
            f"{_text(name)} = {_text(spiffe_id.value)}"
            for name, spiffe_id in {"edge": edge_id, **declared.table}.items()
        ),
        *_tables(
            {
                ("context", "minters"): [edge_id.value],
                ("streams", "max_bytes", "tasks"): max_bytes,
                ("streams", "max_bytes", "audit"): max_bytes,
                **declared.kept,
            }
        ),
        *(line for one in declared.own for line in _own_subject(one)),
        "[edge]",
        f"address = {_text(edge_address)}",
        f"resource = {_text(f'http://{edge_address}')}",
        f"token_service = {_text(token_service)}",
        f"actions = {_text(list(actions))}",
        "[[edge.issuers]]",
        f"issuer = {_text(issuer)}",
        'algorithms = ["ES256"]',
        # All that users were declared with: what an edge passes on is an allow-list, also here.
        "[edge.issuers.claims]",
        *(f"{name} = {_text(name)}" for name in sorted({claim for user in declared.users for claim in user.claims})),
        *(_notary(log) if log is not None else []),
        "[client]",
        f"token_service = {_text(f'https://{token_service}')}",
        "[dev]",
        f"issuer = {_text(issuer)}",
        f"access = {_text(str(access))}",
        f"policy = {_text(str(policy))}",
    ]
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    temporary.replace(path)


def _text(value: object) -> str:
    # Not as JSON's escapes for what is not ASCII: TOML has no surrogates.
    return json.dumps(value, ensure_ascii=False)


def _tables(values: Mapping[Key, object]) -> list[str]:
    lines = []
    for table in dict.fromkeys(key[0] for key in values):
        lines.append(f"[{table}]")
        lines += [f"{dotted(key[1:])} = {_text(value)}" for key, value in values.items() if key[0] == table]
    return lines


def _notary(log: DevLog) -> list[str]:
    return [
        "[control.notary]",
        f"origin = {_text(log.origin)}",
        f"keys = [{_text(str(log.key))}]",
        f"folder = {_text(str(log.folder))}",
    ]


def _own_subject(one: OwnSubject) -> list[str]:
    return [
        f"[subjects.{_text(one.subject)}]",
        f"kind = {_text(str(one.kind))}",
        f"owner = {_text(one.owner.value)}",
        f"action = {_text(one.action)}",
    ]

"""Settings: `sealbus.toml`, overridden by `SEALBUS_*`, overridden by flags; frozen, typed, each with its origin.

::

    settings = load_settings()
    settings.names.id_of("pricing")
    for line in settings.lines: print(line.key, line.value, line.origin)      # what `sealbus doctor` shows
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self, cast

from pydantic import BaseModel, ValidationError

from sealbus.agents.runtime.settings.schema import ControlTable, Document, EdgeTable, OwnSubjectTable, PolicyTable
from sealbus.agents.runtime.settings.sources import (
    DEFAULT,
    Entry,
    Flag,
    Key,
    Origin,
    dotted,
    environment_entries,
    file_entries,
    flag_entries,
    variable,
)
from sealbus.agents.runtime.settings.state_folder import DEV_LOCK, STATE_FOLDER, is_locked
from sealbus.envelopes.errors import ConfigurationError, EnvelopeError
from sealbus.envelopes.lifetimes import Lifetimes
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = ["Flag", "Origin", "PolicySettings", "SettingLine", "Settings", "find_settings_file", "load_settings"]

_log: Final = logging.getLogger(__name__)

CONFIG_VARIABLE: Final = "SEALBUS_CONFIG"
SPIFFE_VARIABLE: Final = "SPIFFE_ENDPOINT_SOCKET"
FILE_NAME: Final = "sealbus.toml"
SERVER_PATH: Final = "/nats"
"""Path of a NATS server's SPIFFE ID in the local trust domain, unless `nats_ids` says otherwise."""
OPA_PATH: Final = "/opa"
"""Path of a central OPA's SPIFFE ID in the local trust domain, unless `policy.opa_ids` says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """Which engine decides, and where it finds its policy. `deadline` is seconds for one batch of decisions."""

    engine: str
    bundle: Path | None
    opa: tuple[str, ...]
    """A unix socket's path, `unix:` before it or not, or https URLs."""
    deadline: float
    opa_ids: frozenset[SpiffeId] = frozenset()
    """Who may answer at the URLs."""
    bucket: str | None = None
    """The bucket in NATS that the policy is pushed to, in place of `bundle`."""
    cache: Path | None = None
    keys: tuple[Path, ...] = ()
    """Files of the public keys that sign the policy; none where it need not be signed."""
    serve: str | None = None
    serve_key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingLine:
    """One setting in force, for people: `value` is as in TOML but for quotes, `not set` where there is none."""

    key: str
    value: str
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings in force. Sizes are bytes, waits are seconds; `max_bytes` is by stream name."""

    trust_domain: TrustDomain
    nats: tuple[str, ...]
    nats_ids: frozenset[SpiffeId]
    workload_api: str | None
    identity_within: float
    identity_patient: bool
    """Whether a Workload API that is not there, or has no identity yet, is waited for so long."""
    command_within: float
    policy: PolicySettings
    names: Names
    minters: frozenset[SpiffeId]
    lifetimes: Lifetimes
    """How long contexts and chains may live: `context.start`, `context.life`, `chain.life`, `chain.after`."""
    max_bytes: Mapping[str, int]
    replicas: int
    own_subjects: tuple[OwnSubject, ...]
    audit_within: float
    audit_denials: int
    audit_redact: Mapping[str, tuple[str, ...]]
    """JSON pointers into input documents by subject pattern: what is not recorded."""
    audit_bodies: tuple[str, ...]
    """Patterns of subjects whose bodies are recorded."""
    audit_spool: Path | None
    """The folder in which each identity has one of its own for records that the stream does not have yet."""
    audit_spool_max: int
    pending_calls: int
    replay_entries: int
    health: str | None
    concurrency: int
    batch: int
    ack_wait: float
    max_ack_pending: int
    drain: float
    dev_issuer: str | None
    """Issuer of a running `sealbus dev`, and the file by which scripts get tokens from it."""
    dev_access: Path | None
    dev_policy: Path | None
    """The folder that it makes its policy of."""
    edge: EdgeTable
    control: ControlTable
    token_service: str | None
    """URL of the edge's token service, for clients."""
    lines: tuple[SettingLine, ...] = field(repr=False)

    def for_command(self) -> Self:
        """Return these settings for a command that a person waits for: it does not wait for who may come later."""
        return replace(self, identity_within=self.command_within, identity_patient=False)


def load_settings(
    config: str | Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Sequence[Flag] = (),
    folder: Path | None = None,
) -> Settings:
    """Read the settings file (`find_settings_file`), the environment and the flags; return what is in force.

    `SPIFFE_ENDPOINT_SOCKET` is where the Workload API is unless `workload_api` is said anywhere.

    Raises `ConfigurationError`, one line that names the key, where it was said and what to do: for an unknown key, a
    value of the wrong form, or one that must be said and was not.
    """
    environment = os.environ if environment is None else environment
    path = find_settings_file(config, environment=environment, folder=folder)
    entries = {
        **_workload_api(environment),
        **(file_entries(path) if path is not None else {}),
        **environment_entries(environment),
        **flag_entries(flags),
    }
    document = _validated(entries)
    names = Names(document.trust_domain, document.agents.template, dict(document.agents.__pydantic_extra__ or {}))
    server_ids = document.nats_ids or (document.trust_domain.id(SERVER_PATH),)
    opa_ids = document.policy.opa_ids or (document.trust_domain.id(OPA_PATH),)
    in_force = {"nats_ids": server_ids, "policy": document.policy.model_copy(update={"opa_ids": opa_ids})}
    sizes = {name.upper(): size for name, size in document.streams.max_bytes if size is not None}
    return Settings(
        trust_domain=document.trust_domain,
        nats=document.nats,
        nats_ids=frozenset(server_ids),
        workload_api=document.workload_api,
        identity_within=document.identity.within,
        identity_patient=True,
        command_within=document.identity.command_within,
        policy=_policy(document.policy, frozenset(opa_ids)),
        names=names,
        minters=frozenset(document.context.minters),
        lifetimes=Lifetimes(
            context_start=document.context.start * SECOND,
            context_life=document.context.life * SECOND,
            chain_life=document.chain.life * SECOND,
            chain_after=document.chain.after * SECOND if document.chain.after is not None else None,
        ),
        max_bytes=MappingProxyType(sizes),
        replicas=document.streams.replicas,
        own_subjects=tuple(_own_subject(subject, table, names) for subject, table in document.subjects.items()),
        audit_within=document.audit.within,
        audit_denials=document.audit.denials,
        audit_redact=MappingProxyType(dict(document.audit.redact)),
        audit_bodies=document.audit.bodies,
        audit_spool=document.audit.spool,
        audit_spool_max=document.audit.spool_max,
        pending_calls=document.limits.pending_calls,
        replay_entries=document.limits.replay_entries,
        health=document.health.address,
        concurrency=document.worker.concurrency,
        batch=document.worker.batch,
        ack_wait=document.worker.ack_wait,
        max_ack_pending=document.worker.max_ack_pending,
        drain=document.worker.drain,
        dev_issuer=document.dev.issuer,
        dev_access=document.dev.access,
        dev_policy=document.dev.policy,
        edge=document.edge,
        control=document.control,
        token_service=document.client.token_service,
        lines=tuple(_lines(document.model_copy(update=in_force), entries)),
    )


def find_settings_file(
    config: str | Path | None = None, *, environment: Mapping[str, str], folder: Path | None = None
) -> Path | None:
    """Return `config`, or the file that `SEALBUS_CONFIG` names; else that of a running `sealbus dev`, or sealbus.toml.

    The last two are looked for in `folder`, the current one unless said; `None` if there is none. Whether a named file
    is there is found out by reading it. What a killed `sealbus dev` left behind is ignored, with one line in the log.
    """
    named = config or environment.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    folder = folder or Path()
    written = folder / STATE_FOLDER / "dev.toml"
    if written.exists():
        if is_locked(written.parent, DEV_LOCK):
            return written
        _log.warning("%s is left of a `sealbus dev` that no longer runs, and is ignored", written)
    path = folder / FILE_NAME
    return path if path.exists() else None


def _workload_api(environment: Mapping[str, str]) -> dict[Key, Entry]:
    """Return what the variable of every SPIFFE workload says (SPIFFE_Workload_Endpoint.md section 4)."""
    socket = environment.get(SPIFFE_VARIABLE)
    return {("workload_api",): Entry(socket, Origin("environment", SPIFFE_VARIABLE))} if socket else {}


def _validated(entries: Mapping[Key, Entry]) -> Document:
    content: dict[str, object] = {}
    for key, entry in entries.items():
        table = content
        for part in key[:-1]:
            # A key is a value or a table, never both: that was seen to when the sources were read.
            table = cast("dict[str, object]", table.setdefault(part, {}))
        table[key[-1]] = entry.value
    try:
        return Document.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        # What was said wrongly comes before what was not said.
        first = min(found, key=lambda one: one["type"] == "missing")
        key = tuple(str(part) for part in first["loc"])
        raise ConfigurationError(_complaint(key, first["type"], first["msg"], entries)) from error


def _complaint(key: Key, kind: str, message: str, entries: Mapping[Key, Entry]) -> str:
    if kind == "missing":
        if key == ("policy",):
            key = ("policy", "engine")
        what = "embedded, sidecar or central" if key == ("policy", "engine") else "its value"
        how = f"say {what} in {FILE_NAME}, or in {variable(key)}, or run `sealbus dev` in this folder"
        return f"{dotted(key)} is not set: {how}"
    text = message.removeprefix("Value error, ")
    # The place may be inside of a value that was said, an item of a list for instance.
    said = next(key[:length] for length in range(len(key), 0, -1) if key[:length] in entries)
    return f"{entries[said].origin}: {dotted(said)}: {text[:1].lower()}{text[1:]}"


def _policy(table: PolicyTable, opa_ids: frozenset[SpiffeId]) -> PolicySettings:
    named = table.bundle or ""
    bucket = named.removeprefix("nats://") if named.startswith("nats://") else None
    return PolicySettings(
        engine=table.engine,
        bundle=Path(named) if named and bucket is None else None,
        opa=table.opa,
        deadline=table.deadline,
        opa_ids=opa_ids,
        bucket=bucket,
        cache=table.cache,
        keys=table.keys,
        serve=table.serve,
        serve_key=table.serve_key,
    )


def _own_subject(subject: str, table: OwnSubjectTable, names: Names) -> OwnSubject:
    key = ("subjects", subject)
    try:
        owner = SpiffeId.parse(table.owner) if table.owner.startswith("spiffe://") else names.id_of(table.owner)
        return OwnSubject(subject=subject, kind=Kind(table.kind), owner=owner, action=table.action or subject)
    except EnvelopeError as error:
        raise ConfigurationError(f"{dotted(key)}.owner: {table.owner!r} is not a SPIFFE ID") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{dotted(key)}: {error.detail}") from error


def _lines(document: Document, entries: Mapping[Key, Entry]) -> Iterator[SettingLine]:
    for key, value in _leaves(document, ()):
        entry = entries.get(key)
        yield SettingLine(key=dotted(key), value=_text(value), origin=entry.origin if entry is not None else DEFAULT)


def _leaves(value: object, key: Key) -> Iterator[tuple[Key, object]]:
    if isinstance(value, BaseModel | dict):
        for name, inner in value if isinstance(value, BaseModel) else value.items():
            yield from _leaves(inner, (*key, str(name)))
    else:
        yield key, value


def _text(value: object) -> str:
    if value is None:
        return "not set"
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)

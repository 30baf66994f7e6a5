"""Settings from `sealbus.toml`, overridden by `SEALBUS_*`, overridden by flags; frozen, typed, each with its origin.

::

    settings = load_settings()
    settings.names.id_of("pricing")
    for line in settings.lines: print(line.key, line.value, line.origin)      # what `sealbus doctor` shows
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar, cast

from pydantic import BaseModel, ValidationError

from sealbus.agents.runtime.settings.schema import ClientTable, Document, OwnSubjectTable, StreamsTable
from sealbus.agents.runtime.settings.source import (
    DEFAULT,
    Entry,
    Flag,
    Key,
    SettingOrigin,
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
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_logger: Final = logging.getLogger(__name__)

CONFIG_VARIABLE: Final = "SEALBUS_CONFIG"
SPIFFE_VARIABLE: Final = "SPIFFE_ENDPOINT_SOCKET"
FILE_NAME: Final = "sealbus.toml"
SERVER_PATH: Final = "/nats"
"""Path of a NATS server's SPIFFE ID in the local trust domain, unless `nats_ids` is set."""
OPA_PATH: Final = "/opa"
"""Path of a central OPA's SPIFFE ID in the local trust domain, unless `policy.opa_ids` is set."""


_UNSET: Final = Entry(None, DEFAULT)

Table = TypeVar("Table", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingLine:
    """One setting in force, for people: `value` is as in TOML but without quotes, `not set` if there is none."""

    key: str
    value: str
    origin: SettingOrigin


class Settings(Document):
    """All settings in force: those of `Document`, and values that follow from them. Sizes are bytes, waits are seconds."""

    _names: Names
    _own_subjects: tuple[OwnSubject, ...]
    _entries: Mapping[Key, Entry]
    _for_command: bool = False

    def model_post_init(self, entries: Mapping[Key, Entry], /) -> None:
        """Refuse impossible names and own subjects, and `development` outside `sealbus dev`; `entries` have the origins."""
        if self.development and self.dev.access is None:
            raise ConfigurationError(
                "development: only `sealbus dev` may tell requesters the texts behind errors: leave it out here"
            )
        self._names = Names(self.trust_domain, self.agents.template, dict(self.agents.__pydantic_extra__ or {}))
        self._own_subjects = tuple(
            _own_subject(subject, table, self._names) for subject, table in self.subjects.items()
        )
        self._entries = entries

    @property
    def names(self) -> Names:
        """Names and SPIFFE IDs from the table `agents`."""
        return self._names

    @property
    def own_subjects(self) -> tuple[OwnSubject, ...]:
        """The table `subjects`."""
        return self._own_subjects

    @property
    def minters(self) -> frozenset[SpiffeId]:
        """The workloads that may mint user contexts."""
        return frozenset(self.context.minters)

    @property
    def notaries(self) -> frozenset[SpiffeId]:
        """The workloads whose key books count."""
        return frozenset(self.trust.notaries)

    @property
    def lifetimes(self) -> Lifetimes:
        """How long contexts and chains may live."""
        return Lifetimes(
            context_start=self.context.start * SECOND,
            context_life=self.context.life * SECOND,
            chain_life=self.chain.life * SECOND,
            chain_after=self.chain.after * SECOND if self.chain.after is not None else None,
        )

    @property
    def max_bytes(self) -> Mapping[str, int]:
        """The configured sizes of streams, by stream name."""
        return {name.upper(): size for name, size in self.streams.max_bytes if size is not None}

    @property
    def identity_patient(self) -> bool:
        """Whether to wait for a Workload API that does not run or has no identity yet."""
        return not self._for_command

    @property
    def identity_within(self) -> float:
        """Seconds that the Workload API has to give the first identity."""
        return self.identity.command_within if self._for_command else self.identity.within

    @property
    def lines(self) -> tuple[SettingLine, ...]:
        """Every setting in force, for people."""
        return tuple(
            SettingLine(key=dotted(key), value=_text(value), origin=self._entries.get(key, _UNSET).origin)
            for key, value in _leaves(self, ())
        )

    def for_command(self) -> Self:
        """Return these settings for a command that a person waits for: it does not wait for an identity for long."""
        changed = self.model_copy()
        changed._for_command = True
        return changed


def load_settings(
    config: str | Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Sequence[Flag] = (),
    folder: Path | None = None,
) -> Settings:
    """Read the settings file (`find_settings_file`), the environment and the flags; return the settings in force.

    `SPIFFE_ENDPOINT_SOCKET` is the address of the Workload API unless `workload_api` is set anywhere.

    Raises `ConfigurationError`, one line that names the key, its origin and what to do, for an unknown key, a value of the
    wrong form, or a required value that is not set.
    """
    environment = os.environ if environment is None else environment
    entries = {**_workload_api(environment), **_entries(config, environment, flags, folder)}
    settings = _validated(Settings, entries, ())
    opa_ids = settings.policy.opa_ids or (settings.trust_domain.id(OPA_PATH),)
    return settings.model_copy(
        update={
            "nats_ids": settings.nats_ids or (settings.trust_domain.id(SERVER_PATH),),
            "policy": settings.policy.model_copy(update={"opa_ids": opa_ids}),
        }
    )


def load_client(
    config: str | Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Sequence[Flag] = (),
    folder: Path | None = None,
) -> ClientTable:
    """Return the table `client` alone, from the same sources: a person who logs in need not have a bus.

    Raises `ConfigurationError` as `load_settings` does, but not for a value that is missing elsewhere.
    """
    entries = _entries(config, os.environ if environment is None else environment, flags, folder)
    return _validated_table(ClientTable, entries, "client")


def load_streams(config: str | Path | None = None) -> StreamsTable:
    """Return the table `streams` alone: streams are sized before there is a bus. Raises `ConfigurationError` as above."""
    entries = _entries(config, os.environ, (), None)
    return _validated_table(StreamsTable, entries, "streams")


def find_settings_file(
    config: str | Path | None = None, *, environment: Mapping[str, str], folder: Path | None = None
) -> Path | None:
    """Return `config`, or the file that `SEALBUS_CONFIG` names; else the file of a running `sealbus dev`, or sealbus.toml.

    The last two are searched in `folder`, by default the current folder; `None` if there is neither. A named file need not
    exist. The file of a killed `sealbus dev` is ignored, with one line in the log.
    """
    configured = config or environment.get(CONFIG_VARIABLE)
    if configured:
        return Path(configured)
    folder = folder or Path()
    dev_file = folder / STATE_FOLDER / "dev.toml"
    if dev_file.exists():
        if is_locked(dev_file.parent, DEV_LOCK):
            return dev_file
        _logger.warning("%s is left over from a `sealbus dev` that no longer runs, and is ignored", dev_file)
    path = folder / FILE_NAME
    return path if path.exists() else None


def _workload_api(environment: Mapping[str, str]) -> dict[Key, Entry]:
    """Return the Workload API's address from the standard variable (SPIFFE_Workload_Endpoint.md section 4)."""
    socket = environment.get(SPIFFE_VARIABLE)
    return {("workload_api",): Entry(socket, SettingOrigin("environment", SPIFFE_VARIABLE))} if socket else {}


def _entries(
    config: str | Path | None, environment: Mapping[str, str], flags: Sequence[Flag], folder: Path | None
) -> dict[Key, Entry]:
    path = find_settings_file(config, environment=environment, folder=folder)
    return {
        **(file_entries(path) if path is not None else {}),
        **environment_entries(environment),
        **flag_entries(flags),
    }


def _validated_table(model: type[Table], entries: Mapping[Key, Entry], name: str) -> Table:
    return _validated(model, {key: entry for key, entry in entries.items() if key[0] == name}, (name,))


def _validated(model: type[Table], entries: Mapping[Key, Entry], above: Key) -> Table:
    """Return the `model` at the key `above`, made of `entries`, which have their whole keys."""
    content: dict[str, object] = {}
    for key, entry in entries.items():
        table = content
        for part in key[len(above) : -1]:
            # A key is a value or a table, never both: the sources were checked for that.
            table = cast("dict[str, object]", table.setdefault(part, {}))
        table[key[-1]] = entry.value
    try:
        return model.model_validate(content, context=entries)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        # Report wrong values before missing ones.
        first = min(details, key=lambda detail: detail["type"] == "missing")
        key = (*above, *(str(part) for part in first["loc"]))
        raise ConfigurationError(_complaint(key, first["type"], first["msg"], entries)) from error


def _complaint(key: Key, kind: str, message: str, entries: Mapping[Key, Entry]) -> str:
    if kind == "missing":
        if key == ("policy",):
            key = ("policy", "engine")
        value = "embedded, sidecar or central" if key == ("policy", "engine") else "its value"
        where = f"in {FILE_NAME}, or in {variable(key)}, or run `sealbus dev` in this folder"
        return f"{dotted(key)} is not set: say {value} {where}"
    text = message.removeprefix("Value error, ")
    # The place may be inside a configured value, an item of a list for instance.
    configured = next(key[:length] for length in range(len(key), 0, -1) if key[:length] in entries)
    return f"{entries[configured].origin}: {dotted(configured)}: {text[:1].lower()}{text[1:]}"


def _own_subject(subject: str, table: OwnSubjectTable, names: Names) -> OwnSubject:
    key = ("subjects", subject)
    try:
        owner = SpiffeId.parse(table.owner) if table.owner.startswith("spiffe://") else names.id_of(table.owner)
        return OwnSubject(subject=subject, kind=Kind(table.kind), owner=owner, action=table.action or subject)
    except EnvelopeError as error:
        raise ConfigurationError(f"{dotted(key)}.owner: {table.owner!r} is not a SPIFFE ID") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{dotted(key)}: {error.detail}") from error


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

"""The sources of settings: a file, the environment, flags. Each value has its origin; each unknown key is refused.

Later sources win value by value. A list is one value; the open tables `[agents]` and `[subjects]` grow entry by entry.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Final, TypeGuard, cast, get_args, get_origin

from pydantic import BaseModel

from sealbus.agents.runtime.settings.schema import Document, FileOrUrl
from sealbus.envelopes.errors import ConfigurationError

PREFIX: Final = "SEALBUS_"
RESERVED: Final = frozenset({"SEALBUS_CONFIG", "SEALBUS_OPA", "SEALBUS_EXAMPLES_DB"})
"""Variables that are not settings: the path of the settings file, the opa executable for tests and `sealbus dev`, and the
database of the agents in `agents/examples`."""

Key = tuple[str, ...]
"""A setting's place: `("policy", "engine")`."""


@dataclass(frozen=True, slots=True)
class SettingOrigin:
    """The origin of a value: `name` is the file, variable or option; empty for a default."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


DEFAULT: Final = SettingOrigin("default")


@dataclass(frozen=True, slots=True)
class Entry:
    """One value in the form of its source."""

    value: object
    origin: SettingOrigin


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A command-line option that stands for a setting: `Flag(option="--engine", key="policy.engine", value="sidecar")`.

    A `value` of `None` means that the option was not given.
    """

    option: str
    key: str
    value: object


def dotted(key: Key) -> str:
    """Return a key as it is written in TOML."""
    return ".".join(part if _is_bare(part) else json.dumps(part, ensure_ascii=False) for part in key)


def variable(key: Key) -> str:
    """Return the environment variable of a key."""
    return PREFIX + "__".join(part.upper() for part in key)


def file_entries(path: Path) -> dict[Key, Entry]:
    """Return the values in the settings file `path`. Raises `ConfigurationError`, one line, naming the file."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from error
    origin = SettingOrigin("file", str(path))
    entries = _entries(document, (), origin)
    folder = path.absolute().parent
    return {key: Entry(_anchored(entry.value, _place(key, origin), folder), origin) for key, entry in entries}


def environment_entries(environment: Mapping[str, str]) -> dict[Key, Entry]:
    """Return the values of the variables `SEALBUS_*`; an empty one counts as not set.

    Lists are separated by commas or written as JSON, tables are JSON objects. Raises `ConfigurationError`.
    """
    entries: dict[Key, Entry] = {}
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name in RESERVED:
            continue
        key = tuple(name.removeprefix(PREFIX).lower().split("__"))
        origin = SettingOrigin("environment", name)
        place = _place(key, origin)
        text = environment[name]
        if text:
            entries.update(_entries(_nested(key, _parsed(text, place, key, origin)), (), origin))
    return entries


def flag_entries(flags: Iterable[Flag]) -> dict[Key, Entry]:
    """Return the values of the options that were given. Raises `ConfigurationError`."""
    entries: dict[Key, Entry] = {}
    for flag in flags:
        key = tuple(flag.key.split("."))
        origin = SettingOrigin("flag", flag.option)
        place = _place(key, origin)
        if flag.value is not None:
            value = _parsed(flag.value, place, key, origin) if isinstance(flag.value, str) else flag.value
            entries.update(_entries(_nested(key, value), (), origin))
    return entries


def _entries(table: Mapping[str, object], above: Key, origin: SettingOrigin) -> Iterator[tuple[Key, Entry]]:
    for name, value in table.items():
        key = (*above, name)
        place = _place(key, origin)
        if _is_table(place):
            if not isinstance(value, dict):
                raise ConfigurationError(f"{origin}: {dotted(key)} is a table")
            yield from _entries(cast("dict[str, object]", value), key, origin)
        else:
            yield key, Entry(value, origin)


def _parsed(value: str, place: object, key: Key, origin: SettingOrigin) -> object:
    """Return the value of a text for a place that may be a list or a table."""
    is_list = get_origin(place) is tuple
    if is_list and not value.lstrip().startswith("["):
        return [item.strip() for item in value.split(",")]
    if not is_list and not _is_table(place):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ConfigurationError(f"{origin}: {dotted(key)} is not JSON") from error


def _place(key: Key, origin: SettingOrigin) -> object:
    """Return the declared type of a key's value; raise `ConfigurationError` for an undeclared key."""
    place: object = Document
    for part in key:
        place = _inside(place, part)
        if place is None:
            raise ConfigurationError(f"{origin}: there is no setting {dotted(key)}{_nearest(key, origin)}")
    return place


def _inside(place: object, part: str) -> object:
    if get_origin(place) is dict:
        return get_args(place)[1]
    if not _is_model(place):
        return None
    field = place.model_fields.get(part)
    if field is not None:
        return _table_or_type(field.annotation)
    return str if place.model_config.get("extra") == "allow" else None


def _table_or_type(declared: object) -> object:
    """Return the table of a declared type such as `McpTable | None`; every other type as it is."""
    tables = [type_ for type_ in get_args(declared) if _is_model(type_)]
    return tables[0] if isinstance(declared, UnionType) and tables else declared


def _is_table(place: object) -> bool:
    return get_origin(place) is dict or _is_model(place)


def _is_model(place: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(place, type) and issubclass(place, BaseModel)


def _declared_keys(model: type[BaseModel], above: Key = ()) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        key = (*above, name)
        yield key
        table = _table_or_type(field.annotation)
        if _is_model(table):
            yield from _declared_keys(table, key)


def _nearest(key: Key, origin: SettingOrigin) -> str:
    write = variable if origin.kind == "environment" else dotted
    names = [write(declared) for declared in _declared_keys(Document)]
    close = get_close_matches(write(key), names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _nested(key: Key, value: object) -> dict[str, object]:
    for part in reversed(key):
        value = {part: value}
    return cast("dict[str, object]", value)


def _is_file(place: object) -> bool:
    """Return whether a value of the type `place` names a file, or is a list of files."""
    return not {Path, FileOrUrl}.isdisjoint(get_args(place))


def _anchored(value: object, place: object, folder: Path) -> object:
    """Return `value` for `place`; each relative file, also in a list of tables, starts at `folder`."""
    if isinstance(value, list):
        rows = [type_ for type_ in get_args(place) if _is_model(type_)]
        return [_anchored_row(item, rows[0], folder) if rows else _anchored(item, place, folder) for item in value]
    return str(folder / value) if _is_file(place) and isinstance(value, str) and ":" not in value else value


def _anchored_row(row: object, model: type[BaseModel], folder: Path) -> object:
    fields = model.model_fields
    if not isinstance(row, dict):
        return row
    return {
        name: _anchored(value, fields[name].annotation, folder) if name in fields else value
        for name, value in row.items()
    }


def _is_bare(part: str) -> bool:
    return part != "" and all(character.isascii() and (character.isalnum() or character in "_-") for character in part)

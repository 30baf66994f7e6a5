"""What an agent's actions take and give, as JSON schemas: written where its code is, read where it is not.

::

    {"agent": "inventory",
     "actions": [{"kind": "task", "verb": "update", "summary": "Set the stock.", "parts": false,
                  "takes": {"application/json": {"$ref": "#/components/schemas/inventory.Update"}},
                  "gives": {"application/json": {"$ref": "#/components/schemas/inventory.Stock"}}}],
     "models": {"inventory.Update": {...}, "inventory.Stock": {...}}}

References are those of OpenAPI, and names of models begin with their agent's: the files of several agents go into one
document as they are.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal, Self

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictStr, TypeAdapter, model_validator

from sealbus.agents.sdk.agent import Agent, Handler
from sealbus.agents.sdk.bodies import JSON, OCTETS
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.trust.names import is_token

__all__ = ["REFERENCE", "SCHEMA_BYTES", "ActionSchema", "AgentSchema", "reachable"]

REFERENCE: Final = "#/components/schemas/"
SCHEMA_BYTES: Final = 1_048_576
"""Largest file: a model of twenty fields has some 2 KiB, and an agent a few dozen models."""
_NESTING: Final = 64
_SUMMARY: Final = 200
"""Most characters of a summary: a docstring's first line."""
_FOREIGN: Final = frozenset({"$id", "$dynamicRef", "$recursiveRef"})
"""Keywords with which a reference may lead elsewhere than it says."""
_KINDS: Final[Mapping[Kind | None, Literal["task", "call"]]] = {Kind.TASK: "task", Kind.CALL: "call"}


def _token(text: str) -> str:
    if not is_token(text) or text.startswith("_"):
        raise ValueError("must be letters, digits, - and _ only")
    return text


def _line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable text")
    return text


def _media_type(text: str) -> str:
    if text not in (JSON, OCTETS):
        raise ValueError(f"must be {JSON} or {OCTETS}")
    return text


_Token = Annotated[StrictStr, AfterValidator(_token)]
_Line = Annotated[StrictStr, Field(max_length=_SUMMARY), AfterValidator(_line)]
_Schema = dict[str, Any]
"""A JSON schema. What it says is not looked at, only what it refers to."""
_Bodies = dict[Annotated[StrictStr, AfterValidator(_media_type)], _Schema]
"""The schema of a body by its media type; that of bytes says nothing."""
_ModelName = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9._-]{1,512}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ActionSchema(_Part):
    """One action. A task that tells its requester nothing gives nothing; with `parts`, `gives` is each part or chunk."""

    kind: Literal["task", "call"]
    verb: _Token
    summary: _Line
    takes: Annotated[_Bodies, Field(min_length=1, max_length=1)]
    gives: Annotated[_Bodies, Field(max_length=1)]
    parts: StrictBool


class AgentSchema(_Part):
    """The actions of one agent, and the models that they refer to, each of which is there."""

    agent: _Token
    actions: tuple[ActionSchema, ...]
    models: dict[_ModelName, _Schema]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len({(one.kind, one.verb) for one in self.actions}) != len(self.actions):
            raise ValueError("an action is there twice")
        if not all(name.startswith(f"{self.agent}.") for name in self.models):
            raise ValueError(f"models: names must begin with {self.agent}.")
        bodies = [one for action in self.actions for one in (action.takes, action.gives)]
        if not set(_references((bodies, self.models))) <= self.models.keys():
            raise ValueError("a reference leads out of the file")
        return self

    @classmethod
    def of(cls, agent: Agent) -> AgentSchema:
        """Return the schemas of `agent`, of its tasks and calls; raise `ConfigurationError` if a type has none.

        Handlers of events and of own subjects are left out: an action and a kind belong to those only with settings.
        """
        handlers = [one for one in agent.handlers.values() if one.kind in _KINDS]
        asked: list[tuple[tuple[str, bool], Literal["validation", "serialization"], TypeAdapter[Any]]] = []
        for one in handlers:
            if one.takes.type is not bytes:
                asked.append(((one.subject, True), "validation", TypeAdapter(one.takes.type)))
            if one.gives.type is not bytes:
                asked.append(((one.subject, False), "serialization", TypeAdapter(one.gives.type)))
        try:
            found, shared = TypeAdapter.json_schemas(asked, ref_template=f"{REFERENCE}{agent.name}.{{model}}")
        except pydantic.errors.PydanticUserError as error:
            raise ConfigurationError(f"agent {agent.name}: {error.message.splitlines()[0]}") from error
        schemas = {key: schema for (key, _), schema in found.items()}
        return cls(
            agent=agent.name,
            actions=tuple(_action(one, schemas) for one in handlers),
            models={f"{agent.name}.{name}": schema for name, schema in shared.get("$defs", {}).items()},
        )

    @classmethod
    def parse(cls, data: bytes) -> AgentSchema:
        """Return the schemas that a file holds; raise `ConfigurationError`, one line, for anything else."""
        if len(data) > SCHEMA_BYTES:
            raise ConfigurationError(f"over {SCHEMA_BYTES} bytes")
        try:
            said = parse_object(data, depth=_NESTING)
            # Numbers and letters that JSON can escape, and that no document could hold.
            json.dumps(said, ensure_ascii=False, allow_nan=False).encode()
            return cls.model_validate(said)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))[:100]
            text = first["msg"].removeprefix("Value error, ")
            raise ConfigurationError(f"{place}: {text}" if place else text) from error
        except ValueError as error:
            raise ConfigurationError("not a JSON object in UTF-8, each name once, at most 64 deep") from error

    def text(self) -> str:
        """Return what a file of them holds."""
        return json.dumps(self.model_dump(), indent=2, ensure_ascii=False) + "\n"


def reachable(schemas: Iterable[object], models: Mapping[str, Json]) -> dict[str, Json]:
    """Return those of `models` that `schemas` refer to, also through others."""
    found: dict[str, Json] = {}
    ahead = list(_references(list(schemas)))
    while ahead:
        name = ahead.pop()
        if name not in found:
            found[name] = models[name]
            ahead += _references(models[name])
    return found


def _action(handler: Handler[Any, Any], schemas: Mapping[tuple[str, bool], Any]) -> ActionSchema:
    def bodies(of: type, *, takes: bool) -> _Bodies:
        return {OCTETS: {}} if of is bytes else {JSON: schemas[handler.subject, takes]}

    lines = (inspect.getdoc(handler.function) or "").splitlines()
    return ActionSchema(
        kind=_KINDS[handler.kind],
        verb=handler.action.partition(".")[2],
        summary=" ".join(lines[0].split())[:_SUMMARY] if lines else "",
        takes=bodies(handler.takes.type, takes=True),
        gives=bodies(handler.gives.type, takes=False) if handler.options.status else {},
        parts=handler.streams,
    )


def _references(value: object) -> Iterator[str]:
    """Yield the name of each model that `value` refers to; for a reference to anything else, a text that is no name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, str):
                if key in _FOREIGN or (key == "$ref" and not inner.startswith(REFERENCE)):
                    yield f"{key}: {inner}"
                elif key == "$ref" or inner.startswith(REFERENCE):
                    yield inner.removeprefix(REFERENCE)
            else:
                yield from _references(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _references(inner)

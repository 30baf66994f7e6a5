"""JSON schemas of the bodies and answers of an agent's actions: written from its code, read where that code is not.

::

    {"agent": "inventory",
     "actions": [{"kind": "task", "verb": "update", "summary": "Set the stock.", "parts": false,
                  "takes": {"application/json": {"$ref": "#/components/schemas/inventory.Update"}},
                  "gives": {"application/json": {"$ref": "#/components/schemas/inventory.Stock"}}}],
     "models": {"inventory.Update": {...}, "inventory.Stock": {...}}}

References have the form of OpenAPI, and names of models begin with the agent's name. So the files of several agents can be
joined in one document.
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
from sealbus.envelopes.printable import printable
from sealbus.envelopes.trust.names import is_token

REFERENCE: Final = "#/components/schemas/"
SCHEMA_BYTES: Final = 1_048_576
"""Largest file. A model of twenty fields has some 2 KiB, and an agent a few dozen models."""
_NESTING: Final = 64
_SUMMARY: Final = 200
"""Most characters of a summary: a docstring's first line."""
_FOREIGN: Final = frozenset({"$id", "$dynamicRef", "$recursiveRef"})
"""Keywords that can change where a reference leads."""
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
"""A JSON schema. Only its references are checked."""
_Bodies = dict[Annotated[StrictStr, AfterValidator(_media_type)], _Schema]
"""The schema of a body by its media type; the schema of bytes is empty."""
_ModelName = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9._-]{1,512}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ActionSchema(_Part):
    """One action. `gives` is empty for a task without a status; with `parts` it is the schema of each part or chunk."""

    kind: Literal["task", "call"]
    verb: _Token
    summary: _Line
    takes: Annotated[_Bodies, Field(min_length=1, max_length=1)]
    gives: Annotated[_Bodies, Field(max_length=1)]
    parts: StrictBool


class AgentSchema(_Part):
    """The actions of one agent, and all models that they refer to."""

    agent: _Token
    actions: tuple[ActionSchema, ...]
    models: dict[_ModelName, _Schema]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len({(action.kind, action.verb) for action in self.actions}) != len(self.actions):
            raise ValueError("an action is there twice")
        if not all(name.startswith(f"{self.agent}.") for name in self.models):
            raise ValueError(f"models: names must begin with {self.agent}.")
        bodies = [(action.takes, action.gives) for action in self.actions]
        if not set(_references((bodies, self.models))) <= self.models.keys():
            raise ValueError("a reference leads out of the file")
        return self

    @classmethod
    def of(cls, agent: Agent) -> AgentSchema:
        """Return the schemas of the tasks and calls of `agent`; raise `ConfigurationError` if a type has no schema.

        Handlers of events and of own subjects are left out: only the settings give those an action and a kind.
        """
        handlers = [handler for handler in agent.handlers.values() if handler.kind in _KINDS]
        bodies: list[tuple[tuple[str, bool], Literal["validation", "serialization"], TypeAdapter[Any]]] = []
        for handler in handlers:
            if handler.takes.type is not bytes:
                bodies.append(((handler.subject, True), "validation", TypeAdapter(handler.takes.type)))
            if handler.gives.type is not bytes:
                bodies.append(((handler.subject, False), "serialization", TypeAdapter(handler.gives.type)))
        try:
            by_mode, shared = TypeAdapter.json_schemas(bodies, ref_template=f"{REFERENCE}{agent.name}.{{model}}")
        except pydantic.errors.PydanticUserError as error:
            raise ConfigurationError(f"agent {agent.name}: {error.message.splitlines()[0]}") from error
        schemas = {key: schema for (key, _), schema in by_mode.items()}
        return cls(
            agent=agent.name,
            actions=tuple(_action(handler, schemas) for handler in handlers),
            models={f"{agent.name}.{name}": schema for name, schema in shared.get("$defs", {}).items()},
        )

    @classmethod
    def parse(cls, data: bytes) -> AgentSchema:
        """Return the schemas that a file holds; raise `ConfigurationError`, one line, for any other content."""
        if len(data) > SCHEMA_BYTES:
            raise ConfigurationError(f"over {SCHEMA_BYTES} bytes")
        try:
            document = parse_object(data, depth=_NESTING)
            # Refuses numbers and letters that can be escaped in JSON but not be written to a document.
            json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
            return cls.model_validate(document)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = printable(".".join(map(str, first["loc"]))[:100])
            text = first["msg"].removeprefix("Value error, ")
            raise ConfigurationError(f"{place}: {text}" if place else text) from error
        except ValueError as error:
            raise ConfigurationError("not a JSON object in UTF-8, each name once, at most 64 deep") from error

    def text(self) -> str:
        """Return the content of a file of these schemas."""
        return json.dumps(self.model_dump(), indent=2, ensure_ascii=False) + "\n"


def reachable(schemas: Iterable[object], models: Mapping[str, Json]) -> dict[str, Json]:
    """Return the `models` that `schemas` refer to, directly or through other models."""
    reached: dict[str, Json] = {}
    waiting = list(_references(list(schemas)))
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached[name] = models[name]
            waiting += _references(models[name])
    return reached


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
    """Yield the name of each model that `value` refers to; for any other reference, a text that is not a name."""
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

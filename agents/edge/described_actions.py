"""Exposed actions as their agents describe them, with self-contained JSON schemas, for MCP and A2A."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from sealbus.agents.edge.front import Exposed
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.sdk.bodies import JSON
from sealbus.agents.sdk.schema import REFERENCE, ActionSchema, AgentSchema, reachable
from sealbus.bus.sending.message import Content
from sealbus.envelopes.denial import Remedy, RemedyKind
from sealbus.envelopes.errors import Code, ConfigurationError, Denied, HandlingError
from sealbus.envelopes.limits import DEFAULT_LIMITS

_DEFS: Final = "#/$defs/"
_VALUE: Final = "value"
_RESULT: Final = "result"

Schema = dict[str, Any]


@dataclass(frozen=True)
class DescribedAction:
    """One action whose arguments and result are JSON objects.

    If the handler takes another type, that is the member `value` of the arguments; if it gives another type, that is the
    member `result` of the result. Parts are a list. `scope` is the scope that a token needs, "" for none. `models` holds the
    models to which `action` refers.
    """

    agent: str
    action: ActionSchema
    models: Mapping[str, Any]
    scope: str = ""

    @property
    def name(self) -> str:
        """The action, `<agent>.<verb>`."""
        return f"{self.agent}.{self.action.verb}"

    @cached_property
    def takes(self) -> Schema:
        """The JSON schema of the arguments."""
        return self._self_contained(self._body_schema, wrapped=_VALUE if self._wraps_value else "")

    @cached_property
    def gives(self) -> Schema | None:
        """The JSON schema of the result; None if the result is no JSON."""
        schema = self.action.gives.get(JSON)
        if schema is None:
            return None
        if self.action.parts:
            schema = {"type": "array", "items": schema}
        return self._self_contained(schema, wrapped=_RESULT if self._wraps_result else "")

    @property
    def takes_text(self) -> bool:
        """Whether the argument is a text, as the member `value`."""
        return self._resolved(self._body_schema).get("type") == "string"

    @property
    def _body_schema(self) -> Schema:
        return self.action.takes[JSON]

    @cached_property
    def _wraps_value(self) -> bool:
        return not self._is_object(self._body_schema)

    @cached_property
    def _wraps_result(self) -> bool:
        return self.action.parts or not self._is_object(self.action.gives.get(JSON, {}))

    def body(self, arguments: Mapping[str, Any]) -> Content:
        """Return the body of a request with `arguments`, which fit `takes`.

        Raises `EdgeError` (413) if it is over the limit: its spaces may make it longer than the client's text.
        """
        value = arguments[_VALUE] if self._wraps_value else arguments
        body = json.dumps(value, ensure_ascii=False).encode()
        if len(body) > DEFAULT_LIMITS.body_bytes:
            raise EdgeError(Code.TOO_LARGE, 413, f"the arguments are over {DEFAULT_LIMITS.body_bytes} bytes")
        return Content(body=body, typ=JSON)

    def decoded_result(self, *bodies: Content) -> dict[str, Any]:
        """Return the result in an answer, or in its parts; raise `HandlingError` (`bad_result`) if it is not JSON."""
        try:
            values = [json.loads(body.body) for body in bodies if body.typ == JSON]
        except ValueError as error:
            raise HandlingError(Code.BAD_RESULT, "the answer is no JSON") from error
        if len(values) != len(bodies):
            raise HandlingError(Code.BAD_RESULT, "the answer is no JSON")
        value = values if self.action.parts else values[0]
        if self._wraps_result:
            return {_RESULT: value}
        if not isinstance(value, dict):
            raise HandlingError(Code.BAD_RESULT, "the answer is no JSON object")
        return value

    def check_scope(self, token: AccessToken) -> None:
        """Raise `Denied` with the missing scope as remedy, if the token lacks it."""
        if not self.is_in_scope(token):
            raise Denied("no scope", remedies=(Remedy(kind=RemedyKind.SCOPE, scope=self.scope),))

    def is_in_scope(self, token: AccessToken) -> bool:
        """Return whether the token has the scope that this action needs."""
        return not self.scope or self.scope in token.scope

    def _is_object(self, schema: Schema) -> bool:
        found = self._resolved(schema)
        return found.get("type") == "object"

    def _resolved(self, schema: Schema) -> Schema:
        seen = 0
        while set(schema) == {"$ref"} and seen <= len(self.models):
            schema, seen = self.models[schema["$ref"].removeprefix(REFERENCE)], seen + 1
        return schema

    def _self_contained(self, schema: Schema, *, wrapped: str) -> Schema:
        """Return `schema` without references to models outside of it."""
        needed = reachable([schema if wrapped else self._resolved(schema)], self.models)
        root = (
            {"type": "object", "properties": {wrapped: schema}, "required": [wrapped], "additionalProperties": False}
            if wrapped
            else dict(self._resolved(schema))
        )
        standing = {**root, **({"$defs": needed} if needed else {})}
        complete: Schema = json.loads(json.dumps(standing).replace(f'"{REFERENCE}', f'"{_DEFS}'))
        return complete


def described_actions(
    patterns: Sequence[str],
    schemas: Sequence[AgentSchema],
    exposed: Exposed,
    *,
    scopes: Mapping[str, str],
    setting: str,
) -> tuple[DescribedAction, ...]:
    """Return the exposed actions that `patterns` name, as the schemas describe them, each with its scope.

    Actions that take bytes are left out, because arguments cannot hold bytes. Raises `ConfigurationError`, one line that
    names `setting`, for a pattern that matches no action that is both exposed and described.
    """
    described: dict[str, DescribedAction] = {}
    for pattern in patterns:
        agent, _, verb = pattern.partition(".")
        named = [
            DescribedAction(
                agent, action, schema.models, scopes.get(f"{agent}.{action.verb}") or scopes.get(f"{agent}.*", "")
            )
            for schema in schemas
            for action in schema.actions
            if schema.agent == agent and verb in ("*", action.verb) and JSON in action.takes
            if exposed.shows(agent, action.verb)
        ]
        if not named:
            raise ConfigurationError(
                f"{setting} {pattern!r}: no action that edge.actions exposes and edge.schemas describes"
            )
        described |= {action.name: action for action in named}
    unknown = [
        pattern for pattern in scopes if not any(pattern in (name, f"{name.partition('.')[0]}.*") for name in described)
    ]
    if unknown:
        raise ConfigurationError(f"{setting}: the scope of {unknown[0]!r} is for no action that is named here")
    return tuple(described.values())

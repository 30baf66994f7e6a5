"""Tools: one for each action that is shown, with its schemas, and one that finds a task again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import mcp_types as types
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match

from sealbus.agents.edge.described_actions import DescribedAction
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.envelopes.errors import ConfigurationError

_NAME: Final = 64
"""Most characters of a tool's name: what language models take."""
_FAULT: Final = 300
"""Most characters of what is told of arguments that do not fit."""

TASK_RESULT: Final = types.Tool(
    name="task_result",
    title="Result of a task",
    description="Get the result of a task that an earlier call of a tool started, or learn that it is not done yet.",
    input_schema={
        "type": "object",
        "properties": {"task": {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "The id of the task."}},
        "required": ["task"],
        "additionalProperties": False,
    },
)
"""For clients without the Tasks extension: work goes on after a call has ended, and is found by its id."""


@dataclass(frozen=True)
class Tool:
    """One action as a tool."""

    described: DescribedAction

    @property
    def name(self) -> str:
        """The name of the tool: what language models take in names leaves out the dot."""
        return self.described.name.replace(".", "_")

    @cached_property
    def definition(self) -> types.Tool:
        """What clients are told."""
        action = self.described.action
        return types.Tool(
            name=self.name,
            title=self.described.name,
            description=action.summary or self.described.name,
            input_schema=self.described.takes,
            output_schema=self.described.gives,
        )

    def fault(self, arguments: Mapping[str, Any]) -> str:
        """Return what is wrong with `arguments`, "" if they fit."""
        return _fault(self._takes, arguments)

    def misfit(self, answer: Mapping[str, Any]) -> str:
        """Return what is wrong with an answer, "" if it fits."""
        return _fault(self._gives, answer) if self._gives is not None else ""

    @cached_property
    def _takes(self) -> Draft202012Validator:
        return Draft202012Validator(self.described.takes)

    @cached_property
    def _gives(self) -> Draft202012Validator | None:
        return Draft202012Validator(self.described.gives) if self.described.gives is not None else None


class Tools:
    """The tools of one edge. Raises `ConfigurationError` for two of one name, too long a name, or a schema that is none."""

    def __init__(self, actions: Sequence[DescribedAction]) -> None:
        self._tools = {tool.name: tool for tool in map(Tool, actions)}
        self._actions = {tool.described.name: tool for tool in self._tools.values()}
        self._keeps_tasks = any(action.action.kind == "task" for action in actions)
        if len(self._tools) != len(actions) or TASK_RESULT.name in self._tools:
            raise ConfigurationError("edge.mcp.actions: two tools would have the same name")
        for tool in self._tools.values():
            if len(tool.name) > _NAME:
                raise ConfigurationError(f"edge.mcp.actions: {tool.name} has over {_NAME} characters")
            for schema in (tool.described.takes, tool.described.gives or {}):
                try:
                    Draft202012Validator.check_schema(schema)
                except SchemaError as error:
                    raise ConfigurationError(
                        f"edge.schemas: what {tool.described.name} takes or gives is no JSON schema"
                    ) from error

    def named(self, name: object) -> Tool | None:
        """Return the tool with this name, if there is one."""
        return self._tools.get(name) if isinstance(name, str) else None

    def of_action(self, action: str) -> Tool | None:
        """Return the tool that is this action, if there is one."""
        return self._actions.get(action)

    def input_schema(self, name: str) -> Mapping[str, Any] | None:
        """Return what the tool with this name takes."""
        if name == TASK_RESULT.name:
            return TASK_RESULT.input_schema
        tool = self.named(name)
        return tool.described.takes if tool is not None else None

    def list_for(self, token: AccessToken) -> types.ListToolsResult:
        """Return the tools whose scope `token` has. A hint only: what may be done is decided at each call."""
        tools = [tool.definition for tool in self._tools.values() if tool.described.is_in_scope(token)]
        return types.ListToolsResult(tools=[*tools, *([TASK_RESULT] if self._keeps_tasks else [])])

    @property
    def scopes(self) -> str:
        """The scopes that tools need, as a challenge says them."""
        return " ".join(sorted({tool.described.scope for tool in self._tools.values()} - {""}))


def _fault(validator: Draft202012Validator, value: object) -> str:
    error = best_match(validator.iter_errors(value))
    if error is None:
        return ""
    # Which rule, and where: not the value, which may be long or somebody's secret.
    place = "/".join(str(step) for step in error.absolute_path)[:_FAULT]
    rule = f"{error.validator}: {error.validator_value!r}"[:_FAULT]
    return f"{place or 'the arguments'} does not fit {rule}"

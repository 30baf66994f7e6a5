"""Read the action and arguments from a client's message, and write an agent's answer as parts of a message or artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from a2a.types import Artifact, Message, Part, Role
from a2a.utils.errors import ContentTypeNotSupportedError, InvalidParamsError
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value

from sealbus.agents.edge.described_actions import DescribedAction
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.sdk.bodies import JSON
from sealbus.bus.sending.message import Content
from sealbus.envelopes.encoding.strict_json import deeper_than
from sealbus.envelopes.errors import Code, HandlingError

SKILL: Final = "skillId"
"""Name of the member of a message's metadata that names its skill."""
ARTIFACT: Final = "result"
"""The id of the one artifact of a task: its result."""
_EXACT: Final = 2**53
"""Above it, JSON parsers and parts with data do not hold all integers exactly."""
_NESTING: Final = 64


class Skills:
    """The actions of one agent, as skills by their names."""

    def __init__(self, actions: Sequence[DescribedAction]) -> None:
        self.actions = {action.name: action for action in actions}

    def asked_for(self, message: Message) -> tuple[DescribedAction, Content]:
        """Return the action that `message` names, and the body of a request for it.

        A message names its skill, unless there is only one skill. It has one part: data with the arguments, or a text. A text
        is the argument of a skill that takes a text; for other skills it holds the arguments as JSON. Raises an error of A2A.
        """
        described = self._named(message)
        if len(message.parts) != 1:
            raise InvalidParamsError("a message to this agent has one part")
        part = message.parts[0]
        match part.WhichOneof("content"):
            case "data":
                arguments = _exact(MessageToDict(part.data))
            case "text" if described.takes_text:
                arguments = {"value": part.text}
            case "text":
                arguments = _parsed(part.text)
            case _:
                raise ContentTypeNotSupportedError("this agent takes data or text, and fetches nothing")
        if not isinstance(arguments, dict):
            raise InvalidParamsError("the arguments must be a JSON object")
        try:
            return described, described.body(arguments)
        except KeyError as error:
            raise InvalidParamsError("the arguments must have a value") from error
        except EdgeError as error:
            raise InvalidParamsError(error.detail) from error
        except UnicodeEncodeError as error:
            raise InvalidParamsError("a text of the arguments is not Unicode") from error

    def _named(self, message: Message) -> DescribedAction:
        named = MessageToDict(message.metadata).get(SKILL)
        if named is None and len(self.actions) == 1:
            return next(iter(self.actions.values()))
        action = self.actions.get(named) if isinstance(named, str) else None
        if action is None:
            raise InvalidParamsError(f"metadata.{SKILL} must name a skill of this agent")
        return action


def part_of(content: Content) -> Part:
    """Return a body as a part: JSON as data if data can hold it exactly, else as text; any other type as bytes.

    Raises `HandlingError` (`bad_result`) for a body of the type JSON that is no JSON.
    """
    if content.typ != JSON:
        return Part(raw=content.body, media_type=content.typ)
    try:
        text = content.body.decode()
        if deeper_than(text, _NESTING):
            return Part(text=text, media_type=JSON)
        value = json.loads(text, parse_constant=_refused)
    except ValueError as error:
        raise HandlingError(Code.BAD_RESULT, "the answer is no JSON") from error
    if not _is_exact(value):
        return Part(text=text, media_type=JSON)
    return Part(data=ParseDict(value, Value()), media_type=JSON)


def answer(contents: Sequence[Content], *, message_id: str, context_id: str) -> Message:
    """Return an agent's answer to a call, or its chunks, as a message."""
    return Message(
        message_id=message_id,
        context_id=context_id,
        role=Role.ROLE_AGENT,
        parts=[part_of(content) for content in contents],
    )


def artifact(contents: Sequence[Content]) -> Artifact:
    """Return the result of a task, or parts of it."""
    return Artifact(artifact_id=ARTIFACT, name=ARTIFACT, parts=[part_of(content) for content in contents])


def _parsed(text: str) -> Any:
    try:
        if deeper_than(text, _NESTING):
            raise InvalidParamsError(f"the text nests over {_NESTING} deep")
        return json.loads(text, parse_constant=_refused)
    except ValueError as error:
        raise InvalidParamsError("the text must be the arguments as JSON") from error


def _refused(constant: str) -> None:
    raise ValueError(constant)


def _exact(value: Any) -> Any:
    """Return `value` with whole numbers as integers: in data of a message all numbers are floats."""
    match value:
        case float() if value.is_integer() and abs(value) <= _EXACT:
            return int(value)
        case list():
            return [_exact(item) for item in value]
        case dict():
            return {name: _exact(item) for name, item in value.items()}
    return value


def _is_exact(value: Any) -> bool:
    match value:
        case int() if not isinstance(value, bool):
            return abs(value) <= _EXACT
        case list():
            return all(map(_is_exact, value))
        case Mapping():
            return all(map(_is_exact, value.values()))
    return True

"""An action as a tool of a language model, for any framework: the schema of its arguments, and the answer to each use."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final

from pydantic import BaseModel, RootModel, create_model

from sealbus.agents.sdk.agent import Handler
from sealbus.agents.sdk.bodies import JSON, Body, body_of
from sealbus.agents.sdk.context import Context
from sealbus.bus.sending.answer import AnswerDenied, CallExpired
from sealbus.bus.sending.status import State
from sealbus.envelopes.errors import Code, ConfigurationError, Denied, HandlingError, InfrastructureError, SealbusError
from sealbus.envelopes.message.kinds import Kind

APPROVAL_SECONDS: Final = 7 * 86_400
"""Seconds that a task of a model may wait for an approval: people are away for days, and the model does not wait."""
_GOES_ON: Final = "It goes on by itself; asking again would do it again."


class BusTool:
    """A declared call or task as a tool. Raises `ConfigurationError` for an action that a model cannot use.

    A body that is no JSON object is the argument `value`. `timeout` is seconds for one use.
    """

    def __init__(self, handler: Handler[Any, Any], timeout: float) -> None:
        if handler.kind not in (Kind.CALL, Kind.TASK) or not handler.options.status:
            raise ConfigurationError(f"{handler.action}: a tool is a call, or a task that tells its result")
        if bytes in (handler.takes.type, handler.gives.type):
            raise ConfigurationError(f"{handler.action}: a model neither writes nor reads bytes")
        takes: Any = handler.takes.type
        gives: Any = handler.gives.type
        self._handler = handler
        self._timeout = timeout
        self._is_object = issubclass(takes, BaseModel) and not issubclass(takes, RootModel)
        self.arguments: type[BaseModel] = takes if self._is_object else create_model("Arguments", value=(takes, ...))
        """The arguments of the model, of which the framework makes a JSON schema."""
        self._gives: Body[object] = body_of(list[gives] if handler.streams else gives)

    @property
    def name(self) -> str:
        """The name of the tool; language models take no dot in names."""
        return self._handler.action.replace(".", "_")

    @property
    def description(self) -> str:
        """The handler's docstring."""
        return inspect.getdoc(self._handler.function) or self._handler.action

    async def use(self, context: Context, arguments: Mapping[str, Any]) -> str:
        """Request the action while handling the message of `context`; return its answer as JSON, or a text for the model.

        The text reports a denial with its reasons and remedies, a wait for an approval, a failure, no answer in time, or
        arguments that do not fit. Raises `InfrastructureError` if our own side cannot send the request or read the answer,
        and `HandlingError` `canceled` once the handled message was canceled, as does the cancellation.
        """
        try:
            return await self._answer(context, self._body(arguments))
        except CallExpired as error:
            return f"{self._handler.action}: {error}."
        except (InfrastructureError, ConfigurationError):
            raise
        except SealbusError as error:
            if isinstance(error, HandlingError) and error.code is Code.CANCELED:
                raise
            return f"{self._handler.action}: {_error_text(error)}"

    def _body(self, arguments: Mapping[str, Any]) -> object:
        # As JSON: from a JSON text, a strict model accepts a date too.
        fit = body_of(self.arguments).decode(json.dumps(arguments).encode(), JSON)
        return fit if self._is_object else fit.value  # type: ignore[attr-defined]  # the model made above

    async def _answer(self, context: Context, body: object) -> str:
        handler, answer = self._handler, None
        if handler.kind is Kind.TASK:
            handle = await context.submit(handler, body, wait=APPROVAL_SECONDS)
            try:
                async with asyncio.timeout(self._timeout), aclosing(handle.statuses()) as statuses:
                    async for status in statuses:
                        if status.state is State.INPUT_REQUIRED:
                            return f"{handler.action}: {status.note}. {_GOES_ON}"
            except TimeoutError:
                return f"{handler.action}: not done within {self._timeout:g} s. {_GOES_ON}"
            answer = await handle.result()
        elif handler.streams:
            async with aclosing(context.stream(handler, body, timeout=self._timeout)) as chunks:
                answer = [chunk async for chunk in chunks]
        else:
            answer = await context.call(handler, body, timeout=self._timeout)
        return "done" if answer is None else self._gives.encode(answer).body.decode()


def _error_text(error: SealbusError) -> str:
    """Return the text about `error` that the model, and so its user, may read."""
    if isinstance(error, AnswerDenied):
        # The reasons are those of our own policy, about the agents that may answer us.
        return f"{error.code}: {error.detail}."
    remedies = error.remedies if isinstance(error, Denied) else ()
    return " ".join([f"{error}.", *[f"What would help: {json.dumps(remedy.members())}." for remedy in remedies]])

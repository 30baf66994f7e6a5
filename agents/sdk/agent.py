"""`Agent`: one workload's handlers, each with its action and the resource that it acts on."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Generic, TypeVar, Unpack, get_type_hints

import pydantic

from sealbus.agents.sdk.bodies import Body
from sealbus.agents.sdk.context import Context
from sealbus.agents.sdk.options import (
    CallHandlerKeywords,
    EventHandlerKeywords,
    Loader,
    TaskHandlerKeywords,
    check_keywords,
    handler_options,
)
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.declaration import NOTHING_DECLARED, Declaration
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.trust.names import is_token

Req = TypeVar("Req")
Given = TypeVar("Given", bound=Coroutine[Any, Any, object] | AsyncIterator[object])
Given_co = TypeVar("Given_co", covariant=True)


class Handler(Generic[Req, Given_co]):
    """A declared handler. Call it like the function it wraps; give it to `Context.call` for a typed answer.

    It takes a `Req` and returns what the function returns: a coroutine with the answer, or an iterator over chunks.
    """

    def __init__(
        self,
        *,
        kind: Kind | None,
        subject: str,
        action: str,
        function: Callable[[Req, Context], Given_co],
        keywords: TaskHandlerKeywords,
    ) -> None:
        self.kind = kind
        """Absent for an own subject: the settings give it when a worker takes the agent."""
        self.subject = subject
        self.action = action
        self.function = function
        self.resource = keywords.get("resource")
        _check_loader(action, self.resource)
        self.facts = tuple(keywords.get("facts", ()))
        self.options = handler_options(action, kind, keywords)
        self.streams = inspect.isasyncgenfunction(function)
        takes, gives = _signature(function, self.streams)
        self.takes: Body[Req] = Body(takes)
        self.gives: Body[object] = Body(gives)
        unknown = [fact for fact in self.facts if not _has_field(takes, fact)]
        if unknown:
            raise ConfigurationError(
                f"{action}: {takes.__name__} has no field {', '.join(unknown)} to declare as a fact"
            )
        if self.streams and (kind is Kind.EVENT or not self.options.status):
            raise ConfigurationError(f"{action}: only calls, and tasks with a status, are answered in parts")

    def __call__(self, body: Req, context: Context) -> Given_co:
        """Run the function itself: no gate, no policy, no record. For unit tests of its own logic."""
        return self.function(body, context)


class Agent:
    """The handlers of one named agent: `agent = Agent("inventory")`, then `@agent.task("update")`.

    The name stands for the SPIFFE ID that the settings' template or `[agents]` table gives it. Nothing runs until a worker
    (`sealbus worker run MODULE:AGENT`, or `sealbus.testing.TestBus`) takes the agent.

    `declares` is the agent's word about its model, prompt and tools. Each message of its workers carries it, signed; policies
    read it (`input.subject.properties`), and its processes record it when they start.
    """

    def __init__(self, name: str, *, declares: Declaration = NOTHING_DECLARED) -> None:
        if not is_token(name):
            raise ConfigurationError(f"agent name {name!r}: letters, digits, - and _ only")
        self.name = name
        self.declares = declares
        self.handlers: dict[str, Handler[Any, Any]] = {}
        self._lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None

    def lifespan(self, function: Callable[[], AsyncIterator[None]]) -> Callable[[], AsyncIterator[None]]:
        """Declare code that a worker runs around all handlers: `@agent.lifespan` on an async generator that yields once.

        The part before the `yield` runs before the first message is taken; if it raises, the worker does not start. The part
        after it runs once every handler and resource loader has ended, so it can close the objects that they use. If the
        worker itself fails, its error is raised at the `yield`, as in any context manager. An agent has one lifespan; each
        worker that takes the agent runs it.
        """
        if not inspect.isasyncgenfunction(function) or inspect.signature(function).parameters:
            raise ConfigurationError("a lifespan is an async function without parameters that yields once")
        if self._lifespan is not None:
            raise ConfigurationError(f"agent {self.name} has two lifespans: declare one")
        self._lifespan = asynccontextmanager(function)
        return function

    def open_lifespan(self) -> AbstractAsyncContextManager[None]:
        """Return the declared lifespan, or an empty one; the worker enters it."""
        return self._lifespan() if self._lifespan is not None else nullcontext()

    def task(
        self, verb: str, **options: Unpack[TaskHandlerKeywords]
    ) -> Callable[[Callable[[Req, Context], Given]], Handler[Req, Given]]:
        """Declare a handler of durable tasks on `task.<agent>.<verb>`, action `<agent>.<verb>`.

        An async generator answers in parts, at most 2,048 of 64 KiB each: each is stored for the requester before the next is
        made. `handle.parts()` gives them as they come, `handle.result()` all of them.

        The options are those of `TaskHandlerKeywords`. Raises `ConfigurationError` for a value that a task cannot have.
        """
        check_keywords(options, TaskHandlerKeywords)
        return self._declare(Kind.TASK, f"task.{self.name}.{verb}", self._action(verb), **options)

    def call(
        self, verb: str, **options: Unpack[CallHandlerKeywords]
    ) -> Callable[[Callable[[Req, Context], Given]], Handler[Req, Given]]:
        """Declare a handler of calls on `call.<agent>.<verb>`; an async generator answers in chunks.

        The options are those of `CallHandlerKeywords`. Raises `ConfigurationError` for a value that a call cannot have.
        """
        check_keywords(options, CallHandlerKeywords)
        keywords: TaskHandlerKeywords = {"timeout": 10.0, **options}  # type: ignore[typeddict-item]
        return self._declare(Kind.CALL, f"call.{self.name}.{verb}", self._action(verb), **keywords)

    def on(
        self, subject: str, *, action: str | None = None, **options: Unpack[EventHandlerKeywords]
    ) -> Callable[[Callable[[Req, Context], Given]], Handler[Req, Given]]:
        """Declare a handler of another agent's events: `@agent.on("event.pricing.changed")`, or of an own subject.

        An event's action is by default `<emitter>.<name>`. An own subject must be in the settings' `[subjects]`, which define
        its kind (task, call or event) and its action; only its owner may handle a task or call.

        The options are those of `EventHandlerKeywords`. Raises `ConfigurationError` for a value that no message can have.
        """
        check_keywords(options, EventHandlerKeywords)
        is_event = subject.startswith("event.")
        action = action or (subject.removeprefix("event.") if is_event else subject)
        return self._declare(Kind.EVENT if is_event else None, subject, action, **options)

    def _action(self, verb: str) -> str:
        if not is_token(verb):
            raise ConfigurationError(f"verb {verb!r}: letters, digits, - and _ only")
        return f"{self.name}.{verb}"

    def _declare(
        self, kind: Kind | None, subject: str, action: str, **keywords: Unpack[TaskHandlerKeywords]
    ) -> Callable[[Callable[[Req, Context], Given_co]], Handler[Req, Given_co]]:
        if subject in self.handlers:
            raise ConfigurationError(f"{subject} has two handlers in agent {self.name}: declare one")

        def declare(function: Callable[[Req, Context], Given_co]) -> Handler[Req, Given_co]:
            handler = self.handlers[subject] = Handler(
                kind=kind, subject=subject, action=action, function=function, keywords=keywords
            )
            return handler

        return declare


def _check_loader(action: str, loader: Loader | None) -> None:
    """Raise `ConfigurationError` for a loader that cannot be called with only a body."""
    if loader is None:
        return
    try:
        inspect.signature(loader).bind(object())
    except TypeError as error:
        raise ConfigurationError(f"{action}: a resource loader takes the body, and nothing else") from error


def _signature(function: Callable[..., object], streams: bool) -> tuple[type, type]:
    """Return the types of the handler's body and answer, from its annotations."""
    name = getattr(function, "__name__", "handler")
    if not streams and not inspect.iscoroutinefunction(function):
        raise ConfigurationError(f"{name}: a handler is an async function")
    hints = get_type_hints(function)
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) != 2 or parameters[0] not in hints:
        raise ConfigurationError(f"{name}: a handler takes (body: SomeType, ctx: Context)")
    gives = hints.get("return", type(None))
    if streams:
        gives = gives.__args__[0]
    return hints[parameters[0]], gives


def _has_field(model: type, name: str) -> bool:
    return inspect.isclass(model) and issubclass(model, pydantic.BaseModel) and name in model.model_fields

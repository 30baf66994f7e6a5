"""`Agent`: one workload's handlers, each with its action and the resource that it acts on."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Generic, TypedDict, TypeVar, Unpack, get_type_hints

import pydantic

from sealbus.agents.sdk.bodies import Body
from sealbus.agents.sdk.context import Context
from sealbus.agents.sdk.resource import Resource
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import RULES, Kind
from sealbus.envelopes.trust.names import is_token

__all__ = ["Agent", "Handler", "checked_timeout"]

Req = TypeVar("Req")
Given = TypeVar("Given", bound=Coroutine[Any, Any, object] | AsyncIterator[object])
Given_co = TypeVar("Given_co", covariant=True)

Loader = Callable[[Any], Awaitable[Resource]]
"""Loads the resource that a message is about, given its body, from the agent's own data; raises `ResourceNotFound`."""


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
        resource: Loader | None = None,
        facts: Sequence[str] = (),
        retry: int | RetryPolicy = 5,
        timeout: float = 30.0,
        total_timeout: float | None = None,
        once: bool = False,
        status: bool = True,
        concurrency: int | None = None,
        ordered: bool = False,
        honours: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        """Absent for an own subject: the settings give it when a worker takes the agent."""
        self.subject = subject
        self.action = action
        self.function = function
        _check_loader(action, resource)
        self.resource = resource
        self.facts = tuple(facts)
        self.retry = _retry_policy(action, retry)
        self.timeout = checked_timeout(action, kind, timeout)
        self.total_timeout = math.inf if total_timeout is None else checked_timeout(action, kind, total_timeout)
        self.once = once
        self.status = status
        if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
            raise ConfigurationError(f"{action}: concurrency is 1 or more, or None, not {concurrency!r}")
        self.concurrency = concurrency
        self.ordered = ordered
        if isinstance(honours, str) or not all(honours):
            raise ConfigurationError(f'{action}: honours lists types of obligations, as in honours=("watermark",)')
        self.honours = frozenset(honours)
        self.streams = inspect.isasyncgenfunction(function)
        takes, gives = _signature(function, self.streams)
        self.takes: Body[Req] = Body(takes)
        self.gives: Body[object] = Body(gives)
        unknown = [fact for fact in facts if not _has_field(takes, fact)]
        if unknown:
            raise ConfigurationError(
                f"{action}: {takes.__name__} has no field {', '.join(unknown)} to declare as a fact"
            )
        if self.streams and (kind is Kind.EVENT or not status):
            raise ConfigurationError(f"{action}: only calls, and tasks with a status, are answered in parts")

    def __call__(self, body: Req, context: Context) -> Given_co:
        """Run the function itself: no gate, no policy, no record. For unit tests of its own logic."""
        return self.function(body, context)


class _Declaration(TypedDict, total=False):
    """What a declaration says of its handler beside what it handles."""

    resource: Loader | None
    facts: Sequence[str]
    retry: int | RetryPolicy
    timeout: float
    total_timeout: float | None
    once: bool
    status: bool
    concurrency: int | None
    ordered: bool
    honours: Sequence[str]


class Agent:
    """The handlers of one named agent: `agent = Agent("inventory")`, then `@agent.task("update")`.

    The name stands for the SPIFFE ID that the settings' template or `[agents]` table gives it. Nothing runs until a worker
    (`sealbus worker run MODULE:AGENT`, or `sealbus.testing.TestBus`) takes the agent.
    """

    def __init__(self, name: str) -> None:
        if not is_token(name):
            raise ConfigurationError(f"agent name {name!r}: letters, digits, - and _ only")
        self.name = name
        self.handlers: dict[str, Handler[Any, Any]] = {}
        self._lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None

    def lifespan(self, function: Callable[[], AsyncIterator[None]]) -> Callable[[], AsyncIterator[None]]:
        """Declare what a worker runs around all handlers: `@agent.lifespan` on an async generator that yields once.

        The part before the `yield` runs before the first message is taken; if it raises, the worker does not start. The part
        after it runs once every handler and resource loader has ended, so that what they use can be closed there; if the
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
        """Return the declared lifespan, to be entered by the runner of the handlers; without one, nothing happens."""
        return self._lifespan() if self._lifespan is not None else nullcontext()

    def task(
        self,
        verb: str,
        *,
        resource: Loader | None = None,
        facts: Sequence[str] = (),
        retry: int | RetryPolicy = 5,
        timeout: float = 30.0,
        total_timeout: float | None = None,
        once: bool = False,
        status: bool = True,
        concurrency: int | None = None,
        ordered: bool = False,
        honours: Sequence[str] = (),
    ) -> Callable[[Callable[[Req, Context], Given]], Handler[Req, Given]]:
        """Declare a handler of durable tasks on `task.<agent>.<verb>`, action `<agent>.<verb>`.

        An async generator answers in parts, at most 2,048 of 64 KiB each: each is stored for the requester before the next is
        made. `handle.parts()` gives them as they come, `handle.result()` all of them.

        `resource` loads what the task is about; `facts` are fields of the body that reach the policy as `action.properties`.
        `retry` is a `RetryPolicy`, or how often a failed attempt is retried with backoff; then the task becomes a dead letter
        with its reason. The handler itself can raise `Retry` or `Reject`. `timeout` is seconds for one attempt,
        `total_timeout` seconds from when the task was stored, for all attempts together.

        `once` claims the effect in the STATE stream before each attempt, so that no copy of the task is handled after one
        was, by any process; if a process died in the middle, the outcome cannot be known, and the task ends with
        `outcome_unknown` instead of being handled again. With `status=False` its requester gets no progress and no result;
        failures and denials are still reported.

        In one process, at most `concurrency` of these tasks are handled at a time, and with `ordered` those of one partition
        (`submit(..., partition=)`) one after another, in order of arrival; other replicas have limits of their own.

        `honours` are the types of obligations that the handler fulfils (`ctx.obligations`): a message that the policy allows
        with any other obligation is denied with `obligation_unknown`.
        """
        return self._declare(
            Kind.TASK,
            f"task.{self.name}.{verb}",
            self._action(verb),
            resource=resource,
            facts=facts,
            retry=retry,
            timeout=timeout,
            total_timeout=total_timeout,
            once=once,
            status=status,
            concurrency=concurrency,
            ordered=ordered,
            honours=honours,
        )

    def call(
        self,
        verb: str,
        *,
        resource: Loader | None = None,
        facts: Sequence[str] = (),
        timeout: float = 10.0,
        chunks: bool = False,
        concurrency: int | None = None,
        honours: Sequence[str] = (),
    ) -> Callable[[Callable[[Req, Context], Given]], Handler[Req, Given]]:
        """Declare a handler of calls on `call.<agent>.<verb>`; an async generator answers in chunks.

        `concurrency` and `honours` are as for `task`.
        """
        return self._declare(
            Kind.CALL,
            f"call.{self.name}.{verb}",
            self._action(verb),
            resource=resource,
            facts=facts,
            timeout=timeout,
            concurrency=concurrency,
            honours=honours,
        )

    def on(
        self,
        subject: str,
        *,
        action: str | None = None,
        resource: Loader | None = None,
        facts: Sequence[str] = (),
        retry: int | RetryPolicy = 5,
        timeout: float = 30.0,
        total_timeout: float | None = None,
        once: bool = False,
        concurrency: int | None = None,
        honours: Sequence[str] = (),
    ) -> Callable[[Callable[[Req, Context], Given]], Handler[Req, Given]]:
        """Declare a handler of another agent's events: `@agent.on("event.pricing.changed")`, or of an own subject.

        An event's action is by default `<emitter>.<name>`. An own subject must be in the settings' `[subjects]`, which define
        its kind (task, call or event) and its action; only its owner may handle a task or call. `once` is as for `task`, for
        this agent alone: other listeners have their own claims. So are `concurrency` and `honours`.
        """
        event = subject.startswith("event.")
        said = action or (subject.removeprefix("event.") if event else subject)
        return self._declare(
            Kind.EVENT if event else None,
            subject,
            said,
            resource=resource,
            facts=facts,
            retry=retry,
            timeout=timeout,
            total_timeout=total_timeout,
            once=once,
            concurrency=concurrency,
            honours=honours,
        )

    def _action(self, verb: str) -> str:
        if not is_token(verb):
            raise ConfigurationError(f"verb {verb!r}: letters, digits, - and _ only")
        return f"{self.name}.{verb}"

    def _declare(
        self, kind: Kind | None, subject: str, action: str, **options: Unpack[_Declaration]
    ) -> Callable[[Callable[[Req, Context], Given_co]], Handler[Req, Given_co]]:
        if subject in self.handlers:
            raise ConfigurationError(f"{subject} has two handlers in agent {self.name}: declare one")

        def declare(function: Callable[[Req, Context], Given_co]) -> Handler[Req, Given_co]:
            handler = self.handlers[subject] = Handler(
                kind=kind, subject=subject, action=action, function=function, **options
            )
            return handler

        return declare


def checked_timeout(action: str, kind: Kind | None, timeout: object) -> float:
    """Return `timeout`, seconds of one attempt; raise `ConfigurationError` for one that no message of `kind` lives for."""
    longest = RULES[kind or Kind.TASK].life // SECOND
    number = float(timeout) if isinstance(timeout, int | float) and not isinstance(timeout, bool) else 0.0
    if not 0 < number <= longest:
        why = ": a call lives no longer, so use a task" if kind is Kind.CALL else ""
        raise ConfigurationError(f"{action}: timeout is over 0 and at most {longest} s, not {timeout}{why}")
    return number


def _retry_policy(action: str, retry: object) -> RetryPolicy:
    """Return the policy that `retry` says: itself, or so many tries after the first."""
    if isinstance(retry, RetryPolicy):
        return retry
    if type(retry) is not int or retry < 0:
        raise ConfigurationError(f"{action}: retry is a RetryPolicy or 0 or more tries after the first, not {retry!r}")
    return RetryPolicy(maximum_attempts=retry + 1)


def _check_loader(action: str, loader: Loader | None) -> None:
    """Raise `ConfigurationError` for a loader that cannot be called with a body alone."""
    if loader is None:
        return
    try:
        inspect.signature(loader).bind(object())
    except TypeError as error:
        raise ConfigurationError(f"{action}: a resource loader takes the body, and nothing else") from error


def _signature(function: Callable[..., object], streams: bool) -> tuple[type, type]:
    """Return what the handler takes and returns, from its annotations."""
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

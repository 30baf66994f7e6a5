"""Options of handlers, calls and submitted tasks: the keywords of the public methods, and the frozen values made of them.

Each `...Keywords` lists what one public method accepts. The method makes one value of it, which goes on whole.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

from sealbus.agents.sdk.bodies import JSON
from sealbus.agents.sdk.resource import Resource
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.routing.routes import HandlerOptions
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import RULES, Kind

Loader = Callable[[Any], Awaitable[Resource]]
"""Loads the resource that a message is about, given its body, from the agent's own data; raises `ResourceNotFound`."""


class _HandlerKeywords(TypedDict, total=False):
    resource: Loader | None
    """Loads the resource that the message is about, given its body."""
    facts: Sequence[str]
    """Fields of the body that reach the policy as `action.properties`."""
    timeout: float
    """Seconds for one attempt: by default 10 for a call, else 30."""
    concurrency: int | None
    """Messages that one process handles at a time; by default the worker's own limit alone holds."""
    honours: Sequence[str]
    """Types of obligations that the handler fulfils (`ctx.obligations`). A message that the policy allows with any other
    obligation is denied with `obligation_unknown`."""


class CallHandlerKeywords(_HandlerKeywords, total=False):
    """Options of `Agent.call`."""

    chunks: bool
    """Has no effect: an async generator answers in chunks, any other handler at once."""


class EventHandlerKeywords(_HandlerKeywords, total=False):
    """Options of `Agent.on`."""

    retry: int | RetryPolicy
    """A `RetryPolicy`, or how often a failed attempt is retried with backoff, by default 5. Then the message becomes a dead
    letter with its reason. The handler itself can raise `Retry` or `Reject`."""
    total_timeout: float | None
    """Seconds for all attempts together, from when the message was stored; by default there is no such limit."""
    once: bool
    """Whether to claim the effect in the STATE stream before each attempt. After one copy of the message was handled, no
    process handles another. If a process dies in the middle, the outcome cannot be known: the message ends with
    `outcome_unknown` and is not handled again. Each agent that listens to an event has claims of its own."""


class TaskHandlerKeywords(EventHandlerKeywords, total=False):
    """Options of `Agent.task`."""

    status: bool
    """Whether the requester gets progress and a result, by default true; failures and denials are always reported."""
    ordered: bool
    """Whether one process handles the tasks of one partition (`submit(..., partition=)`) one after another, in order of
    arrival. Other processes have an order of their own."""


class CallKeywords(TypedDict, total=False):
    """Options of `Client.call`."""

    timeout: float
    """Seconds to wait for the answer, by default 30."""
    grants: Sequence[str] | None
    """The only actions that may follow from the call; by default any."""
    media_type: str
    """Media type of the body: JSON by default, or `application/msgpack`."""


class ChildCallKeywords(CallKeywords, total=False):
    """Options of `Context.call`."""

    detached: bool
    """Whether the call goes on if the work that it follows from is canceled; by default it is canceled, too."""


class _SubmitKeywords(TypedDict, total=False):
    life: float | None
    """Seconds until the task may no longer be handled: at most a day, and no longer than the user's context or the handled
    task may go on. By default an hour, or what is left of these."""
    partition: str | None
    """The part of the task's subject that it goes to."""
    grants: Sequence[str] | None
    """The only actions that may follow from the task; by default any."""
    media_type: str
    """Media type of the body: JSON by default, or `application/msgpack`."""
    wait: float | None
    """Seconds from now, up to 30 days, for which the task may wait if the policy asks for a person's approval. By default it
    waits as long as it may go on."""


class SubmitKeywords(_SubmitKeywords, total=False):
    """Options of `Client.submit`."""

    idempotency_key: str | None
    """A text that copies of the task share: a handler with `once` handles one of them."""


class ChildSubmitKeywords(_SubmitKeywords, total=False):
    """Options of `Context.submit`."""

    detached: bool
    """Whether the task goes on if the work that it follows from is canceled; by default it is canceled, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """How an action is called. `timeout` is seconds; the fields are those of `ChildCallKeywords`."""

    timeout: float = 30.0
    grants: Sequence[str] | None = None
    media_type: str = JSON
    detached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    """How a task is submitted. Times are seconds; the fields are those of `SubmitKeywords` and `ChildSubmitKeywords`."""

    life: float | None = None
    partition: str | None = None
    grants: Sequence[str] | None = None
    idempotency_key: str | None = None
    media_type: str = JSON
    detached: bool = False
    wait: float | None = None


DEFAULT_CALL: Final = CallOptions()
DEFAULT_SUBMIT: Final = SubmitOptions()


def check_keywords(keywords: Mapping[str, object], accepted: type) -> None:
    """Raise `TypeError` for a keyword that the typed dictionary `accepted` does not list, as a call with a signature does."""
    for name in keywords.keys() - accepted.__annotations__.keys():
        raise TypeError(f"got an unexpected keyword argument {name!r}")


def handler_options(action: str, kind: Kind | None, keywords: TaskHandlerKeywords) -> HandlerOptions:
    """Return the options that a declaration gives; raise `ConfigurationError` for a value that a handler cannot have."""
    concurrency, honours = keywords.get("concurrency"), keywords.get("honours", ())
    if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
        raise ConfigurationError(f"{action}: concurrency is 1 or more, or None, not {concurrency!r}")
    if isinstance(honours, str) or not all(honours):
        raise ConfigurationError(f'{action}: honours lists types of obligations, as in honours=("watermark",)')
    total_timeout = keywords.get("total_timeout")
    return HandlerOptions(
        retry=_retry_policy(action, keywords.get("retry", 5)),
        timeout=checked_timeout(action, kind, keywords.get("timeout", 30.0)),
        total_timeout=math.inf if total_timeout is None else checked_timeout(action, kind, total_timeout),
        once=keywords.get("once", False),
        status=keywords.get("status", True),
        concurrency=concurrency,
        ordered=keywords.get("ordered", False),
        honours=frozenset(honours),
    )


def checked_timeout(action: str, kind: Kind | None, timeout: object) -> float:
    """Return `timeout`, seconds of one attempt; raise `ConfigurationError` if no message of `kind` lives that long."""
    longest = RULES[kind or Kind.TASK].life // SECOND
    number = float(timeout) if isinstance(timeout, int | float) and not isinstance(timeout, bool) else 0.0
    if not 0 < number <= longest:
        why = ": a call lives no longer, so use a task" if kind is Kind.CALL else ""
        raise ConfigurationError(f"{action}: timeout is over 0 and at most {longest} s, not {timeout}{why}")
    return number


def _retry_policy(action: str, retry: object) -> RetryPolicy:
    """Return `retry` itself if it is a policy, else the policy with that many tries after the first."""
    if isinstance(retry, RetryPolicy):
        return retry
    if type(retry) is not int or retry < 0:
        raise ConfigurationError(f"{action}: retry is a RetryPolicy or 0 or more tries after the first, not {retry!r}")
    return RetryPolicy(maximum_attempts=retry + 1)

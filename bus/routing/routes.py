"""Routes: a handler as the gate sees it, with a subject, an action, and the calls that the gate makes, in order."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Unpack

from sealbus.bus.routing.cancellation import Cancellation
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import State, Status, StatusDetails
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import Code, ConfigurationError, EnvelopeError
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import action_of, control_subject, matches
from sealbus.policies.decision.request import GivenApproval, Parked, Resource


class TaskReporter(Protocol):
    """Reports a task's status to its requester; implemented in `sealbus.bus.work.status_writer`."""

    @property
    def begun(self) -> bool:
        """Whether a status other than the last was numbered for this delivery."""

    def numbered(self, state: State, **details: Unpack[StatusDetails]) -> Status | None:
        """Return the next status, to be stored by `store`; `None` if this delivery has no numbers left."""

    def part(self, content: Content, number: int) -> Status | None:
        """Return the next status as part `number` of the result; `None` if this delivery has no numbers left."""

    async def store(self, status: Status | None) -> bool:
        """Store a status of `numbered`; return whether that was acknowledged within a bounded time. Raises nothing."""

    async def tell(self, state: State, **details: Unpack[StatusDetails]) -> bool:
        """Store the next status; see `numbered` and `store`."""

    async def completed(self, result: Content | None) -> bool:
        """Store the final status of a completed task; `None` stands for a handler that returned nothing."""


class ProcessingSpan(Protocol):
    """The span of one message while it is handled; implemented in `sealbus.bus.telemetry.spans`."""

    def handling(self) -> AbstractContextManager[None]:
        """Make this the current span while the handler runs."""

    def failed(self, code: str) -> None:
        """Note why its handler failed, or did not run."""

    def end(self, settled: str) -> None:
        """End the span; `settled` says how the delivery was settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """How a parked task continues: by an approval.

    The task's messages follow from the approval, and its redeliveries are those of the approval. `approvals` are the
    verdicts that count. `parked` says since when the task waited, and under which policy revision.
    """

    approval: VerifiedMessage
    approvals: tuple[GivenApproval, ...]
    parked: Parked


class Permitted(NamedTuple):
    """A message that was verified, allowed and recorded: the only input of a handler.

    Only the gate builds it, after the audit stream acknowledged the decision. `leaf` names the decision record. `sent`
    collects the hashes of the messages that the handler sends, for the outcome record.
    """

    message: VerifiedMessage
    value: object
    route: Route
    leaf: bytes
    sent: list[bytes]
    cancellation: Cancellation
    """Stops the handler's work."""
    obligations: tuple[Mapping[str, object], ...] = ()
    reporter: TaskReporter | None = None
    """The reporter of a task's status; absent for every other kind."""
    resumed: Resumed | None = None
    """How it continues, if it is a parked task."""
    span: ProcessingSpan | None = None
    """Its span, if this process makes any."""

    def __repr__(self) -> str:
        return f"Permitted(message={self.message!r}, ...)"

    @property
    def origin(self) -> VerifiedMessage:
        """The message that the handler's messages follow from: the approval of a parked task, or the message itself."""
        return self.message if self.resumed is None else self.resumed.approval


class Endpoint(Protocol):
    """The code behind a route; implemented by `sealbus.agents`."""

    def decode(self, body: bytes, typ: str) -> object:
        """Do step 14: return the typed body or raise `BadBody`. Must not block."""

    def properties(self, value: object) -> Mapping[str, object]:
        """Return the declared fields of the body, which the policy gets as `action.properties`."""

    async def resource(self, value: object) -> Resource:
        """Do step 15: load the resource's attributes from the agent's own data, or raise `ResourceNotFound`."""

    async def handle(self, permitted: Permitted) -> Content | None:
        """Do step 18: handle the message. An exception is a failure of the handler."""

    def stream(self, permitted: Permitted) -> AsyncGenerator[Content, None] | None:
        """Return an iterator of chunks for a call that is answered in chunks, or `None` for every other route."""
        del permitted
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerOptions:
    """How the gate and the executor treat the messages of one handler."""

    retry: RetryPolicy
    timeout: float = 30.0
    """Seconds that one attempt of the handler may take."""
    total_timeout: float = math.inf
    """Seconds from when a task or event was stored that all its attempts may take together."""
    once: bool = False
    """Whether the effect of a task or event is claimed before the handler runs, so that it cannot happen twice."""
    status: bool = True
    """Whether progress and result are reported to a task's requester; failures always are."""
    concurrency: int | None = None
    """Messages that the handler may run for at a time, in one process; without it the worker's own limit alone holds."""
    ordered: bool = False
    """Whether the tasks of one partition are handled one after another, in one process."""
    honours: frozenset[str] = frozenset()
    """Types of obligations that the handler honours, in addition to our own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One handler's declaration. `subject` may end in `.*` for partitions of a task."""

    kind: Kind
    subject: str
    action: str
    endpoint: Endpoint | None
    """The code behind it; absent for approvals, which `Gate` does not hand to an executor."""
    options: HandlerOptions
    resource_timeout: float = 5.0
    """Seconds that loading the resource may take."""
    loads_resource: bool = False
    handler: Endpoint = field(init=False, compare=False)
    """The code behind it; a route without code has no such attribute."""
    limited: bool = field(init=False)
    """Whether `ordered` or `concurrency` limits it. Most routes have neither, and their messages skip that check."""

    def __post_init__(self) -> None:
        if self.endpoint is not None:
            object.__setattr__(self, "handler", self.endpoint)
        object.__setattr__(self, "limited", self.options.ordered or self.options.concurrency is not None)


def control_route(endpoint: Endpoint | None, token: str, verb: str, *, loads_resource: bool = True) -> Route:
    """Return the route of the control messages `verb` (`cancel`, `approve` or `schedule`) of the agent with `token`."""
    subject = control_subject(token, verb)
    return Route(
        kind=Kind.TASK,
        subject=subject,
        action=action_of(subject, {}),
        endpoint=endpoint,
        # Retried until it expires.
        options=HandlerOptions(retry=RetryPolicy(maximum_attempts=None)),
        loads_resource=loads_resource,
    )


class RouteTable:
    """The routes by subject; no two routes share one."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[str, Route] = {}
        self._patterns: list[Route] = []
        self.routes = tuple(routes)
        for route in self.routes:
            if "*" in route.subject or ">" in route.subject:
                self._patterns.append(route)
            elif route.subject in self._exact:
                raise ConfigurationError(f"{route.subject} has two handlers: declare only one")
            else:
                self._exact[route.subject] = route

    def route_of(self, subject: str) -> Route:
        """Return the route that handles `subject`; raise `EnvelopeError` `wrong_subject` if there is none (step 3)."""
        route = self.find_route(subject)
        if route is None:
            raise EnvelopeError(Code.WRONG_SUBJECT, 3, "no handler for this subject")
        return route

    def find_route(self, subject: str) -> Route | None:
        """Return the route that handles `subject`, or `None` if there is none."""
        exact = self._exact.get(subject)
        if exact is not None:
            return exact
        for route in self._patterns:
            if matches(route.subject, subject):
                return route
        return None

    @staticmethod
    def unknown_action(subject: str) -> str:
        """Return the action in the subject of a task or event whose verb has no route here.

        Raises `EnvelopeError` `wrong_subject` (step 3) for every other subject.
        """
        kind, *tokens = subject.split(".")
        if kind not in (Kind.TASK, Kind.EVENT) or len(tokens) < 2:
            raise EnvelopeError(Code.WRONG_SUBJECT, 3, "no handler for this subject")
        return f"{tokens[0]}.{tokens[1]}"

    def subjects(self, kind: Kind) -> tuple[str, ...]:
        """Return the subjects to consume for `kind`, in the order of declaration."""
        return tuple(route.subject for route in self.routes if route.kind is kind)

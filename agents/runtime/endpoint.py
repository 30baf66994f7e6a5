"""`HandlerEndpoint`: an agent's handler as the endpoint of a route; and the routes of an agent."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pydantic

from sealbus.agents.sdk.agent import Agent, Handler
from sealbus.agents.sdk.context import Context
from sealbus.agents.sdk.options import checked_timeout
from sealbus.agents.sdk.sender import Sender
from sealbus.bus.routing.routes import Permitted, Route
from sealbus.bus.sending.message import Content
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject, OwnSubjects, call_subject, task_subject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.request import NO_RESOURCE
from sealbus.policies.decision.request import Resource as ResourceInput


@dataclass(frozen=True, slots=True)
class HandlerEndpoint:
    """One declared handler, run with a `Context` that sends for the worker's identity."""

    handler: Handler[Any, Any]
    sending: Sender
    kind: Kind
    """The kind of the route; the handler of an own subject has none."""

    def decode(self, body: bytes, typ: str) -> object:
        """Return the typed body (step 14)."""
        return self.handler.takes.decode(body, typ)

    def properties(self, value: object) -> Mapping[str, object]:
        """Return the declared facts of the body."""
        if not self.handler.facts or not isinstance(value, pydantic.BaseModel):
            return {}
        return {fact: getattr(value, fact) for fact in self.handler.facts}

    async def resource(self, value: object) -> ResourceInput:
        """Load the resource from the agent's own data (step 15)."""
        if self.handler.resource is None:
            return NO_RESOURCE
        resource = await self.handler.resource(value)
        return ResourceInput(type=resource.type, id=resource.id, properties=dict(resource.properties))

    async def handle(self, permitted: Permitted) -> Content | None:
        """Run the handler (step 18). A call is always answered; results of other kinds are encoded to find invalid ones."""
        result = await self.handler.function(permitted.value, Context(permitted, self.sending))
        if result is None and self.kind is not Kind.CALL:
            return None
        return self.handler.gives.encode(result)

    def stream(self, permitted: Permitted) -> AsyncGenerator[Content, None] | None:
        """Return the parts of the answer if the handler is an async generator."""
        return self._chunks(permitted) if self.handler.streams else None

    async def _chunks(self, permitted: Permitted) -> AsyncGenerator[Content, None]:
        async with aclosing(self.handler.function(permitted.value, Context(permitted, self.sending))) as chunks:
            async for chunk in chunks:
                yield self.handler.gives.encode(chunk)


def routes_of(agent: Agent, *, sending: Sender, names: Names, own_subjects: OwnSubjects) -> list[Route]:
    """Return a route for each handler of `agent`.

    Raises `ConfigurationError` for an undeclared subject, an own task or call of another agent, and a handler that
    contradicts the declared action or kind of its own subject.
    """
    own = names.id_of(agent.name)
    token = names.token(own)
    routes = []
    for handler in agent.handlers.values():
        verb = handler.action.partition(".")[2]
        subjects = [handler.subject]
        kind, action = handler.kind, handler.action
        if handler.kind is Kind.TASK:
            subjects = [task_subject(token, verb), task_subject(token, verb) + ".*"]
        elif handler.kind is Kind.CALL:
            subjects = [call_subject(token, verb)]
        if kind is None:
            declared = _declared(handler, own, own_subjects)
            kind, action = declared.kind, declared.action
        routes += [
            Route(
                kind=kind,
                subject=subject,
                action=action,
                endpoint=HandlerEndpoint(handler, sending, kind),
                options=handler.options,
                loads_resource=handler.resource is not None,
            )
            for subject in subjects
        ]
    return routes


def _declared(handler: Handler[Any, Any], own: SpiffeId, own_subjects: OwnSubjects) -> OwnSubject:
    """Return the settings' declaration of the handler's own subject; raise `ConfigurationError` if they do not match."""
    subject = handler.subject
    declared = own_subjects.get(subject)
    if declared is None:
        raise ConfigurationError(f"{subject}: declare it under [subjects] with kind, owner and action")
    if declared.kind is not Kind.EVENT and declared.owner != own:
        # Senders address the owner, so any other agent would refuse it at step 4.
        raise ConfigurationError(f"{subject}: only its owner {declared.owner} can handle this {declared.kind}")
    if handler.action not in (subject, declared.action):
        raise ConfigurationError(
            f"{subject}: the handler says action {handler.action}, [subjects] says {declared.action}"
        )
    if declared.kind is Kind.CALL and (handler.options.once or handler.options.total_timeout != math.inf):
        raise ConfigurationError(
            f"{subject}: a call is never delivered again, so that `once` and `total_timeout` do not apply to it"
        )
    checked_timeout(subject, declared.kind, handler.options.timeout)
    if handler.streams and declared.kind is Kind.EVENT:
        raise ConfigurationError(f"{subject}: an event is not answered, in parts or otherwise")
    return declared
